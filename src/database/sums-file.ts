import { closeSync, fsync, openSync, readFileSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { Crc64 } from "../ltx/crc64.ts";
import { fileError } from "./files.ts";
import { writeAt } from "./io.ts";
import { PageSums } from "./page-sums.ts";

const MAGIC = 0x534c5053;
const HEAD_BYTES = 24;
const syncOf = promisify(fsync);

/** The table of page sums as it was after the record of slot `txid`. */
export interface SavedSums {
  readonly txid: number;
  readonly sums: PageSums;
}

/**
 * The file `pages` in the state directory: magic u32, pages u32, TXID u64, CRC-64 of all the rest, then two u32 (little-
 * endian, low word first) a page. Replaced as a whole; a kill leaves the file before, which local batches bring up to
 * date. Throws SLU-2008 to SLU-2010.
 */
export async function saveSums(stateDir: string, txid: number, sums: PageSums): Promise<void> {
  // A copy, and at once: the table goes on changing while the file is written.
  const bytes = encode(txid, sums);
  const target = path.join(stateDir, "pages");
  const temporary = `${target}.tmp`;
  let fd: number | undefined;
  try {
    fd = openSync(temporary, "w", 0o600);
    writeAt(fd, bytes, 0, bytes.length, 0);
    await syncOf(fd);
    renameSync(temporary, target);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw fileError(error, target, "write");
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** What was saved last; undefined when there is nothing whole. */
export function loadSums(stateDir: string): SavedSums | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path.join(stateDir, "pages"));
  } catch {
    return undefined;
  }
  if (bytes.length < HEAD_BYTES || bytes.readUInt32BE(0) !== MAGIC) return undefined;
  const count = bytes.readUInt32BE(4);
  if (bytes.length !== HEAD_BYTES + 8 * count || crcOf(bytes) !== bytes.readBigUInt64BE(16)) return undefined;
  const words = new Int32Array(2 * count);
  Buffer.from(words.buffer).set(bytes.subarray(HEAD_BYTES));
  return { txid: Number(bytes.readBigUInt64BE(8)), sums: new PageSums(words, count) };
}

function encode(txid: number, sums: PageSums): Buffer {
  const bytes = Buffer.alloc(HEAD_BYTES + 8 * sums.count);
  const { words } = sums;
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt32BE(sums.count, 4);
  bytes.writeBigUInt64BE(BigInt(txid), 8);
  bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), HEAD_BYTES);
  bytes.writeBigUInt64BE(crcOf(bytes), 16);
  return bytes;
}

function crcOf(bytes: Buffer): bigint {
  return new Crc64().update(bytes, 0, 16).update(bytes, HEAD_BYTES).value();
}

import { closeSync, fsync, openSync, renameSync, rmSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { Crc64 } from "../ltx/crc64.ts";
import { syncDirectory } from "./directories.ts";
import { fileError } from "./files.ts";
import { writeAt } from "./io.ts";
import { PageSums } from "./page-sums.ts";

const MAGIC = 0x534c5053;
const HEAD_BYTES = 24;
/** What is summed or written in one turn of the event loop. */
const SLICE_BYTES = 512 * 1024;
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
  bytes.writeBigUInt64BE(await crcOf(bytes), 16);
  const target = path.join(stateDir, "pages");
  const temporary = `${target}.tmp`;
  let fd: number | undefined;
  try {
    fd = openSync(temporary, "w", 0o600);
    for (let at = 0; at < bytes.length; at += SLICE_BYTES) {
      writeAt(fd, bytes, at, Math.min(SLICE_BYTES, bytes.length - at), at);
      if (at + SLICE_BYTES < bytes.length) await turn();
    }
    await syncOf(fd);
    renameSync(temporary, target);
    syncDirectory(stateDir);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw fileError(error, target, "write");
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** What was saved last; undefined when there is nothing whole. */
export async function loadSums(stateDir: string): Promise<SavedSums | undefined> {
  const bytes = await readFile(path.join(stateDir, "pages")).catch(() => undefined);
  if (bytes === undefined || bytes.length < HEAD_BYTES || bytes.readUInt32BE(0) !== MAGIC) return undefined;
  const count = bytes.readUInt32BE(4);
  if (bytes.length !== HEAD_BYTES + 8 * count || (await crcOf(bytes)) !== bytes.readBigUInt64BE(16)) return undefined;
  const words = new Int32Array(2 * count);
  Buffer.from(words.buffer).set(bytes.subarray(HEAD_BYTES));
  return { txid: Number(bytes.readBigUInt64BE(8)), sums: new PageSums(words, count) };
}

/** Without the checksum. */
function encode(txid: number, sums: PageSums): Buffer {
  const bytes = Buffer.allocUnsafe(HEAD_BYTES + 8 * sums.count);
  const { words } = sums;
  bytes.writeUInt32BE(MAGIC, 0);
  bytes.writeUInt32BE(sums.count, 4);
  bytes.writeBigUInt64BE(BigInt(txid), 8);
  bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), HEAD_BYTES);
  return bytes;
}

async function crcOf(bytes: Buffer): Promise<bigint> {
  const crc = new Crc64().update(bytes, 0, 16);
  for (let at = HEAD_BYTES; at < bytes.length; at += SLICE_BYTES) {
    crc.update(bytes, at, Math.min(at + SLICE_BYTES, bytes.length));
    if (at + SLICE_BYTES < bytes.length) await turn();
  }
  return crc.value();
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

import { closeSync, fstatSync, openSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { Crc64 } from "../ltx/crc64.ts";
import type { Position } from "../ltx/position.ts";
import { fileError } from "./files.ts";
import { readAt, writeAt } from "./io.ts";

/** A state that this copy of the database has had. */
export interface AppliedState {
  readonly position: Position;
  readonly checksum: bigint;
  /** Size in pages. */
  readonly pageCount: number;
}

const FILE = "applied";
const ENTRY_BYTES = 32;
const entry = Buffer.alloc(ENTRY_BYTES);

/**
 * The file `applied` in the state directory of a replica: the name, checksum and size of every state since the WAL
 * began anew, 32 bytes each (position u64, checksum u64, pages u64, CRC-64 of these, big-endian), written before the
 * state is shown to readers and never synced.
 *
 * After a crash the database is at one of them (protocol section 5): its pages say at which, so that the file can be
 * ahead, or torn, and nothing is guessed. Where none fits the position is unknown.
 */
export class AppliedJournal {
  readonly #path: string;
  #fd: number;
  #bytes: number;

  /** Creates the file where there is none. Throws SLU-2008 to SLU-2010. */
  constructor(stateDir: string) {
    this.#path = path.join(stateDir, FILE);
    try {
      this.#fd = openSync(this.#path, "a+", 0o600);
      closeSync(this.#fd);
      this.#fd = openSync(this.#path, "r+");
      const { size } = fstatSync(this.#fd);
      this.#bytes = size - (size % ENTRY_BYTES);
    } catch (error) {
      throw fileError(error, this.#path, "open");
    }
  }

  /** The newest entry with this content; undefined when there is none. */
  find(checksum: bigint, pageCount: number): AppliedState | undefined {
    const bytes = Buffer.alloc(this.#bytes);
    readAt(this.#fd, bytes, bytes.length, 0);
    for (let at = bytes.length - ENTRY_BYTES; at >= 0; at -= ENTRY_BYTES) {
      const one = bytes.subarray(at, at + ENTRY_BYTES);
      if (one.readBigUInt64BE(8) !== checksum || Number(one.readBigUInt64BE(16)) !== pageCount) continue;
      if (one.readBigUInt64BE(24) !== crcOf(one)) continue;
      return { position: one.readBigUInt64BE(0), checksum, pageCount };
    }
    return undefined;
  }

  /** Whether the state of this name was here, with this content. False also where the entry is gone. */
  has(position: Position, checksum: bigint): boolean {
    const bytes = Buffer.alloc(this.#bytes);
    readAt(this.#fd, bytes, bytes.length, 0);
    for (let at = bytes.length - ENTRY_BYTES; at >= 0; at -= ENTRY_BYTES)
      if (bytes.readBigUInt64BE(at) === position && bytes.readBigUInt64BE(at + 8) === checksum) return true;
    return false;
  }

  /** Throws SLU-2008 to SLU-2010 with the entry left out. */
  append(state: AppliedState): void {
    fill(state);
    try {
      writeAt(this.#fd, entry, 0, ENTRY_BYTES, this.#bytes);
    } catch (error) {
      throw fileError(error, this.#path, "write");
    }
    this.#bytes += ENTRY_BYTES;
  }

  /** The last entry was not shown after all. */
  takeBack(): void {
    this.#bytes = Math.max(0, this.#bytes - ENTRY_BYTES);
  }

  /** Everything is in the database file: only `state` counts from now on. A kill leaves the entries before. */
  restart(state: AppliedState): void {
    fill(state);
    const temporary = `${this.#path}.tmp`;
    try {
      const fd = openSync(temporary, "w+", 0o600);
      try {
        writeAt(fd, entry, 0, ENTRY_BYTES, 0);
        renameSync(temporary, this.#path);
      } catch (error) {
        closeSync(fd);
        throw error;
      }
      closeSync(this.#fd);
      this.#fd = fd;
      this.#bytes = ENTRY_BYTES;
    } catch (error) {
      rmSync(temporary, { force: true });
      throw fileError(error, this.#path, "write");
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

function fill({ position, checksum, pageCount }: AppliedState): void {
  entry.writeBigUInt64BE(position, 0);
  entry.writeBigUInt64BE(checksum, 8);
  entry.writeBigUInt64BE(BigInt(pageCount), 16);
  entry.writeBigUInt64BE(crcOf(entry), 24);
}

function crcOf(bytes: Uint8Array): bigint {
  return new Crc64().update(bytes, 0, 24).value();
}

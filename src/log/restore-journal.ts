import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync, rmSync } from "node:fs";
import { systemErrorCode } from "../errors/error.ts";
import type { LogFile } from "./listing.ts";
import type { SegmentSum } from "./segment.ts";
import { writeFully } from "./write-fully.ts";

/** Raised with every change of the file's form; another one's is not read. */
const FORMAT = 1;
const LENGTHS_BYTES = 8;
const CREATED = constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC | constants.O_NOFOLLOW;
const HEAD_BYTES_MAX = 16 * 1024;

/** Which bytes of which object of which store. */
export interface JournalKey {
  readonly store: string;
  readonly file: LogFile;
  readonly offset: number;
  readonly length: number;
}

interface Head {
  readonly name: string;
  readonly length: number;
  readonly crc: string;
  readonly hashedBytes: number;
}

interface Place extends Head {
  readonly at: number;
  readonly sumsBytes: number;
}

/**
 * What a restore has decoded, in a file beside its temporary one: for each segment the sums of its pages. A restore to
 * the same place that follows takes from the temporary file the pages that still have these sums, whatever the plan
 * has become, and fetches only the rest. Nothing is believed for being noted here: pages must have their sums, files
 * their checksums, and the database its own; so nothing of it needs to be synced, and what can't be read is skipped.
 *
 * One record behind the other: two lengths (u32, little-endian), a JSON document, and two signed words for each page.
 */
export class RestoreJournal {
  readonly #path: string;
  readonly #places = new Map<string, Place>();
  #fd: number | undefined;
  #end = 0;
  /** The disk had no room for it, or the like: the restore goes on without. */
  #broken = false;
  /** Compressed bytes that need not be fetched again. */
  bytes = 0;
  /** Whether anything of an earlier restore was handed out. */
  wasUsed = false;

  /** Reads what an earlier restore has left at `path`; without that the file is made by the first `add`. */
  constructor(path: string) {
    this.#path = path;
    try {
      // Nor somebody else's link of that name.
      this.#fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
      this.#read(this.#fd);
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
    }
  }

  get isEmpty(): boolean {
    return this.#places.size === 0;
  }

  /** What was noted of a segment, if it was. */
  find(key: JournalKey): SegmentSum | undefined {
    const place = this.#places.get(nameOf(key));
    if (place === undefined || this.#fd === undefined) return undefined;
    const sums = Buffer.from(new ArrayBuffer(place.sumsBytes));
    if (readSync(this.#fd, sums, 0, sums.length, place.at) < sums.length) return undefined;
    this.wasUsed = true;
    return { crc: BigInt(`0x${place.crc}`), hashedBytes: place.hashedBytes, sums: new Int32Array(sums.buffer) };
  }

  /** Notes a segment whose pages were written. */
  add(key: JournalKey, { crc, hashedBytes, sums }: SegmentSum): void {
    if (this.#broken) return;
    const name = nameOf(key);
    const head = { format: FORMAT, name, length: key.length, crc: crc.toString(16), hashedBytes };
    const json = Buffer.from(JSON.stringify(head));
    const lengths = Buffer.alloc(LENGTHS_BYTES);
    lengths.writeUInt32LE(json.length, 0);
    lengths.writeUInt32LE(sums.byteLength, 4);
    try {
      this.#fd ??= openSync(this.#path, CREATED, 0o600);
      const pages = Buffer.from(sums.buffer, sums.byteOffset, sums.byteLength);
      writeFully(this.#fd, Buffer.concat([lengths, json, pages]), this.#end);
    } catch (error) {
      if (systemErrorCode(error) === undefined) throw error;
      this.#broken = true;
      return;
    }
    this.#note({ ...head, at: this.#end + LENGTHS_BYTES + json.length, sumsBytes: sums.byteLength });
  }

  /** Forgets all: something of it was wrong. */
  clear(): void {
    if (this.#fd !== undefined) ftruncateSync(this.#fd, 0);
    this.#places.clear();
    this.#end = this.bytes = 0;
    this.wasUsed = false;
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    this.#broken = true;
  }

  /** Closes and removes it. */
  remove(): void {
    this.close();
    rmSync(this.#path, { force: true });
  }

  #note(place: Place): void {
    if (!this.#places.has(place.name)) this.bytes += place.length;
    this.#places.set(place.name, place);
    this.#end = place.at + place.sumsBytes;
  }

  /** Up to the first record that isn't whole; what is added goes there. */
  #read(fd: number): void {
    const { size } = fstatSync(fd);
    const lengths = Buffer.alloc(LENGTHS_BYTES);
    for (;;) {
      if (readSync(fd, lengths, 0, LENGTHS_BYTES, this.#end) < LENGTHS_BYTES) break;
      const headBytes = lengths.readUInt32LE(0);
      const sumsBytes = lengths.readUInt32LE(4);
      const at = this.#end + LENGTHS_BYTES + headBytes;
      if (headBytes > HEAD_BYTES_MAX || sumsBytes % 8 !== 0 || at + sumsBytes > size) break;
      const json = Buffer.alloc(headBytes);
      readSync(fd, json, 0, headBytes, this.#end + LENGTHS_BYTES);
      const head = headOf(json.toString());
      if (head === undefined) break;
      this.#note({ ...head, at, sumsBytes });
    }
    ftruncateSync(fd, this.#end);
  }
}

/** Any other object, also one of the same name, has another one. */
function nameOf({ store, file: { key, sizeBytes, modifiedMs }, offset, length }: JournalKey): string {
  return JSON.stringify([store, key, sizeBytes, modifiedMs, offset, length]);
}

function headOf(json: string): Head | undefined {
  try {
    const { format, name, length, crc, hashedBytes } = JSON.parse(json) as Partial<Head> & { format?: unknown };
    const isHead = format === FORMAT && typeof name === "string" && typeof length === "number" && hashedBytes! >= 0;
    return isHead && /^[0-9a-f]{1,16}$/.test(crc!) ? { name, length, crc: crc!, hashedBytes: hashedBytes! } : undefined;
  } catch {
    return undefined;
  }
}

import { isPageSize } from "./database-header.ts";

/**
 * The write-ahead log file (SQLite's "WAL-mode File Format", section 2; wal.c, `walDecodeFrame`, `walChecksumBytes`).
 * A 32-byte header, then frames of a 24-byte header and one page. Numbers are big-endian; which byte order the
 * checksums read the content in is the last bit of the magic number.
 */
export const WAL_HEADER_BYTES = 32;
export const FRAME_HEADER_BYTES = 24;

const MAGIC = 0x377f0682;
const VERSION = 3007000;

const hostIsLittleEndian = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1;

export interface WalHeader {
  readonly pageSize: number;
  /** Counts the generations (`nCkpt`, "checkpoint sequence number"). */
  readonly sequence: number;
  /** Checksums read content as big-endian words (byte 13 of the wal-index header says the same). */
  readonly bigEndian: boolean;
  /** The 8 salt bytes as two words in the machine's byte order, as the wal-index holds them. */
  readonly salt1: number;
  readonly salt2: number;
  /** The header's own checksum, with which that of the first frame begins. */
  readonly sum1: number;
  readonly sum2: number;
}

/** Byte offset of frame `frame` (1-based) in the file. */
export function frameOffset(frame: number, pageSize: number): number {
  return WAL_HEADER_BYTES + (frame - 1) * (FRAME_HEADER_BYTES + pageSize);
}

/**
 * A running checksum over the frames of one generation. `s1`, `s2` are the cumulative checksum as signed words.
 * Mutable, so that no frame costs an allocation.
 */
export class WalChecksum {
  s1 = 0;
  s2 = 0;

  set(s1: number, s2: number): void {
    this.s1 = s1 | 0;
    this.s2 = s2 | 0;
  }

  /** Adds `count` words (an even number) of `words` from index `from`. `swap`: the content's byte order is not ours. */
  add(words: Int32Array, from: number, count: number, swap: boolean): void {
    let a = this.s1;
    let b = this.s2;
    const end = from + count;
    if (swap) {
      for (let i = from; i < end; i += 2) {
        a = (a + swap32(words[i]!) + b) | 0;
        b = (b + swap32(words[i + 1]!) + a) | 0;
      }
    } else {
      for (let i = from; i < end; i += 2) {
        a = (a + words[i]! + b) | 0;
        b = (b + words[i + 1]! + a) | 0;
      }
    }
    this.s1 = a;
    this.s2 = b;
  }
}

/** Whether words of checksummed content must be swapped on this machine. */
function mustSwap(bigEndian: boolean): boolean {
  return bigEndian === hostIsLittleEndian;
}

function swap32(x: number): number {
  return (x << 24) | ((x & 0xff00) << 8) | ((x >>> 8) & 0xff00) | (x >>> 24);
}

/** The number whose big-endian bytes `word` holds, or the other way round, as a signed word. */
export function bigEndianValue(word: number): number {
  return hostIsLittleEndian ? swap32(word) : word;
}

function bigEndianWord(words: Int32Array, index: number): number {
  return bigEndianValue(words[index]!);
}

/** The header of a WAL, or undefined when the bytes are none or its checksum is wrong. `words`: its 8 words. */
export function parseWalHeader(words: Int32Array): WalHeader | undefined {
  const magic = bigEndianWord(words, 0) >>> 0;
  if (magic >>> 1 !== MAGIC >>> 1 || bigEndianWord(words, 1) !== VERSION) return undefined;
  const pageSize = bigEndianWord(words, 2);
  if (!isPageSize(pageSize)) return undefined;
  const bigEndian = (magic & 1) === 1;
  const sum = new WalChecksum();
  sum.add(words, 0, 6, mustSwap(bigEndian));
  if (sum.s1 !== bigEndianWord(words, 6) || sum.s2 !== bigEndianWord(words, 7)) return undefined;
  return {
    pageSize,
    sequence: bigEndianWord(words, 3) >>> 0,
    bigEndian,
    salt1: words[4]!,
    salt2: words[5]!,
    sum1: sum.s1,
    sum2: sum.s2,
  };
}

/**
 * Makes `words` (8 of them) the header of a generation whose checksums are in this machine's byte order (wal.c,
 * `walFrames`), and `sum` the checksum that its first frame continues.
 */
export function putWalHeader(
  words: Int32Array,
  generation: { readonly pageSize: number; readonly sequence: number; readonly salt1: number; readonly salt2: number },
  sum: WalChecksum,
): void {
  words[0] = bigEndianValue(MAGIC | (hostIsLittleEndian ? 0 : 1));
  words[1] = bigEndianValue(VERSION);
  words[2] = bigEndianValue(generation.pageSize);
  words[3] = bigEndianValue(generation.sequence);
  words[4] = generation.salt1;
  words[5] = generation.salt2;
  sum.set(0, 0);
  sum.add(words, 0, 6, false);
  words[6] = bigEndianValue(sum.s1);
  words[7] = bigEndianValue(sum.s2);
}

/**
 * Reads frames one after the other out of a buffer and checks each: salts, page number, cumulative checksum. The
 * fields tell about the frame that `next` has just accepted.
 *
 * One kind of frame has neither salts nor checksum: when a transaction spills, writes a spilled page again and then
 * goes back to a savepoint, SQLite keeps a stale `iReCksum` (wal.c, `sqlite3WalSavepointUndo`, `walRewriteChecksums`)
 * and leaves 16 zero bytes in committed frames. The frame after them continues from a checksum that is in no file.
 * They are accepted and reported as `isUnsummed`; whoever reads them must know from the wal-index that they are
 * committed, and compare its checksum of the last frame.
 */
export class FrameScanner {
  readonly sum = new WalChecksum();
  /** Page number of the accepted frame, 1-based. */
  page = 0;
  /** Pages in the database after the commit that this frame ends; 0 when it ends none. */
  commitSize = 0;
  isUnsummed = false;
  #afterUnsummed = false;
  #salt1 = 0;
  #salt2 = 0;
  #swap = false;
  readonly #pageWords: number;

  constructor(pageSize: number) {
    this.#pageWords = pageSize / 4;
  }

  /** The generation to accept: salts as the wal-index holds them, the checksum of the frame before the next. */
  begin(salt1: number, salt2: number, bigEndian: boolean, s1: number, s2: number): void {
    this.#salt1 = salt1 | 0;
    this.#salt2 = salt2 | 0;
    this.#swap = mustSwap(bigEndian);
    this.#afterUnsummed = false;
    this.sum.set(s1, s2);
  }

  /** Checks the frame at word `at`. False (and the checksum is not moved on) when it does not belong here. */
  next(words: Int32Array, at: number): boolean {
    const page = bigEndianWord(words, at) >>> 0;
    if (page === 0) return false;
    const stored1 = bigEndianWord(words, at + 4);
    const stored2 = bigEndianWord(words, at + 5);
    const salt1 = words[at + 2];
    const salt2 = words[at + 3];
    if (salt1 !== this.#salt1 || salt2 !== this.#salt2) {
      if (salt1 !== 0 || salt2 !== 0 || stored1 !== 0 || stored2 !== 0) return false;
      this.isUnsummed = true;
      this.#afterUnsummed = true;
      this.sum.set(0, 0);
    } else {
      const { s1, s2 } = this.sum;
      this.sum.add(words, at, 2, this.#swap);
      this.sum.add(words, at + 6, this.#pageWords, this.#swap);
      if (this.sum.s1 !== stored1 || this.sum.s2 !== stored2) {
        if (!this.#afterUnsummed) {
          this.sum.set(s1, s2);
          return false;
        }
        this.sum.set(stored1, stored2);
      }
      this.isUnsummed = false;
      this.#afterUnsummed = false;
    }
    this.page = page;
    this.commitSize = bigEndianWord(words, at + 1) >>> 0;
    return true;
  }
}

/**
 * Gives the frame at word `at` the salts of its header and the checksum that continues `sum`, in place. `words` holds
 * the whole frame.
 */
export function signFrame(
  words: Int32Array,
  at: number,
  pageSize: number,
  generation: { readonly salt1: number; readonly salt2: number; readonly bigEndian: boolean },
  sum: WalChecksum,
): void {
  const swap = mustSwap(generation.bigEndian);
  sum.add(words, at, 2, swap);
  sum.add(words, at + 6, pageSize / 4, swap);
  words[at + 2] = generation.salt1;
  words[at + 3] = generation.salt2;
  words[at + 4] = bigEndianValue(sum.s1);
  words[at + 5] = bigEndianValue(sum.s2);
}

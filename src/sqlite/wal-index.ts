import { bigEndianValue, WalChecksum } from "./wal.ts";

/**
 * The header of the wal-index, the first 136 bytes of the `-shm` file (SQLite's "WAL-mode File Format", section 2.2;
 * wal.c, `WalIndexHdr`, `WalCkptInfo`). All numbers are in the machine's byte order.
 */
export const WAL_INDEX_HEADER_BYTES = 136;
/** Size of one index block; the file is a whole number of them. */
export const WAL_INDEX_BLOCK_BYTES = 32768;

export const OFFSET_BACKFILL = 96;
export const OFFSET_MARKS = 100;
/** Mark of the pinned slot: `aReadMark[4]`. */
export const OFFSET_PIN_MARK = 116;
export const OFFSET_BACKFILL_ATTEMPTED = 128;

/** `READMARK_NOT_USED`. */
export const MARK_UNUSED = 0xffffffff;

const COPY_BYTES = 48;
const COPY_WORDS = COPY_BYTES / 4;
/** `WALINDEX_MAX_VERSION`. */
const VERSION = 3007000;

const sum = new WalChecksum();

/**
 * One copy of the header, parsed into fields that stay for the object's life. Salts and checksums are signed words in
 * the machine's byte order.
 */
export class WalIndexHeader {
  change = 0;
  bigEndian = false;
  pageSize = 0;
  /** Last frame of the last commit; 0 right after a restart of the WAL. */
  mxFrame = 0;
  /** Pages in the database. */
  pageCount = 0;
  frameSum1 = 0;
  frameSum2 = 0;
  salt1 = 0;
  salt2 = 0;

  assign(other: WalIndexHeader): void {
    this.change = other.change;
    this.bigEndian = other.bigEndian;
    this.pageSize = other.pageSize;
    this.mxFrame = other.mxFrame;
    this.pageCount = other.pageCount;
    this.frameSum1 = other.frameSum1;
    this.frameSum2 = other.frameSum2;
    this.salt1 = other.salt1;
    this.salt2 = other.salt2;
  }

  /** Whether no commit or restart lies between the two. */
  isSame(other: WalIndexHeader): boolean {
    return this.change === other.change && this.mxFrame === other.mxFrame && this.sameGeneration(other);
  }

  sameGeneration(other: { readonly salt1: number; readonly salt2: number }): boolean {
    return this.salt1 === other.salt1 && this.salt2 === other.salt2;
  }
}

/**
 * The bytes of the header, with room for both copies, `nBackfill`, the marks and `nBackfillAttempted`. One of them is
 * read again and again; nothing is allocated.
 */
export class WalIndexImage {
  readonly bytes = new Uint8Array(WAL_INDEX_HEADER_BYTES);
  readonly words = new Int32Array(this.bytes.buffer);
  readonly #halves = new Uint16Array(this.bytes.buffer);

  get backfill(): number {
    return this.words[OFFSET_BACKFILL / 4]! >>> 0;
  }

  /** `aReadMark[i]`. */
  mark(i: number): number {
    return this.words[OFFSET_MARKS / 4 + i]! >>> 0;
  }

  /** Whether both copies are equal and their checksum is right: the state between two header writes. */
  get isWhole(): boolean {
    for (let i = 0; i < COPY_WORDS; i++) if (this.words[i] !== this.words[COPY_WORDS + i]) return false;
    return this.isValid(0);
  }

  /** Whether copy 0 or 1 is initialised and its own checksum is right. */
  isValid(copy: 0 | 1): boolean {
    const at = copy * COPY_WORDS;
    if (this.bytes[copy * COPY_BYTES + 12] !== 1) return false;
    sum.set(0, 0);
    // wal.c always sums the header in the machine's own byte order.
    sum.add(this.words, at, 10, false);
    return sum.s1 === this.words[at + 10] && sum.s2 === this.words[at + 11];
  }

  /** Puts the fields of copy 0 or 1 into `into`. */
  parse(copy: 0 | 1, into: WalIndexHeader): void {
    const at = copy * COPY_WORDS;
    const words = this.words;
    into.change = words[at + 2]! >>> 0;
    into.bigEndian = this.bytes[copy * COPY_BYTES + 13] !== 0;
    const size = this.#halves[(copy * COPY_BYTES + 14) / 2]!;
    // 64 KiB does not fit 16 bits: the field is 1 (wal.c, `walIndexRecover`).
    into.pageSize = (size & 0xfe00) + ((size & 1) << 16);
    into.mxFrame = words[at + 4]! >>> 0;
    into.pageCount = words[at + 5]! >>> 0;
    into.frameSum1 = words[at + 6]!;
    into.frameSum2 = words[at + 7]!;
    into.salt1 = words[at + 8]!;
    into.salt2 = words[at + 9]!;
  }

  /** Makes both copies those of `header`, with `change` and checksum. */
  put(header: WalIndexHeader): void {
    const words = this.words;
    words[0] = VERSION;
    words[1] = 0;
    words[2] = header.change;
    this.bytes[12] = 1;
    this.bytes[13] = header.bigEndian ? 1 : 0;
    this.#halves[7] = (header.pageSize & 0xff00) | (header.pageSize >>> 16);
    words[4] = header.mxFrame;
    words[5] = header.pageCount;
    words[6] = header.frameSum1;
    words[7] = header.frameSum2;
    words[8] = header.salt1;
    words[9] = header.salt2;
    sum.set(0, 0);
    sum.add(words, 0, 10, false);
    words[10] = sum.s1;
    words[11] = sum.s2;
    words.copyWithin(COPY_WORDS, 0, COPY_WORDS);
  }

  /** Copies copy 0 or 1, bytes as they are, over the other. */
  repairFrom(copy: 0 | 1): void {
    this.words.copyWithin((1 - copy) * COPY_WORDS, copy * COPY_WORDS, (copy + 1) * COPY_WORDS);
  }

  /** What follows both copies after a restart of the WAL: `nBackfill` 0, marks 0, 0, unused × 3. */
  putRestarted(): void {
    this.words[OFFSET_BACKFILL / 4] = 0;
    const marks = OFFSET_MARKS / 4;
    this.words[marks] = 0;
    this.words[marks + 1] = 0;
    for (let i = 2; i < 5; i++) this.words[marks + i] = -1;
  }
}

/** Bytes of both copies: the one write of a header repair. */
export const HEADER_COPIES_BYTES = 2 * COPY_BYTES;
/** Both copies, `nBackfill` and the marks: the one write of a restart. The lock bytes begin right after it. */
export const RESTART_BYTES = 120;

/** `aSalt[0] + 1` as `walRestartHdr` counts: the salt's bytes are a big-endian number. */
export function nextSalt1(salt1: number): number {
  return bigEndianValue((bigEndianValue(salt1) + 1) | 0);
}

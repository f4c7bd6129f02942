import { sumValue } from "../ltx/page-sum.ts";

/**
 * The sum of every page of a database at one moment, and their XOR, the database checksum (protocol section 6). Two
 * 32-bit words a page, low half first; the lock page, which has no content, counts as 0.
 */
export class PageSums {
  #words: Int32Array;
  #count: number;
  #lo = 0;
  #hi = 0;

  /** Adopts `words` (2 · `count` of them are used). */
  constructor(words: Int32Array = new Int32Array(0), count = 0) {
    this.#words = words;
    this.#count = count;
    for (let i = 0; i < 2 * count; i += 2) {
      this.#lo ^= words[i]!;
      this.#hi ^= words[i + 1]!;
    }
  }

  /** Another table with the same sums. */
  copy(): PageSums {
    return new PageSums(this.words.slice(), this.#count);
  }

  /** Pages in the database. */
  get count(): number {
    return this.#count;
  }

  /** The database checksum. */
  get checksum(): bigint {
    return sumValue(this.#lo, this.#hi);
  }

  /** The database checksum as two signed words. */
  get xor(): { lo: number; hi: number } {
    return { lo: this.#lo, hi: this.#hi };
  }

  /** The words in use; not to be changed, and valid until the next call that changes the size. */
  get words(): Int32Array {
    return this.#words.subarray(0, 2 * this.#count);
  }

  lo(pgno: number): number {
    return this.#words[2 * pgno - 2]!;
  }

  hi(pgno: number): number {
    return this.#words[2 * pgno - 1]!;
  }

  /** Gives page `pgno` (at most `count`) a new sum. */
  set(pgno: number, lo: number, hi: number): void {
    if (pgno < 1 || pgno > this.#count) throw new RangeError(`page ${pgno} of ${this.#count}`);
    const at = 2 * pgno - 2;
    this.#lo ^= this.#words[at]! ^ lo;
    this.#hi ^= this.#words[at + 1]! ^ hi;
    this.#words[at] = lo;
    this.#words[at + 1] = hi;
  }

  /** The database has `count` pages from now on: pages above are dropped, new ones count as 0 until they are set. */
  resize(count: number): void {
    for (let pgno = count + 1; pgno <= this.#count; pgno++) this.set(pgno, 0, 0);
    if (2 * count > this.#words.length) {
      const larger = new Int32Array(Math.max(64, 2 * count, Math.min(4 * this.#count, 2 * count + 65536)));
      larger.set(this.words);
      this.#words = larger;
    }
    this.#count = count;
  }
}

import { lockPage } from "./header.ts";
import { PageSum, sumValue } from "./page-sum.ts";

/** A database's checksum (protocol section 6) from its bytes in order, in pieces of any length. */
export class DatabaseSum {
  readonly #pageSize: number;
  readonly #sum: PageSum;
  readonly #lock: number;
  /** What has come of a page that isn't whole yet. */
  readonly #rest: Uint8Array;
  #restBytes = 0;
  #page = 1;
  #lo = 0;
  #hi = 0;

  constructor(pageSize: number) {
    this.#pageSize = pageSize;
    this.#sum = new PageSum(pageSize);
    this.#lock = lockPage(pageSize);
    this.#rest = new Uint8Array(pageSize);
  }

  add(bytes: Uint8Array): void {
    let at = 0;
    if (this.#restBytes > 0) {
      at = Math.min(this.#pageSize - this.#restBytes, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#restBytes);
      this.#restBytes += at;
      if (this.#restBytes < this.#pageSize) return;
      this.#restBytes = 0;
      this.#add(this.#rest, 0);
    }
    for (; at + this.#pageSize <= bytes.length; at += this.#pageSize) this.#add(bytes, at);
    this.#rest.set(bytes.subarray(at));
    this.#restBytes = bytes.length - at;
  }

  /** Of the whole pages that have come. */
  get value(): bigint {
    return sumValue(this.#lo, this.#hi);
  }

  #add(bytes: Uint8Array, at: number): void {
    const page = this.#page++;
    if (page === this.#lock) return;
    this.#sum.of(page, bytes, at, at + this.#pageSize);
    this.#lo ^= this.#sum.lo;
    this.#hi ^= this.#sum.hi;
  }
}

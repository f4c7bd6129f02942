import { Crc64 } from "../../ltx/crc64.ts";
import { BLOCK_PAGES } from "./messages.ts";

/** Blocks of a database of `pageCount` pages. The last one may hold fewer pages. */
export function blockCount(pageCount: number): number {
  return Math.ceil(pageCount / BLOCK_PAGES);
}

/** The sums of the pages of a block, two words a page; a part of `sums`. */
export function sumsOfBlock(sums: Int32Array, pageCount: number, block: number): Int32Array {
  return sums.subarray(2 * BLOCK_PAGES * block, 2 * Math.min(pageCount, BLOCK_PAGES * (block + 1)));
}

/**
 * The hash of a block (protocol section 6): CRC-64/GO-ISO over its pages' sums in order, each as eight bytes,
 * little-endian. Reused for block after block; `lo` and `hi` are the last result.
 */
export class BlockHash {
  readonly #crc = new Crc64();
  readonly #bytes = new Uint8Array(8 * BLOCK_PAGES);
  readonly #view = new DataView(this.#bytes.buffer);
  lo = 0;
  hi = 0;

  of(sums: Int32Array): this {
    for (let i = 0; i < sums.length; i++) this.#view.setInt32(4 * i, sums[i]!, true);
    const { lo, hi } = this.#crc.reset().update(this.#bytes, 0, 4 * sums.length);
    this.lo = lo;
    this.hi = hi;
    return this;
  }
}

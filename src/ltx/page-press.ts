import { Crc64 } from "./crc64.ts";
import { compressBlock } from "./lz4.ts";
import { PAGE_AT, threadKernel, WINDOW_AT } from "./page-kernel.ts";

/** Compresses pages, one at a time, and computes their CRC; nothing is allocated for a page where there's WebAssembly. */
export class PagePress {
  /** Of the content of the last page: what `PageSum.ofContent` wants. */
  contentLo = 0;
  contentHi = 0;
  readonly #crc = new Crc64();

  /** The block of the page of `size` bytes at `start`; valid until anything else of this room is called. */
  block(bytes: Uint8Array, start: number, size: number): Uint8Array {
    const page = bytes.subarray(start, start + size);
    const kernel = threadKernel();
    if (kernel === undefined) {
      const { lo, hi } = this.#crc.reset().update(page);
      this.contentLo = lo;
      this.contentHi = hi;
      return compressBlock(page);
    }
    const { memory, state } = kernel;
    memory.set(page, WINDOW_AT);
    state.fill(-1);
    kernel.crc(WINDOW_AT, WINDOW_AT + size);
    this.contentLo = ~state[0]!;
    this.contentHi = ~state[1]!;
    return memory.subarray(PAGE_AT, kernel.compress(WINDOW_AT, WINDOW_AT + size, PAGE_AT));
  }
}

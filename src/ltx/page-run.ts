import { Crc64 } from "./crc64.ts";
import { PAGE_FLAG_SIZE } from "./header.ts";
import { damagedPage, decompressBlock, decompressFrame } from "./lz4.ts";
import { FREE_AT, pageKernel, type PageKernel, PAGE_BYTES_MAX, SLACK_BYTES } from "./page-kernel.ts";

/** No LZ4 block of a page is longer (`LZ4_compressBound`). */
const BLOCK_BYTES_MAX = PAGE_BYTES_MAX + PAGE_BYTES_MAX / 255 + 16;
const BLOCK_AT = FREE_AT;
const RUN_AT = FREE_AT + Math.ceil((BLOCK_BYTES_MAX + SLACK_BYTES) / 64) * 64;

/**
 * Memory into which pages are decompressed one behind the other, so that one call can write them all; their CRC is
 * computed where they lie.
 */
export class PageRun {
  /** The pages. */
  readonly memory: Uint8Array;
  /** Of the content of the last page: what `PageSum.ofContent` wants. */
  contentLo = 0;
  contentHi = 0;
  readonly #kernel: PageKernel | undefined;
  readonly #crc = new Crc64();

  constructor(bytes: number) {
    this.#kernel = pageKernel(RUN_AT + bytes + SLACK_BYTES - FREE_AT);
    this.memory = this.#kernel?.memory.subarray(RUN_AT, RUN_AT + bytes) ?? new Uint8Array(bytes);
  }

  /**
   * Decompresses the page at `start … end` of `bytes` (a block or a frame, as `flags` of its header say; the four bytes
   * before it may be overwritten) to `size` bytes at `at`; what lies behind them may change, too. Throws SLU-5002.
   */
  add(bytes: Uint8Array, start: number, end: number, flags: number, at: number, size: number): void {
    const kernel = this.#kernel;
    if (flags !== PAGE_FLAG_SIZE) this.memory.set(decompressFrame(bytes.subarray(start, end), size), at);
    else if (kernel === undefined) this.memory.set(decompressBlock(bytes, start, end, size), at);
    else {
      if (end - start > BLOCK_BYTES_MAX) throw damagedPage();
      kernel.memory.set(bytes.subarray(start, end), BLOCK_AT);
      const to = RUN_AT + at;
      if (!kernel.decompress(BLOCK_AT, BLOCK_AT + end - start, to, to + size)) throw damagedPage();
    }
    this.#sum(at, size);
  }

  #sum(at: number, size: number): void {
    const kernel = this.#kernel;
    if (kernel === undefined) {
      const { lo, hi } = this.#crc.reset().update(this.memory, at, at + size);
      this.contentLo = lo;
      this.contentHi = hi;
      return;
    }
    kernel.state.fill(-1);
    kernel.crc(RUN_AT + at, RUN_AT + at + size);
    this.contentLo = ~kernel.state[0]!;
    this.contentHi = ~kernel.state[1]!;
  }
}

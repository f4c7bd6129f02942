import { Crc64 } from "./crc64.ts";
import { PAGE_FLAG_SIZE } from "./header.ts";
import { damagedPage, decompressBlock, decompressFrame } from "./lz4.ts";
import { blockBytesMax, FREE_AT, pageKernel, type PageKernel, PAGE_BYTES_MAX, SLACK_BYTES } from "./page-kernel.ts";

const BLOCK_BYTES_MAX = blockBytesMax(PAGE_BYTES_MAX);
const BLOCK_AT = FREE_AT;
const INPUT_AT = BLOCK_AT + rounded(BLOCK_BYTES_MAX + SLACK_BYTES);

/**
 * Memory into which pages are decompressed one behind the other, so that one call can write them all; their CRC is
 * computed where they lie.
 */
export class PageRun {
  /** The pages. */
  readonly memory: Uint8Array;
  /** Where compressed pages may be put before they're added: from there they needn't be copied. */
  readonly input: Uint8Array;
  /** Of the content of the last page: what `PageSum.ofContent` wants. */
  contentLo = 0;
  contentHi = 0;
  readonly #kernel: PageKernel | undefined;
  readonly #runAt: number;
  readonly #crc = new Crc64();

  /** `bytes`: room for pages. */
  constructor(bytes: number, inputBytes: number) {
    this.#runAt = INPUT_AT + rounded(inputBytes + SLACK_BYTES);
    this.#kernel = pageKernel(this.#runAt + bytes + SLACK_BYTES - FREE_AT);
    const part = (at: number, length: number): Uint8Array =>
      this.#kernel?.memory.subarray(at, at + length) ?? new Uint8Array(length);
    this.memory = part(this.#runAt, bytes);
    this.input = part(INPUT_AT, inputBytes);
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
      const isHere = bytes.buffer === kernel.memory.buffer;
      const from = isHere ? bytes.byteOffset + start : BLOCK_AT;
      if (!isHere) kernel.memory.set(bytes.subarray(start, end), BLOCK_AT);
      const to = this.#runAt + at;
      if (!kernel.decompress(from, from + end - start, to, to + size)) throw damagedPage();
    }
    this.sum(at, size);
  }

  /** Computes the CRC of the page of `size` bytes at `at`. */
  sum(at: number, size: number): void {
    const kernel = this.#kernel;
    if (kernel === undefined) {
      const { lo, hi } = this.#crc.reset().update(this.memory, at, at + size);
      this.contentLo = lo;
      this.contentHi = hi;
      return;
    }
    kernel.state.fill(-1);
    kernel.crc(this.#runAt + at, this.#runAt + at + size);
    this.contentLo = ~kernel.state[0]!;
    this.contentHi = ~kernel.state[1]!;
  }
}

function rounded(bytes: number): number {
  return Math.ceil(bytes / 64) * 64;
}

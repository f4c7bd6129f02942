import { crcCode } from "./crc64-code.ts";
import { compressCode, decompressCode, TABLE_BYTES } from "./lz4-code.ts";
import { instantiate } from "./wasm.ts";

export { FOLD_BYTES } from "./crc64-code.ts";

/** What is done with every byte of a page, in WebAssembly: CRC-64 and LZ4 (`crc64-code.ts`, `lz4-code.ts`). */
export interface PageKernel {
  /** All of its memory. What is below `FREE_AT` is its own. */
  readonly memory: Uint8Array<ArrayBuffer>;
  /** The running CRC (not inverted): low half, high half. */
  readonly state: Int32Array;
  /** Takes the bytes `at` … `end` of the memory into the running CRC: a multiple of `FOLD_BYTES`, and not 0. */
  readonly crc: (at: number, end: number) => void;
  /**
   * Compresses the page at `from` … `fromEnd` to `to`, where there must be room for `blockBytesMax`, and returns the end
   * of the block. Reads and writes up to `SLACK_BYTES` more.
   */
  readonly compress: (from: number, fromEnd: number, to: number) => number;
  /**
   * Decompresses the block at `from` … `fromEnd` to `to` … `toEnd`; false unless it's whole, valid, and of exactly that
   * size. Reads and writes up to `SLACK_BYTES` more. Nothing outside that is touched, whatever the block says.
   */
  readonly decompress: (from: number, fromEnd: number, to: number, toEnd: number) => boolean;
}

/** What must be left free behind the end of what is decompressed, and of where to. */
export const SLACK_BYTES = 32;
const STATE_AT = 0;
/** For each distance below 16: which of the bytes from there on make the next 16; how many of those repeat it wholly. */
const PATTERNS_AT = 16;
const STEPS_AT = PATTERNS_AT + 256;
const TABLE_AT = 1024;
/** The first byte that is for who uses a kernel. */
export const FREE_AT = TABLE_AT + TABLE_BYTES;
export const PAGE_BYTES_MAX = 65536;

/** No LZ4 block of so many bytes is longer (`LZ4_compressBound`). */
export function blockBytesMax(bytes: number): number {
  return bytes + Math.floor(bytes / 255) + 16;
}

interface Functions {
  readonly crc: (at: number, end: number) => void;
  readonly compress: (from: number, fromEnd: number, to: number) => number;
  readonly decompress: (from: number, fromEnd: number, to: number, toEnd: number) => number;
}

/** A kernel with `bytes` of memory from `FREE_AT` on; undefined where WebAssembly isn't to be had. */
export function pageKernel(bytes: number): PageKernel | undefined {
  const code = [crcCode(STATE_AT), compressCode(TABLE_AT), decompressCode(PATTERNS_AT, STEPS_AT)];
  const made = instantiate(code, Math.ceil((FREE_AT + bytes) / 65536));
  if (made === undefined) return undefined;
  const { crc, compress, decompress } = made as unknown as Functions;
  const memory = new Uint8Array(made.memory.buffer);
  for (let distance = 1; distance < 16; distance++) {
    for (let i = 0; i < 16; i++) memory[PATTERNS_AT + 16 * distance + i] = i % distance;
    memory[STEPS_AT + distance] = 16 - (16 % distance);
  }
  return {
    memory,
    state: new Int32Array(made.memory.buffer, STATE_AT, 2),
    crc,
    compress,
    decompress: (from, fromEnd, to, toEnd) => decompress(from, fromEnd, to, toEnd) === 1,
  };
}

/** The memory of `threadKernel` has two windows: one for what comes in, one for a page or its block. */
export const WINDOW_AT = FREE_AT;
export const WINDOW_BYTES = 128 * 1024;
export const PAGE_AT = WINDOW_AT + WINDOW_BYTES + SLACK_BYTES;

let shared: PageKernel | undefined | "not made yet" = "not made yet";

/** The kernel that all of a thread shares; made when it's needed first. */
export function threadKernel(): PageKernel | undefined {
  if (shared === "not made yet") shared = pageKernel(PAGE_AT + blockBytesMax(PAGE_BYTES_MAX) + SLACK_BYTES - FREE_AT);
  return shared;
}

import { createRequire } from "node:module";
import { SluiceError } from "../errors/error.ts";
import { PAGE_AT, PAGE_BYTES_MAX, threadKernel, WINDOW_AT, WINDOW_BYTES } from "./page-kernel.ts";

interface Lz4 {
  compressSync(input: Uint8Array): Buffer;
  uncompressSync(input: Uint8Array): Buffer;
  decompressFrameSync(input: Uint8Array): Buffer;
}

let loaded: Lz4 | undefined;

/** Loaded when it's needed first: a restore seldom needs it, and starts sooner without. */
export function lz4Library(): Lz4 {
  return (loaded ??= createRequire(import.meta.url)("lz4-napi") as Lz4);
}

/** The library puts the uncompressed length (u32, little-endian) before a block; LTX wants the block alone. */
export const LENGTH_BYTES = 4;

/** A raw LZ4 block, by the library: for where there's no WebAssembly. */
export function compressBlock(page: Uint8Array): Uint8Array {
  return lz4Library().compressSync(page).subarray(LENGTH_BYTES);
}

/**
 * Decompresses the raw block at `start … end` to exactly `size` bytes: in `into`, or a buffer of their own. The four bytes before it
 * may be overwritten: the library wants the length there. Throws SLU-5002 for anything else than a whole, valid block.
 */
export function decompressBlock(
  bytes: Uint8Array,
  start: number,
  end: number,
  size: number,
  into = new Uint8Array(size),
): Uint8Array {
  const kernel = end - start <= WINDOW_BYTES && size <= PAGE_BYTES_MAX ? threadKernel() : undefined;
  if (kernel === undefined) return decompressByLibrary(bytes, start, end, size);
  const { memory, decompress } = kernel;
  memory.set(bytes.subarray(start, end), WINDOW_AT);
  if (!decompress(WINDOW_AT, WINDOW_AT + end - start, PAGE_AT, PAGE_AT + size)) throw damagedPage();
  into.set(memory.subarray(PAGE_AT, PAGE_AT + size));
  return into;
}

/** The same where there's no WebAssembly. */
export function decompressByLibrary(bytes: Uint8Array, start: number, end: number, size: number): Uint8Array {
  const from = start - LENGTH_BYTES;
  bytes[from] = size;
  bytes[from + 1] = size >>> 8;
  bytes[from + 2] = size >>> 16;
  bytes[from + 3] = size >>> 24;
  return checked(() => lz4Library().uncompressSync(bytes.subarray(from, end)), size);
}

/** A page that can't be decompressed to its size. */
export function damagedPage(cause?: unknown): SluiceError {
  return new SluiceError("SLU-5002", "a compressed page is damaged", { cause });
}

/** The longest LZ4 frame that a page of `size` bytes is read from: twice what an honest one takes. */
export function frameBytesMax(size: number): number {
  return 2 * size + 64;
}

/**
 * Decompresses one LZ4 frame, as Litestream up to 0.5.15 stores a page, to exactly `size` bytes. Throws SLU-5002 for
 * anything else than a whole, valid frame, and for one so long that it could only be made to fill the memory.
 */
export function decompressFrame(frame: Uint8Array, size: number): Uint8Array {
  if (frame.length > frameBytesMax(size))
    throw new SluiceError("SLU-5002", `a compressed page has ${frame.length} bytes`);
  return checked(() => lz4Library().decompressFrameSync(frame), size);
}

function checked(decompress: () => Uint8Array, size: number): Uint8Array {
  let page: Uint8Array;
  try {
    page = decompress();
  } catch (cause) {
    throw damagedPage(cause);
  }
  if (page.length !== size) throw new SluiceError("SLU-5002", `a page has ${page.length} bytes instead of ${size}`);
  return page;
}

const FRAME_MAGIC = 0x184d2204;

/**
 * Length of the LZ4 frame (LZ4 frame format 1.6) that begins at `start`, or undefined while `end` comes before the
 * frame's own end can be seen. Throws SLU-5002 where no frame begins.
 */
export function frameLength(bytes: Uint8Array, start: number, end: number): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, end);
  if (end - start < 7) return undefined;
  if (view.getUint32(start, true) !== FRAME_MAGIC)
    throw new SluiceError("SLU-5002", "no LZ4 frame where a page begins");
  const flags = view.getUint8(start + 4);
  let at = start + 7 + ((flags & 8) !== 0 ? 8 : 0) + ((flags & 1) !== 0 ? 4 : 0);
  for (;;) {
    if (at + 4 > end) return undefined;
    const size = view.getUint32(at, true) & 0x7fffffff;
    at += 4;
    if (size === 0) break;
    at += size + ((flags & 16) !== 0 ? 4 : 0);
  }
  at += (flags & 4) !== 0 ? 4 : 0;
  return at > end ? undefined : at - start;
}

import { FOLD_BYTES, threadKernel, WINDOW_AT, WINDOW_BYTES } from "./page-kernel.ts";

/**
 * CRC-64/GO-ISO, the checksum of LTX files and the base of Sluice's page sums: reflected polynomial
 * 0xD800000000000000, start and final value all ones. Check value of "123456789": b90956c775a41001.
 *
 * 64-bit values are two 32-bit halves, so that nothing is allocated and no BigInt is computed per byte; eight tables
 * (slicing-by-8) take eight bytes a step. Pages and other long runs go through the kernel in WebAssembly.
 */
const POLY_HI = 0xd8000000;
const LO = new Int32Array(8 * 256);
const HI = new Int32Array(8 * 256);

for (let n = 0; n < 256; n++) {
  let lo = n;
  let hi = 0;
  for (let bit = 0; bit < 8; bit++) {
    const odd = lo & 1;
    lo = (lo >>> 1) | (hi << 31);
    hi = (hi >>> 1) ^ (odd ? POLY_HI : 0);
  }
  LO[n] = lo;
  HI[n] = hi;
}
for (let i = 256; i < 8 * 256; i++) {
  const lo = LO[i - 256]!;
  const hi = HI[i - 256]!;
  LO[i] = ((lo >>> 8) | (hi << 24)) ^ LO[lo & 255]!;
  HI[i] = (hi >>> 8) ^ HI[lo & 255]!;
}

/** Below this the kernel isn't worth the copy. */
const KERNEL_BYTES_MIN = 256;

/** A running CRC. `lo` and `hi` are the halves of its value so far; both are read as signed 32-bit integers. */
export class Crc64 {
  #lo = -1;
  #hi = -1;

  reset(): this {
    this.#lo = this.#hi = -1;
    return this;
  }

  /** Goes on from a value that was computed elsewhere. */
  set(lo: number, hi: number): this {
    this.#lo = ~lo;
    this.#hi = ~hi;
    return this;
  }

  get lo(): number {
    return ~this.#lo;
  }

  get hi(): number {
    return ~this.#hi;
  }

  value(): bigint {
    return (BigInt(this.hi >>> 0) << 32n) | BigInt(this.lo >>> 0);
  }

  update(bytes: Uint8Array, start = 0, end = bytes.length): this {
    return this.#byTables(bytes, end - start < KERNEL_BYTES_MIN ? start : this.#byKernel(bytes, start, end), end);
  }

  /** Takes whole steps of the kernel; returns where it stopped. */
  #byKernel(bytes: Uint8Array, start: number, end: number): number {
    const kernel = threadKernel();
    if (kernel === undefined) return start;
    const { memory, state, crc } = kernel;
    state[0] = this.#lo;
    state[1] = this.#hi;
    let at = start;
    while (end - at >= FOLD_BYTES) {
      const count = Math.min(WINDOW_BYTES, end - at - ((end - at) % FOLD_BYTES));
      memory.set(bytes.subarray(at, at + count), WINDOW_AT);
      crc(WINDOW_AT, WINDOW_AT + count);
      at += count;
    }
    this.#lo = state[0]!;
    this.#hi = state[1]!;
    return at;
  }

  #byTables(bytes: Uint8Array, start: number, end: number): this {
    let lo = this.#lo;
    let hi = this.#hi;
    let i = start;
    const last = end - 8;
    for (; i <= last; i += 8) {
      lo ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
      hi ^= bytes[i + 4]! | (bytes[i + 5]! << 8) | (bytes[i + 6]! << 16) | (bytes[i + 7]! << 24);
      const a = 1792 + (lo & 255);
      const b = 1536 + ((lo >>> 8) & 255);
      const c = 1280 + ((lo >>> 16) & 255);
      const d = 1024 + (lo >>> 24);
      const e = 768 + (hi & 255);
      const f = 512 + ((hi >>> 8) & 255);
      const g = 256 + ((hi >>> 16) & 255);
      const h = hi >>> 24;
      lo = LO[a]! ^ LO[b]! ^ LO[c]! ^ LO[d]! ^ LO[e]! ^ LO[f]! ^ LO[g]! ^ LO[h]!;
      hi = HI[a]! ^ HI[b]! ^ HI[c]! ^ HI[d]! ^ HI[e]! ^ HI[f]! ^ HI[g]! ^ HI[h]!;
    }
    for (; i < end; i++) {
      const n = (lo ^ bytes[i]!) & 255;
      lo = ((lo >>> 8) | (hi << 24)) ^ LO[n]!;
      hi = (hi >>> 8) ^ HI[n]!;
    }
    this.#lo = lo;
    this.#hi = hi;
    return this;
  }
}

/**
 * Appends `length` bytes to a CRC without looking at them: `CRC(A‖B) = shift(CRC(A)) ^ CRC(B)` for every B of that
 * length (as zlib's `crc32_combine`). One pass over a page so serves its own sum and the file's checksum.
 */
export class CrcShift {
  readonly #lo = new Int32Array(8 * 256);
  readonly #hi = new Int32Array(8 * 256);
  /** The result of the last `shift`. */
  lo = 0;
  hi = 0;

  constructor(length: number) {
    const columns = power(zeroByte(), length);
    for (let byte = 0; byte < 8; byte++) {
      for (let value = 1; value < 256; value++) {
        const low = value & -value;
        const column = columns[byte * 8 + Math.log2(low)]!;
        const rest = byte * 256 + (value ^ low);
        this.#lo[byte * 256 + value] = this.#lo[rest]! ^ column[0];
        this.#hi[byte * 256 + value] = this.#hi[rest]! ^ column[1];
      }
    }
  }

  shift(lo: number, hi: number): this {
    const LOW = this.#lo;
    const HIGH = this.#hi;
    const a = lo & 255;
    const b = 256 + ((lo >>> 8) & 255);
    const c = 512 + ((lo >>> 16) & 255);
    const d = 768 + (lo >>> 24);
    const e = 1024 + (hi & 255);
    const f = 1280 + ((hi >>> 8) & 255);
    const g = 1536 + ((hi >>> 16) & 255);
    const h = 1792 + (hi >>> 24);
    this.lo = LOW[a]! ^ LOW[b]! ^ LOW[c]! ^ LOW[d]! ^ LOW[e]! ^ LOW[f]! ^ LOW[g]! ^ LOW[h]!;
    this.hi = HIGH[a]! ^ HIGH[b]! ^ HIGH[c]! ^ HIGH[d]! ^ HIGH[e]! ^ HIGH[f]! ^ HIGH[g]! ^ HIGH[h]!;
    return this;
  }
}

/** A linear map on 64 bits: for each bit the halves of its image. */
type Columns = readonly (readonly [lo: number, hi: number])[];

function zeroByte(): Columns {
  return Array.from({ length: 64 }, (_, bit) => {
    const lo = bit < 32 ? 1 << bit : 0;
    const hi = bit < 32 ? 0 : 1 << (bit - 32);
    return [((lo >>> 8) | (hi << 24)) ^ LO[lo & 255]!, (hi >>> 8) ^ HI[lo & 255]!] as const;
  });
}

function power(columns: Columns, exponent: number): Columns {
  let result: Columns = Array.from({ length: 64 }, (_, bit) =>
    bit < 32 ? ([1 << bit, 0] as const) : ([0, 1 << (bit - 32)] as const),
  );
  let square = columns;
  for (let n = exponent; n > 0; n = Math.floor(n / 2)) {
    if (n % 2 === 1) result = result.map((column) => apply(square, column));
    square = square.map((column) => apply(square, column));
  }
  return result;
}

function apply(columns: Columns, [lo, hi]: readonly [number, number]): readonly [number, number] {
  let outLo = 0;
  let outHi = 0;
  for (let bit = 0; bit < 64; bit++) {
    if ((((bit < 32 ? lo : hi) >>> (bit & 31)) & 1) === 0) continue;
    outLo ^= columns[bit]![0];
    outHi ^= columns[bit]![1];
  }
  return [outLo, outHi];
}

import { Crc64, CrcShift } from "./crc64.ts";

/**
 * The sum of one page (protocol section 6): CRC-64 of the big-endian page number and the content, then a finalizer
 * of two multiplications (MurmurHash3's fmix64). The finalizer is what makes it not linear: with a plain CRC the same
 * change on two pages cancels out in the database's checksum.
 *
 * A value of this class is reused for page after page of one size; `lo` and `hi` hold the last result as signed
 * 32-bit halves, `contentLo` and `contentHi` the CRC of the page's content alone, from which the file checksum of LTX
 * is made without a second pass.
 */
export class PageSum {
  readonly #crc = new Crc64();
  readonly #number = new Uint8Array(4);
  readonly #overPage: CrcShift;
  lo = 0;
  hi = 0;
  contentLo = 0;
  contentHi = 0;

  constructor(pageSize: number) {
    this.#overPage = overPage(pageSize);
  }

  /** Sums the page `pgno` (1-based) that begins at `start`; `end - start` is the page size. */
  of(pgno: number, bytes: Uint8Array, start: number, end: number): this {
    const content = this.#crc.reset().update(bytes, start, end);
    return this.ofContent(pgno, content.lo, content.hi);
  }

  /** The same from the CRC of the content. */
  ofContent(pgno: number, contentLo: number, contentHi: number): this {
    this.contentLo = contentLo;
    this.contentHi = contentHi;
    const number = this.#number;
    number[0] = pgno >>> 24;
    number[1] = pgno >>> 16;
    number[2] = pgno >>> 8;
    number[3] = pgno;
    const crc = this.#crc.reset().update(number);
    const shifted = this.#overPage.shift(crc.lo, crc.hi);
    this.#mix(shifted.lo ^ contentLo, shifted.hi ^ contentHi);
    return this;
  }

  /** x ^= x >> 33; x *= C1; x ^= x >> 33; x *= C2; x ^= x >> 33. */
  #mix(lo: number, hi: number): void {
    this.#multiply(lo ^ (hi >>> 1), hi, 0xed558ccd | 0, 0xff51afd7 | 0);
    this.#multiply(this.lo ^ (this.hi >>> 1), this.hi, 0x1a85ec53, 0xc4ceb9fe | 0);
    this.lo ^= this.hi >>> 1;
  }

  /** The low 64 bits of a product, from 16-bit limbs of the low words. */
  #multiply(aLo: number, aHi: number, bLo: number, bHi: number): void {
    const a0 = aLo & 0xffff;
    const a1 = aLo >>> 16;
    const b0 = bLo & 0xffff;
    const b1 = bLo >>> 16;
    const p00 = a0 * b0;
    const p01 = a0 * b1;
    const p10 = a1 * b0;
    const middle = (p00 >>> 16) + (p01 & 0xffff) + (p10 & 0xffff);
    const carry = a1 * b1 + (p01 >>> 16) + (p10 >>> 16) + (middle >>> 16);
    this.lo = (middle << 16) | (p00 & 0xffff);
    this.hi = (carry + Math.imul(aLo, bHi) + Math.imul(aHi, bLo)) | 0;
  }
}

const shifts = new Map<number, CrcShift>();

/** The shift over one page; its tables of 16 KiB are shared by all that handle pages of this size. */
export function overPage(pageSize: number): CrcShift {
  let shift = shifts.get(pageSize);
  if (!shift) shifts.set(pageSize, (shift = new CrcShift(pageSize)));
  return shift;
}

/** A sum as one number, for headers and messages; never per page. */
export function sumValue(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

import { CHECKSUM_FLAG } from "./header.ts";
import { overPage } from "./page-sum.ts";
import { Crc64, CrcShift } from "./crc64.ts";

/** The checksum of a whole LTX file, fed in the order of the file with pages uncompressed (LTX, `FileChecksum`). */
export class FileCrc {
  readonly #crc = new Crc64();
  readonly #pageSize: number;
  readonly #overPage: CrcShift;
  #bytes = 0;

  constructor(pageSize: number) {
    this.#pageSize = pageSize;
    this.#overPage = overPage(pageSize);
  }

  bytes(bytes: Uint8Array, start = 0, end = bytes.length): void {
    this.#crc.update(bytes, start, end);
    this.#bytes += end - start;
  }

  /** A page of which only the CRC of the content is at hand. */
  page(contentLo: number, contentHi: number): void {
    const shifted = this.#overPage.shift(this.#crc.lo, this.#crc.hi);
    this.#crc.set(shifted.lo ^ contentLo, shifted.hi ^ contentHi);
    this.#bytes += this.#pageSize;
  }

  value(): bigint {
    return this.#crc.value() | CHECKSUM_FLAG;
  }

  /** The value with `before` in front of everything that was fed: a header that is known only at the end. */
  valueAfter(before: Uint8Array): bigint {
    const head = new Crc64().update(before);
    const shifted = new CrcShift(this.#bytes).shift(head.lo, head.hi);
    return new Crc64().set(shifted.lo ^ this.#crc.lo, shifted.hi ^ this.#crc.hi).value() | CHECKSUM_FLAG;
  }
}

import { CHECKSUM_FLAG } from "./header.ts";
import { Crc64, type CrcShift } from "./crc64.ts";

/** The checksum of a whole LTX file, fed in the order of the file with pages uncompressed (LTX, `FileChecksum`). */
export class FileCrc {
  readonly #crc = new Crc64();
  readonly #overPage: CrcShift;

  constructor(overPage: CrcShift) {
    this.#overPage = overPage;
  }

  bytes(bytes: Uint8Array, start = 0, end = bytes.length): void {
    this.#crc.update(bytes, start, end);
  }

  /** A page of which only the CRC of the content is at hand. */
  page(contentLo: number, contentHi: number): void {
    const shifted = this.#overPage.shift(this.#crc.lo, this.#crc.hi);
    this.#crc.set(shifted.lo ^ contentLo, shifted.hi ^ contentHi);
  }

  value(): bigint {
    return this.#crc.value() | CHECKSUM_FLAG;
  }
}

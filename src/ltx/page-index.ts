import { SluiceError } from "../errors/error.ts";
import { PAGE_HEADER_BYTES } from "./header.ts";

/**
 * The page index of an LTX file, from the 6 zero bytes that end the pages to the length field before the trailer: for
 * each page, ascending, its number, absolute offset and size as unsigned LEB128; a 0; the index' length as u64.
 */
export class IndexBuilder {
  #bytes = new Uint8Array(1024);
  #used = PAGE_HEADER_BYTES;

  add(pgno: number, offset: number, size: number): void {
    // Three varints of values below 2^53 take at most 24 bytes.
    if (this.#used + 24 > this.#bytes.length) this.#grow();
    this.#varint(pgno);
    this.#varint(offset);
    this.#varint(size);
  }

  /** End of pages, index and its length. */
  finish(): Uint8Array {
    if (this.#used + 9 > this.#bytes.length) this.#grow();
    this.#varint(0);
    new DataView(this.#bytes.buffer).setBigUint64(this.#used, BigInt(this.#used - PAGE_HEADER_BYTES));
    return this.#bytes.subarray(0, this.#used + 8);
  }

  #grow(): void {
    const larger = new Uint8Array(this.#bytes.length * 2);
    larger.set(this.#bytes);
    this.#bytes = larger;
  }

  #varint(value: number): void {
    let rest = value;
    while (rest >= 128) {
      this.#bytes[this.#used++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#used++] = rest;
  }
}

/** Where the pages of a file are; parallel arrays, ascending by page. */
export interface PageIndex {
  readonly count: number;
  readonly pgno: Uint32Array;
  readonly offset: Float64Array;
  readonly size: Uint32Array;
}

/** Reads the varints of an index, with their 0 at the end. Throws SLU-5001 for anything else. */
export function parseIndex(bytes: Uint8Array): PageIndex {
  // A page takes at least three bytes here.
  const most = Math.floor(bytes.length / 3);
  const pgno = new Uint32Array(most);
  const offset = new Float64Array(most);
  const size = new Uint32Array(most);
  let at = 0;
  let count = 0;
  const varint = (): number => {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = bytes[at++];
      if (byte === undefined || scale > 2 ** 49) throw new SluiceError("SLU-5001", "a page index is damaged");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  };
  for (;;) {
    const page = varint();
    if (page === 0) break;
    const place = varint();
    const bytesOfPage = varint();
    if (page > 0xffffffff || bytesOfPage > 0xffffffff || (count > 0 && page <= pgno[count - 1]!))
      throw new SluiceError("SLU-5001", "a page index is damaged");
    pgno[count] = page;
    offset[count] = place;
    size[count] = bytesOfPage;
    count += 1;
  }
  if (at !== bytes.length) throw new SluiceError("SLU-5001", "a page index is damaged");
  return { count, pgno: pgno.subarray(0, count), offset: offset.subarray(0, count), size: size.subarray(0, count) };
}

import { SluiceError } from "../errors/error.ts";
import { FileCrc } from "./file-crc.ts";
import { encodeHeader, type LtxHeader, lockPage, PAGE_FLAG_SIZE, PAGE_HEADER_BYTES } from "./header.ts";
import { IndexBuilder } from "./page-index.ts";
import { blockBytesMax } from "./page-kernel.ts";
import { PagePress } from "./page-press.ts";
import { PageSum } from "./page-sum.ts";

const SIZE_BYTES = 4;
const CHUNK_BYTES = 256 * 1024;

/** What was written. */
export interface LtxSummary {
  /** The first 100 bytes. */
  readonly header: Uint8Array;
  readonly sizeBytes: number;
  readonly pages: number;
  readonly fileChecksum: bigint;
}

/**
 * Writes one LTX file (superfly/ltx `Encoder`, pages as raw LZ4 blocks): `page` for each page in ascending order, then
 * `finish`. Output comes in chunks that are valid only during the call of `write`; memory is bounded by one chunk and
 * 8 to 20 bytes of index per page.
 */
export class LtxEncoder {
  /** Sum and content CRC of the last page. */
  readonly sum: PageSum;
  readonly #header: LtxHeader;
  readonly #write: (chunk: Uint8Array) => void;
  readonly #crc: FileCrc;
  readonly #press = new PagePress();
  readonly #index = new IndexBuilder();
  readonly #lockPage: number;
  readonly #chunk = new Uint8Array(CHUNK_BYTES);
  #used = 0;
  #written = 0;
  #last = 0;
  #pages = 0;

  constructor(header: LtxHeader, write: (chunk: Uint8Array) => void) {
    this.#header = header;
    this.#write = write;
    this.sum = new PageSum(header.pageSize);
    this.#crc = new FileCrc(header.pageSize);
    this.#lockPage = lockPage(header.pageSize);
    this.#put(encodeHeader(header));
  }

  /** Adds the page `pgno`, whose content begins at `start`. Throws SLU-5000 for one that may not come here. */
  page(pgno: number, bytes: Uint8Array, start = 0): void {
    const { pageSize, pageCount, minTxid } = this.#header;
    const next = this.#last + (this.#last + 1 === this.#lockPage ? 2 : 1);
    const allowed = minTxid === 1 ? pgno === next : pgno >= next;
    if (!allowed || pgno > pageCount || pgno === this.#lockPage)
      throw new SluiceError("SLU-5000", `page ${pgno} after ${this.#last} in an LTX file of ${pageCount} pages`);
    // First, since a write may call who reads it.
    const head = this.#reserve(PAGE_HEADER_BYTES + SIZE_BYTES + blockBytesMax(pageSize));
    const content = head + PAGE_HEADER_BYTES + SIZE_BYTES;
    const chunk = this.#chunk;
    const block = this.#press.block(bytes, start, pageSize);
    const size = PAGE_HEADER_BYTES + SIZE_BYTES + block.length;
    chunk.set(block, content);
    setUint32(chunk, head, pgno);
    chunk[head + 4] = 0;
    chunk[head + 5] = PAGE_FLAG_SIZE;
    setUint32(chunk, head + PAGE_HEADER_BYTES, block.length);
    this.#crc.bytes(chunk, head, content);
    const sum = this.sum.ofContent(pgno, this.#press.contentLo, this.#press.contentHi);
    this.#crc.page(sum.contentLo, sum.contentHi);
    this.#index.add(pgno, this.#written + head, size);
    this.#used += size;
    this.#last = pgno;
    this.#pages += 1;
  }

  /**
   * Writes index and trailer. A snapshot (first TXID 1) must have had all its pages. `header`: the final one, where
   * its fields follow from the pages; the caller then replaces the first 100 bytes by `header` of the result.
   */
  finish(header = this.#header): LtxSummary {
    const { minTxid, pageCount } = this.#header;
    const end = pageCount === this.#lockPage ? pageCount - 1 : pageCount;
    if (minTxid === 1 && this.#last !== end)
      throw new SluiceError("SLU-5000", `a snapshot of ${pageCount} pages ends at page ${this.#last}`);
    const tail = this.#index.finish();
    this.#crc.bytes(tail);
    this.#put(tail);
    const postApply = new Uint8Array(8);
    this.#crc.bytes(postApply);
    this.#put(postApply);
    const final = encodeHeader(header);
    const checksum = new Uint8Array(8);
    const fileChecksum = this.#crc.valueAfter(final);
    new DataView(checksum.buffer).setBigUint64(0, fileChecksum);
    this.#put(checksum);
    this.#flush();
    return { header: final, sizeBytes: this.#written, pages: this.#pages, fileChecksum };
  }

  /** Room for `bytes` in the chunk; where it begins. */
  #reserve(bytes: number): number {
    if (this.#used + bytes > CHUNK_BYTES) this.#flush();
    return this.#used;
  }

  #put(bytes: Uint8Array): void {
    if (this.#used + bytes.length > CHUNK_BYTES) this.#flush();
    if (bytes.length > CHUNK_BYTES) {
      this.#write(bytes);
      this.#written += bytes.length;
      return;
    }
    this.#chunk.set(bytes, this.#used);
    this.#used += bytes.length;
  }

  #flush(): void {
    if (this.#used === 0) return;
    this.#write(this.#chunk.subarray(0, this.#used));
    this.#written += this.#used;
    this.#used = 0;
  }
}

function setUint32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

import { SluiceError } from "../errors/error.ts";
import { FileCrc } from "./file-crc.ts";
import {
  CHECKSUM_FLAG,
  decodeHeader,
  FLAG_NO_CHECKSUM,
  HEADER_BYTES,
  type LtxHeader,
  lockPage,
  PAGE_FLAG_SIZE,
  PAGE_HEADER_BYTES,
  TRAILER_BYTES,
} from "./header.ts";
import { decompressBlock, decompressFrame, frameBytesMax, frameLength } from "./lz4.ts";
import { IndexBuilder } from "./page-index.ts";
import { PageSum } from "./page-sum.ts";

/** What a decoder gives out. */
export interface PageSink {
  /** Whether all pages may come in one buffer, one over the other. Otherwise each is the receiver's, who may keep it. */
  readonly passing?: boolean;
  header?(header: LtxHeader): void;
  /** `sum` holds the page's sum and the CRC of its content. */
  page(pgno: number, content: Uint8Array, sum: PageSum): void;
}

/**
 * Reads one LTX file from chunks (superfly/ltx `Decoder`) and checks all of it: header, order of pages, lock page,
 * page sizes, index against pages, file checksum. Pages are handed on as they come, so nothing may be believed, or put
 * where it can be seen, before `end` has returned.
 *
 *     header → pages → tail (end of pages, index, trailer) → end
 */
export class LtxDecoder {
  readonly #name: string;
  readonly #sink: PageSink;
  #state: "header" | "pages" | "tail" = "header";
  #header: LtxHeader | undefined;
  #crc!: FileCrc;
  #sum!: PageSum;
  #page: Uint8Array<ArrayBuffer> | undefined;
  #lockPage = 0;
  readonly #index = new IndexBuilder();
  /** What must follow the pages, up to the trailer; known in state `tail`. */
  #indexBytes: Uint8Array = new Uint8Array(0);
  #buffer = new Uint8Array(0);
  #from = 0;
  #to = 0;
  /** Offset in the file of `#from`. */
  #offset = 0;
  #last = 0;

  /** `name`: of the file, for messages. */
  constructor(name: string, sink: PageSink) {
    this.#name = name;
    this.#sink = sink;
  }

  /** Takes the next bytes of the file. Throws SLU-5001 or SLU-5002 as soon as they can't be right. */
  push(chunk: Uint8Array): void {
    this.feed(chunk);
    while (this.step()) {
      // Each turn takes the header or one page.
    }
  }

  /** Takes bytes without decoding them; for who wants the pages one at a time. */
  feed(chunk: Uint8Array): void {
    this.#append(chunk);
  }

  /**
   * Decodes the header or one page of what was fed; false when that needs more bytes, or all pages have come. Throws
   * as `push`. With `push` or after each `feed` until it's false, memory stays below one chunk, one frame and the index.
   */
  step(): boolean {
    if (this.#state === "header") return this.#readHeader();
    if (this.#state === "pages" && this.#readPage()) return true;
    // A file that goes on and on behind its pages is not collected until it ends.
    if (this.#state === "tail" && this.#available > this.#indexBytes.length + TRAILER_BYTES)
      throw this.#damaged("has a damaged end");
    return false;
  }

  /** The file is over: checks index and checksum. Only then is what was handed out the content of the file. */
  end(): LtxHeader {
    if (this.#header === undefined || this.#state !== "tail") throw this.#damaged("is cut off");
    const tail = this.#buffer.subarray(this.#from, this.#to);
    const index = this.#indexBytes;
    if (tail.length !== index.length + TRAILER_BYTES) throw this.#damaged("has a damaged end");
    for (let i = 0; i < index.length; i++) if (tail[i] !== index[i]) throw this.#damaged("has a damaged page index");
    const view = new DataView(tail.buffer, tail.byteOffset + index.length, TRAILER_BYTES);
    const postApply = view.getBigUint64(0);
    const noChecksum = (this.#header.flags & FLAG_NO_CHECKSUM) !== 0;
    if (noChecksum ? postApply !== 0n : (postApply & CHECKSUM_FLAG) === 0n) throw this.#damaged("has a damaged end");
    this.#crc.bytes(tail, 0, index.length + 8);
    if (this.#crc.value() !== view.getBigUint64(8)) throw this.#damaged("does not match its checksum");
    this.#requireWholeSnapshot(this.#header);
    return this.#header;
  }

  get #available(): number {
    return this.#to - this.#from;
  }

  #append(chunk: Uint8Array): void {
    if (this.#to + chunk.length > this.#buffer.length) {
      const needed = this.#available + chunk.length;
      // At first as large as the chunk: most files are one.
      const room = this.#buffer.length === 0 ? needed : 2 * needed;
      const larger = needed > this.#buffer.length ? new Uint8Array(room) : this.#buffer;
      larger.set(this.#buffer.subarray(this.#from, this.#to));
      this.#buffer = larger;
      this.#to -= this.#from;
      this.#from = 0;
    }
    this.#buffer.set(chunk, this.#to);
    this.#to += chunk.length;
  }

  #take(bytes: number): void {
    this.#from += bytes;
    this.#offset += bytes;
  }

  #readHeader(): boolean {
    if (this.#available < HEADER_BYTES) return false;
    const bytes = this.#buffer.subarray(this.#from, this.#from + HEADER_BYTES);
    const header = decodeHeader(bytes, this.#name);
    this.#header = header;
    this.#crc = new FileCrc(header.pageSize);
    this.#sum = new PageSum(header.pageSize);
    if (this.#sink.passing === true) this.#page = new Uint8Array(header.pageSize);
    this.#lockPage = lockPage(header.pageSize);
    this.#crc.bytes(bytes);
    this.#take(HEADER_BYTES);
    this.#state = "pages";
    this.#sink.header?.(header);
    return true;
  }

  /** Takes one page, or sees the end of the pages; false when more bytes are needed. */
  #readPage(): boolean {
    if (this.#available < PAGE_HEADER_BYTES) return false;
    const bytes = this.#buffer;
    const at = this.#from;
    const pgno = uint32(bytes, at);
    const flags = (bytes[at + 4]! << 8) | bytes[at + 5]!;
    if (pgno === 0 && flags === 0) {
      this.#indexBytes = this.#index.finish();
      this.#state = "tail";
      return false;
    }
    this.#requirePage(pgno, flags);
    return flags === PAGE_FLAG_SIZE ? this.#readBlock(pgno, at) : this.#readFrame(pgno, at);
  }

  #readBlock(pgno: number, at: number): boolean {
    const { pageSize } = this.#header!;
    const start = at + PAGE_HEADER_BYTES + 4;
    if (this.#to < start) return false;
    const size = uint32(this.#buffer, start - 4);
    // LZ4 never makes a block longer than this (`LZ4_compressBound`).
    if (size > pageSize + pageSize / 255 + 16) throw this.#damaged(`has a page ${pgno} of ${size} compressed bytes`);
    if (this.#to < start + size) return false;
    this.#crc.bytes(this.#buffer, at, start);
    this.#emit(pgno, decompressBlock(this.#buffer, start, start + size, pageSize, this.#page), start + size - at);
    return true;
  }

  #readFrame(pgno: number, at: number): boolean {
    const { pageSize } = this.#header!;
    const start = at + PAGE_HEADER_BYTES;
    const size = frameLength(this.#buffer, start, this.#to);
    // An unfinished one is as long as what there is of it.
    if ((size ?? this.#to - start) > frameBytesMax(pageSize))
      throw this.#damaged(`has a page ${pgno} that is too long`);
    if (size === undefined) return false;
    this.#crc.bytes(this.#buffer, at, start);
    this.#emit(pgno, decompressFrame(this.#buffer.subarray(start, start + size), pageSize), PAGE_HEADER_BYTES + size);
    return true;
  }

  #emit(pgno: number, page: Uint8Array, frameBytes: number): void {
    const sum = this.#sum.of(pgno, page, 0, page.length);
    this.#crc.page(sum.contentLo, sum.contentHi);
    this.#index.add(pgno, this.#offset, frameBytes);
    this.#take(frameBytes);
    this.#last = pgno;
    this.#sink.page(pgno, page, sum);
  }

  #requirePage(pgno: number, flags: number): void {
    const header = this.#header!;
    const next = this.#last + (this.#last + 1 === this.#lockPage ? 2 : 1);
    const inOrder = header.minTxid === 1 ? pgno === next : pgno >= next;
    if (!inOrder || pgno > header.pageCount || pgno === this.#lockPage || flags > PAGE_FLAG_SIZE)
      throw this.#damaged(`has page ${pgno} (flags ${flags}) after page ${this.#last}`);
  }

  #requireWholeSnapshot({ minTxid, pageCount }: LtxHeader): void {
    const end = pageCount === this.#lockPage ? pageCount - 1 : pageCount;
    if (minTxid === 1 && this.#last !== end) throw this.#damaged(`ends at page ${this.#last} of ${pageCount}`);
  }

  #damaged(how: string): SluiceError {
    return new SluiceError("SLU-5001", `${this.#name} ${how}`);
  }
}

function uint32(bytes: Uint8Array, at: number): number {
  return ((bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!) >>> 0;
}

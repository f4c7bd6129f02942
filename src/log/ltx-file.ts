import { SluiceError } from "../errors/error.ts";
import {
  decodeHeader,
  FLAG_NO_CHECKSUM,
  HEADER_BYTES,
  lockPage,
  PAGE_HEADER_BYTES,
  TRAILER_BYTES,
  type LtxHeader,
} from "../ltx/header.ts";
import { parseIndex, type PageIndex } from "../ltx/page-index.ts";
import { recordFields, type RecordFields } from "../ltx/record.ts";
import type { ObjectStore } from "../store/store.ts";
import { formatTxid } from "./layout.ts";
import type { LogFile } from "./listing.ts";
import { readRange } from "./read-object.ts";

/** Files up to this size are read in one request. */
const WHOLE_BYTES = 1024 * 1024;
/** What is read first of the end of a larger file: the index of some 10,000 pages. */
const TAIL_BYTES = 64 * 1024;
const LENGTH_BYTES = 8;
/** Of a page in an index: three varints, of 32, 53 and 32 bits. */
const ENTRY_BYTES_MAX = 5 + 8 + 5;
const SMALLEST_BYTES = HEADER_BYTES + PAGE_HEADER_BYTES + 1 + LENGTH_BYTES + TRAILER_BYTES;

export interface FileHead extends LtxHeader {
  /** What Sluice says in the header; undefined for a file that Litestream wrote. */
  readonly record: RecordFields | undefined;
}

/** An LTX file of which everything but the pages has been read. */
export interface OpenedFile {
  readonly file: LogFile;
  readonly header: FileHead;
  /** Page numbers, ascending. */
  readonly pages: Uint32Array;
  /** Where each page's frame begins in the file, and at the end where the last one ends. */
  readonly offsets: Float64Array;
  /** The 100 bytes of the header. */
  readonly headBytes: Uint8Array;
  /** From the end of the frames to the end of the file: terminator, index, trailer. */
  readonly tail: Uint8Array;
  /** The whole file, where it's small. */
  readonly whole: Uint8Array<ArrayBuffer> | undefined;
}

/** Reads the varints of an index: here, or in another thread for a large one. Its bytes may be given away. */
export type IndexParser = (bytes: Uint8Array<ArrayBuffer>) => PageIndex | Promise<PageIndex>;

/** The header of a file, in one small read. Throws SLU-5001, or SLU-4509 when it contradicts the file's name. */
export async function readLtxHeader(store: ObjectStore, file: LogFile, signal?: AbortSignal): Promise<FileHead> {
  return headOf(await readRange(store, file.key, { offset: 0, length: HEADER_BYTES }, signal), file);
}

/** Reads header, index and trailer of a file, or all of a small one. Throws SLU-5001 and SLU-4509. */
export async function openLtxFile(
  store: ObjectStore,
  file: LogFile,
  options: { readonly parse?: IndexParser; readonly signal?: AbortSignal } = {},
): Promise<OpenedFile> {
  const { parse = parseIndex, signal } = options;
  const { key, sizeBytes } = file;
  if (sizeBytes < SMALLEST_BYTES) throw cutOff(file);
  if (sizeBytes <= WHOLE_BYTES) {
    const whole = await readRange(store, key, { offset: 0, length: sizeBytes }, signal);
    return opened(file, whole.slice(0, HEADER_BYTES), whole, whole, parse);
  }
  const tailFrom = sizeBytes - TAIL_BYTES;
  const [head, tail] = await Promise.all([
    readRange(store, key, { offset: 0, length: HEADER_BYTES }, signal),
    readRange(store, key, { offset: tailFrom, length: TAIL_BYTES }, signal),
  ]);
  const from = framesEnd(tail, file);
  // Before it's fetched: what says its index is larger than its pages can need is not believed.
  if (file.sizeBytes - from > ENTRY_BYTES_MAX * (headOf(head, file).pageCount + 1) + TAIL_BYTES) throw damaged(file);
  if (from >= tailFrom) return opened(file, head, tail, undefined, parse);
  const rest = await readRange(store, key, { offset: from, length: tailFrom - from }, signal);
  const all = new Uint8Array(rest.length + tail.length);
  all.set(rest);
  all.set(tail, rest.length);
  return opened(file, head, all, undefined, parse);
}

function headOf(bytes: Uint8Array, file: LogFile): FileHead {
  const header = decodeHeader(bytes, file.key);
  if (header.minTxid !== file.minTxid || header.maxTxid !== file.maxTxid) {
    const inside = `${formatTxid(header.minTxid)}-${formatTxid(header.maxTxid)}`;
    throw new SluiceError("SLU-4509", `${file.key}: the header says it is ${inside}`);
  }
  return { ...header, record: recordFields(header) };
}

/** Where the frames end, from the index' length before the trailer; `bytes` are the end of the file. */
function framesEnd(bytes: Uint8Array, file: LogFile): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const indexBytes = Number(view.getBigUint64(bytes.length - TRAILER_BYTES - LENGTH_BYTES));
  const end = file.sizeBytes - TRAILER_BYTES - LENGTH_BYTES - indexBytes - PAGE_HEADER_BYTES;
  if (indexBytes < 1 || !(end >= HEADER_BYTES)) throw cutOff(file);
  return end;
}

/** `bytes`: the end of the file, from the end of its frames on at the latest. */
async function opened(
  file: LogFile,
  headBytes: Uint8Array,
  bytes: Uint8Array<ArrayBuffer>,
  whole: Uint8Array<ArrayBuffer> | undefined,
  parse: IndexParser,
): Promise<OpenedFile> {
  if (whole !== undefined && whole.length !== file.sizeBytes) throw cutOff(file);
  const header = headOf(headBytes, file);
  const end = framesEnd(bytes, file);
  const tail = bytes.slice(end - (file.sizeBytes - bytes.length));
  const index = await parse(tail.slice(PAGE_HEADER_BYTES, -(LENGTH_BYTES + TRAILER_BYTES)));
  const offsets = checkedOffsets(index, header, end, file);
  for (let i = 0; i < PAGE_HEADER_BYTES; i++) if (tail[i] !== 0) throw damaged(file);
  // A checksum of LTX's own kind is Litestream's and LiteFS's to check; that there is none must be said, too.
  const postApply = new DataView(tail.buffer).getBigUint64(tail.length - TRAILER_BYTES);
  if ((header.flags & FLAG_NO_CHECKSUM) !== 0 && postApply !== 0n) throw damaged(file);
  return { file, header, pages: index.pgno, offsets, headBytes, tail, whole };
}

/** Frames must lie one behind the other in the order of the index, so that every byte of the file is accounted for. */
function checkedOffsets(index: PageIndex, header: LtxHeader, end: number, file: LogFile): Float64Array {
  const { count, pgno, offset, size } = index;
  const offsets = new Float64Array(count + 1);
  const lock = lockPage(header.pageSize);
  let expected = HEADER_BYTES;
  for (let i = 0; i < count; i++) {
    if (offset[i] !== expected || size[i]! <= PAGE_HEADER_BYTES || pgno[i] === lock) throw damaged(file);
    offsets[i] = expected;
    expected += size[i]!;
  }
  if (expected !== end || (count > 0 && pgno[count - 1]! > header.pageCount)) throw damaged(file);
  offsets[count] = expected;
  return offsets;
}

function cutOff(file: LogFile): SluiceError {
  return new SluiceError("SLU-5001", `${file.key} is cut off: it has not the size or the end of an LTX file`);
}

function damaged(file: LogFile): SluiceError {
  return new SluiceError("SLU-5001", `${file.key}: its page index is damaged`);
}

import { closeSync, openSync, readSync } from "node:fs";
import { SluiceError, systemErrorCode } from "../errors/error.ts";
import { Crc64 } from "../ltx/crc64.ts";
import { PAGE_FLAG_SIZE, PAGE_HEADER_BYTES } from "../ltx/header.ts";
import { PageRun } from "../ltx/page-run.ts";
import { overPage, PageSum } from "../ltx/page-sum.ts";

/** A run of page frames of one LTX file, with what to do with each. */
export interface Segment {
  /** Of the file, for messages. */
  readonly name: string;
  readonly pageSize: number;
  /**
   * The frames: owned by the decoder, which may overwrite them; or where they are; or what came of them when they were
   * decoded before: then wanted pages are only checked.
   */
  readonly source: Uint8Array<ArrayBuffer> | FileRange | SegmentSum;
  /** Page number of each frame, as the file's index says. */
  readonly pages: Uint32Array<ArrayBuffer>;
  /** Where each frame begins in the source, and after the last where that ends. */
  readonly offsets: Uint32Array<ArrayBuffer>;
  /** 1 where the page is wanted; of the others only the checksum is. */
  readonly wanted: Uint8Array<ArrayBuffer>;
  /** The file to write wanted pages to. */
  readonly fd: number;
  /** Two signed words for each page, low half first, at 2 · (page − 1): the sums of wanted pages go here. */
  readonly sums: Int32Array;
}

interface FileRange {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
}

export interface SegmentSum {
  /** Its part of the LTX file checksum: the CRC-64 of frame headers and uncompressed pages. */
  readonly crc: bigint;
  readonly hashedBytes: number;
  /** Of each of its pages, wanted or not: two signed words, low half first. */
  readonly sums: Int32Array;
}

/** Contiguous pages are written in runs of at most this. */
const RUN_BYTES = 1024 * 1024;
/** Longer segments out of files are read into memory of their own. */
const INPUT_BYTES = 2.5 * 1024 * 1024;
const SIZE_BYTES = 4;

let pageRun: PageRun | undefined;

/**
 * Decodes the pages of a segment, writes the wanted ones at their places in the database file, and sums them: one
 * pass over each page gives both the file's checksum and the page's sum. Throws SLU-5001 or SLU-5002 for a damaged
 * frame, and what `write` throws. Returns undefined, and has done nothing, where the source is a file that can't be read, or was decoded before and
 * is not what is in the file.
 */
export function decodeSegment(
  segment: Segment,
  write: (fd: number, bytes: Uint8Array, position: number) => void,
): SegmentSum | undefined {
  const { source, pages, offsets, wanted, pageSize, fd, sums, name } = segment;
  const run = (pageRun ??= new PageRun(RUN_BYTES, INPUT_BYTES));
  if ("crc" in source) return stillThere(segment, source, run) ? source : undefined;
  const bytes = source instanceof Uint8Array ? source : readSource(source, run.input);
  if (bytes === undefined) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const crc = new Crc64();
  const sum = new PageSum(pageSize);
  const over = overPage(pageSize);
  const own = new Int32Array(2 * pages.length);
  let hashedBytes = 0;
  let runStart = 0;
  let runPages = 0;
  const writeRun = (): void => {
    if (runPages > 0) write(fd, run.memory.subarray(0, runPages * pageSize), (runStart - 1) * pageSize);
    runPages = 0;
  };

  for (let i = 0; i < pages.length; i++) {
    const page = pages[i]!;
    const start = offsets[i]!;
    const end = offsets[i + 1]!;
    const flags = view.getUint16(start + 4);
    const sized = flags === PAGE_FLAG_SIZE;
    const content = start + PAGE_HEADER_BYTES + (sized ? SIZE_BYTES : 0);
    if (view.getUint32(start) !== page || flags > PAGE_FLAG_SIZE || content >= end) throw misplaced(name, page);
    if (sized && view.getUint32(content - SIZE_BYTES) !== end - content) throw misplaced(name, page);
    if (page !== runStart + runPages || (runPages + 1) * pageSize > RUN_BYTES) writeRun();
    // Before the decompression, which may overwrite the size.
    crc.update(bytes, start, content);
    run.add(bytes, content, end, flags, runPages * pageSize, pageSize);
    sum.ofContent(page, run.contentLo, run.contentHi);
    const shifted = over.shift(crc.lo, crc.hi);
    crc.set(shifted.lo ^ sum.contentLo, shifted.hi ^ sum.contentHi);
    hashedBytes += content - start + pageSize;
    own[2 * i] = sum.lo;
    own[2 * i + 1] = sum.hi;
    if (wanted[i] === 0) continue;

    sums[2 * (page - 1)] = sum.lo;
    sums[2 * (page - 1) + 1] = sum.hi;
    if (runPages === 0) runStart = page;
    runPages++;
  }
  writeRun();
  return { crc: crc.value(), hashedBytes, sums: own };
}

/** Whether the wanted pages are in the file as they were decoded; their sums are then noted. */
function stillThere({ pages, wanted, pageSize, fd, sums }: Segment, recorded: SegmentSum, run: PageRun): boolean {
  const sum = new PageSum(pageSize);
  if (recorded.sums.length !== 2 * pages.length) return false;
  for (let first = 0; first < pages.length;) {
    let last = first + 1;
    while (
      last < pages.length &&
      pages[last] === pages[first]! + last - first &&
      (last - first + 1) * pageSize <= RUN_BYTES
    )
      last++;
    const bytes = (last - first) * pageSize;
    // What is past the end of the file is nobody's wanted page.
    const bytesRead = readSync(fd, run.memory, 0, bytes, (pages[first]! - 1) * pageSize);
    for (let i = first; i < last; i++) {
      if (wanted[i] === 0) continue;
      const at = (i - first) * pageSize;
      if (at + pageSize > bytesRead) return false;
      run.sum(at, pageSize);
      sum.ofContent(pages[i]!, run.contentLo, run.contentHi);
      if (sum.lo !== recorded.sums[2 * i] || sum.hi !== recorded.sums[2 * i + 1]) return false;
      sums[2 * (pages[i]! - 1)] = sum.lo;
      sums[2 * (pages[i]! - 1) + 1] = sum.hi;
    }
    first = last;
  }
  return true;
}

function readSource({ path, offset, length }: FileRange, input: Uint8Array): Uint8Array | undefined {
  const into = length <= input.length ? input.subarray(0, length) : new Uint8Array(length);
  try {
    const file = openSync(path, "r");
    try {
      for (let done = 0; done < length;) {
        const bytesRead = readSync(file, into, done, length - done, offset + done);
        if (bytesRead === 0) return undefined;
        done += bytesRead;
      }
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return undefined;
  }
  return into;
}

function misplaced(name: string, page: number): SluiceError {
  return new SluiceError("SLU-5001", `${name}: there is no frame of page ${page} where the index says`);
}

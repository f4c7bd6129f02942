import { fstatSync } from "node:fs";
import { FRAME_HEADER_BYTES, frameOffset, FrameScanner, parseWalHeader, WAL_HEADER_BYTES } from "../sqlite/wal.ts";
import {
  HEADER_COPIES_BYTES,
  WAL_INDEX_BLOCK_BYTES,
  WAL_INDEX_HEADER_BYTES,
  WalIndexHeader,
  WalIndexImage,
} from "../sqlite/wal-index.ts";
import { blockOf, frameBefore, IndexBlock, WHOLE_STORE_BYTES } from "../sqlite/wal-index-block.ts";
import type { DatabaseFiles } from "./files.ts";
import { readAt, SHARED_BUFFER_BYTES, sharedBuffer, writeAt } from "./io.ts";

/**
 * Builds the wal-index again from the frames of the WAL, as wal.c's `walIndexRecover` does, for the case that both
 * copies of its header are bad. It is built in private memory, and only 8-byte words that differ are stored: a reader
 * in the middle of a transaction never sees an index without its frames. Needs WRITE and CKPT; `nBackfill` is 0.
 */
export function rebuildIndex(files: DatabaseFiles): void {
  const index = new PrivateIndex();
  const header = readFrames(files, index);
  for (const block of index.blocks) storeDifference(files.shm, block);
  const image = new WalIndexImage();
  image.put(header);
  writeAt(files.shm, image.bytes, 0, HEADER_COPIES_BYTES, 0);
}

/**
 * The same for page numbers and hash tables alone, where the header is whole and what lies behind it is not. False when
 * the WAL doesn't hold the commit that the header names.
 */
export function rebuildBlocks(files: DatabaseFiles, published: WalIndexHeader): boolean {
  const index = new PrivateIndex();
  const header = readFrames(files, index, published.mxFrame);
  if (header.mxFrame !== published.mxFrame || !header.sameGeneration(published)) return false;
  for (const block of index.blocks) storeDifference(files.shm, block);
  return true;
}

/** Reads the frames up to the last commit, at most `most`, into `index`; returns the header that describes them. */
function readFrames(files: DatabaseFiles, index: PrivateIndex, most = Number.POSITIVE_INFINITY): WalIndexHeader {
  const header = new WalIndexHeader();
  const { bytes, words } = sharedBuffer();
  const start = readAt(files.wal, bytes, WAL_HEADER_BYTES, 0) === WAL_HEADER_BYTES ? parseWalHeader(words) : undefined;
  if (start === undefined) {
    index.end(0);
    return header;
  }
  header.bigEndian = start.bigEndian;
  header.pageSize = start.pageSize;
  header.salt1 = start.salt1;
  header.salt2 = start.salt2;
  const scanner = new FrameScanner(start.pageSize);
  scanner.begin(start.salt1, start.salt2, start.bigEndian, start.sum1, start.sum2);
  const frameBytes = FRAME_HEADER_BYTES + start.pageSize;
  const frames = Math.min(most, Math.floor((fstatSync(files.wal).size - WAL_HEADER_BYTES) / frameBytes));
  const chunk = Math.floor(SHARED_BUFFER_BYTES / frameBytes);
  scan: for (let done = 0; done < frames; done += chunk) {
    const count = Math.min(chunk, frames - done);
    const read = readAt(files.wal, bytes, count * frameBytes, frameOffset(done + 1, start.pageSize));
    for (let i = 0; i < Math.floor(read / frameBytes); i++) {
      if (!scanner.next(words, (i * frameBytes) / 4)) break scan;
      index.append(scanner.page);
      if (scanner.commitSize === 0) continue;
      header.mxFrame = done + i + 1;
      header.pageCount = scanner.commitSize;
      header.frameSum1 = scanner.sum.s1;
      header.frameSum2 = scanner.sum.s2;
    }
  }
  index.end(header.mxFrame);
  return header;
}

/** Blocks of the index in memory; the bytes of the header in the first are never stored from here. */
class PrivateIndex {
  readonly blocks: IndexBlock[] = [];
  #frames = 0;

  append(page: number): void {
    const frame = ++this.#frames;
    const number = blockOf(frame);
    this.#block(number).put(frame - frameBefore(number), page);
  }

  /** Takes out the frames past the last commit. */
  end(frames: number): void {
    const number = frames === 0 ? 0 : blockOf(frames);
    this.#block(number).end(frames - frameBefore(number));
    for (let later = number + 1; later < this.blocks.length; later++) this.blocks[later]!.clear(later);
  }

  #block(i: number): IndexBlock {
    while (this.blocks.length <= i) this.blocks.push(new IndexBlock(this.blocks.length));
    return this.blocks[i]!;
  }
}

/** Stores the aligned 8-byte words of one block that are not what the file has; smaller stores can be seen torn. */
function storeDifference(shm: number, { bytes, stores, number }: IndexBlock): void {
  const offset = number * WAL_INDEX_BLOCK_BYTES;
  const now = new Uint8Array(WAL_INDEX_BLOCK_BYTES);
  const length = readAt(shm, now, WAL_INDEX_BLOCK_BYTES, offset);
  if (length < WAL_INDEX_BLOCK_BYTES) {
    writeAt(shm, bytes, length, WAL_INDEX_BLOCK_BYTES - length, offset + length);
    if (length === 0) return;
  }
  const theirs = new BigUint64Array(now.buffer);
  const first = number === 0 ? WAL_INDEX_HEADER_BYTES / WHOLE_STORE_BYTES : 0;
  // Pages before hash slots: a slot is only looked at by readers whose frames it names.
  for (let i = first; i < Math.floor(length / WHOLE_STORE_BYTES); i++) {
    const at = i * WHOLE_STORE_BYTES;
    if (stores[i] !== theirs[i]) writeAt(shm, bytes, at, WHOLE_STORE_BYTES, offset + at);
  }
}

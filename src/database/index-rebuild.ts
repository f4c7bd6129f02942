import { fstatSync } from "node:fs";
import { FRAME_HEADER_BYTES, frameOffset, FrameScanner, parseWalHeader, WAL_HEADER_BYTES } from "../sqlite/wal.ts";
import {
  HEADER_COPIES_BYTES,
  WAL_INDEX_BLOCK_BYTES,
  WAL_INDEX_HEADER_BYTES,
  WalIndexHeader,
  WalIndexImage,
} from "../sqlite/wal-index.ts";
import type { DatabaseFiles } from "./files.ts";
import { readAt, SHARED_BUFFER_BYTES, sharedBuffer, writeAt } from "./io.ts";

/** Page numbers in the first block and in each later one (wal.c, `HASHTABLE_NPAGE_ONE`, `HASHTABLE_NPAGE`). */
const FIRST_BLOCK_PAGES = 4062;
const BLOCK_PAGES = 4096;
const HASH_SLOTS = 8192;
const HASH_OFFSET = 16384;
const WORD = 8;

/**
 * Builds the wal-index again from the frames of the WAL, as wal.c's `walIndexRecover` does, for the case that both
 * copies of its header are bad. It is built in private memory, and only 8-byte words that differ are stored: a reader
 * in the middle of a transaction never sees an index without its frames. Needs WRITE and CKPT; `nBackfill` is 0.
 */
export function rebuildIndex(files: DatabaseFiles): void {
  const index = new PrivateIndex();
  const header = readFrames(files, index);
  index.blocks.forEach((block, i) => storeDifference(files.shm, block, i));
  const image = new WalIndexImage();
  image.put(header);
  writeAt(files.shm, image.bytes, 0, HEADER_COPIES_BYTES, 0);
}

/** Reads the frames up to the last commit into `index`; returns the header that describes them. */
function readFrames(files: DatabaseFiles, index: PrivateIndex): WalIndexHeader {
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
  const frames = Math.floor((fstatSync(files.wal).size - WAL_HEADER_BYTES) / frameBytes);
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
  readonly blocks: Uint8Array[] = [];
  #frames = 0;

  append(page: number): void {
    const [block, place] = this.#locate(++this.#frames);
    const bytes = this.#block(block);
    pagesOf(bytes, block)[place - 1] = page;
    const hash = new Uint16Array(bytes.buffer, HASH_OFFSET, HASH_SLOTS);
    let slot = (page * 383) & (HASH_SLOTS - 1);
    while (hash[slot] !== 0) slot = (slot + 1) & (HASH_SLOTS - 1);
    hash[slot] = place;
  }

  /** Takes out the frames past the last commit, as `walCleanupHash` does. */
  end(frames: number): void {
    const [block, place] = frames === 0 ? [0, 0] : this.#locate(frames);
    const bytes = this.#block(block);
    pagesOf(bytes, block).fill(0, place);
    const hash = new Uint16Array(bytes.buffer, HASH_OFFSET, HASH_SLOTS);
    for (let slot = 0; slot < HASH_SLOTS; slot++) if (hash[slot]! > place) hash[slot] = 0;
    for (let later = block + 1; later < this.blocks.length; later++) this.blocks[later]!.fill(0);
  }

  #block(i: number): Uint8Array {
    while (this.blocks.length <= i) this.blocks.push(new Uint8Array(WAL_INDEX_BLOCK_BYTES));
    return this.blocks[i]!;
  }

  /** The block of a frame and its place in it, from 1. */
  #locate(frame: number): [number, number] {
    if (frame <= FIRST_BLOCK_PAGES) return [0, frame];
    const rest = frame - FIRST_BLOCK_PAGES - 1;
    return [1 + Math.floor(rest / BLOCK_PAGES), (rest % BLOCK_PAGES) + 1];
  }
}

function pagesOf(bytes: Uint8Array, block: number): Uint32Array {
  const offset = block === 0 ? WAL_INDEX_HEADER_BYTES : 0;
  return new Uint32Array(bytes.buffer, offset, block === 0 ? FIRST_BLOCK_PAGES : BLOCK_PAGES);
}

/** Stores the aligned 8-byte words of one block that are not what the file has; smaller stores can be seen torn. */
function storeDifference(shm: number, block: Uint8Array, i: number): void {
  const offset = i * WAL_INDEX_BLOCK_BYTES;
  const now = new Uint8Array(WAL_INDEX_BLOCK_BYTES);
  const length = readAt(shm, now, WAL_INDEX_BLOCK_BYTES, offset);
  if (length < WAL_INDEX_BLOCK_BYTES) {
    writeAt(shm, block, length, WAL_INDEX_BLOCK_BYTES - length, offset + length);
    if (length === 0) return;
  }
  const mine = new BigUint64Array(block.buffer);
  const theirs = new BigUint64Array(now.buffer);
  // Pages before hash slots: a slot is only looked at by readers whose frames it names.
  for (let word = i === 0 ? WAL_INDEX_HEADER_BYTES / WORD : 0; word < Math.floor(length / WORD); word++) {
    if (mine[word] !== theirs[word]) writeAt(shm, block, word * WORD, WORD, offset + word * WORD);
  }
}

import { fstatSync } from "node:fs";
import { SluiceError } from "../errors/error.ts";
import { osPageBytes } from "../sqlite/os-page.ts";
import { WAL_INDEX_BLOCK_BYTES, WalIndexHeader } from "../sqlite/wal-index.ts";
import {
  blockOf,
  frameBefore,
  HASH_OFFSET,
  HASH_STORES,
  IndexBlock,
  pageOffset,
  SLOTS_PER_STORE,
  WHOLE_STORE_BYTES,
} from "../sqlite/wal-index-block.ts";
import type { DatabaseFiles } from "./files.ts";
import { rebuildBlocks } from "./index-rebuild.ts";
import { readAt, writeAt } from "./io.ts";

/**
 * The page numbers and hash tables of a wal-index, which readers in other processes look at while frames are entered
 * (wal.c, `walIndexAppend`). The block that takes the next frame is kept in memory as it is in the file.
 *
 * Readers look no further than the block of the last published frame. In that block page numbers are written before
 * hash slots, and slots in aligned stores of 8 bytes: the kernel may copy others byte by byte, and half a slot leads a
 * reader to an old version of a page. A later block is nobody's yet, and is written as one piece.
 *
 * Needs a closed gate and `HeldLocks.beginChange`. Made when the gate is closed, and made anew when it was open since.
 */
export class SharedIndex {
  readonly #files: DatabaseFiles;
  readonly #mapBytes: number;
  readonly #block = new IndexBlock(0);
  /** Readers may be looking at the block. */
  #isLive = false;
  /** The last frame that was entered, and the last of them that is in the file. */
  #frame = 0;
  #written = 0;
  /** Stores of the hash table that aren't in the file yet, as a set and as a list. */
  readonly #isChanged = new Uint8Array(HASH_STORES);
  readonly #changed = new Uint16Array(HASH_STORES);
  #changes = 0;
  /** The published header that the block is known to agree with: of `published`, until the next `begin`. */
  #isKnown = false;
  readonly #published = new WalIndexHeader();

  /** `mapBytes`: the file grows by as much as SQLite maps at once (os_unix.c, `unixShmRegionPerMap`). */
  constructor(files: DatabaseFiles, mapBytes = Math.max(WAL_INDEX_BLOCK_BYTES, osPageBytes())) {
    this.#files = files;
    this.#mapBytes = mapBytes;
  }

  /**
   * The next frame comes after the last published one. What a try that failed or was killed left behind that is taken
   * out (`walCleanupHash`): otherwise the slots would run out in the end, and searches would not. A damaged block is
   * built again from the WAL; SLU-2007 when that isn't what the header says.
   */
  begin(header: WalIndexHeader): void {
    const { mxFrame } = header;
    const isKnown = this.#isKnown && this.#published.isSame(header);
    this.#isKnown = false;
    this.#frame = this.#written = mxFrame;
    this.#forgetChanges();
    if (isKnown) return;
    const number = blockOf(mxFrame + 1);
    this.#isLive = mxFrame > 0 && number === blockOf(mxFrame);
    if (!this.#isLive) return this.#block.clear(number);
    const place = mxFrame - frameBefore(number);
    if (this.#load(number, place)) return;
    if (!rebuildBlocks(this.#files, header) || !this.#load(number, place)) {
      throw new SluiceError("SLU-2007", `${this.#files.shmPath} is not the index of ${mxFrame} frames`);
    }
  }

  /** Enters the next frames, which hold the first `count` of `numbers`. Nothing is shown before the header says so. */
  append(numbers: Uint32Array, count: number): void {
    const block = this.#block;
    for (let i = 0; i < count; i++) {
      const frame = this.#frame + 1;
      const number = blockOf(frame);
      if (number !== block.number) {
        this.#write();
        block.clear(number);
        this.#isLive = false;
      }
      const slot = block.put(frame - frameBefore(number), numbers[i]!);
      if (this.#isLive) this.#changeSlot(slot);
      this.#frame = frame;
    }
    this.#write();
  }

  /** `header` was published, and names the last frame that was entered. */
  published(header: WalIndexHeader): void {
    this.#isKnown = true;
    this.#isLive = true;
    this.#published.assign(header);
  }

  /** Reads a block, and clears in memory and file what lies past `place`. False when the block is damaged. */
  #load(number: number, place: number): boolean {
    const { shm } = this.#files;
    const block = this.#block;
    block.number = number;
    const offset = number * WAL_INDEX_BLOCK_BYTES;
    if (readAt(shm, block.bytes, WAL_INDEX_BLOCK_BYTES, offset) < WAL_INDEX_BLOCK_BYTES) return false;
    const hasPages = block.hasPagesPast(place);
    if (block.end(place, (slot) => this.#changeSlot(slot)) !== place) return false;
    // Slots first: it's by a page number that SQLite notices that there is something to clear.
    this.#writeSlots(offset);
    if (hasPages) {
      const from = pageOffset(number, place + 1);
      writeAt(shm, block.bytes, from, HASH_OFFSET - from, offset + from);
    }
    return true;
  }

  #changeSlot(slot: number): void {
    const store = Math.floor(slot / SLOTS_PER_STORE);
    if (this.#isChanged[store] === 1) return;
    this.#isChanged[store] = 1;
    this.#changed[this.#changes++] = store;
  }

  #forgetChanges(): void {
    this.#isChanged.fill(0);
    this.#changes = 0;
  }

  /** Brings what was entered into the file. */
  #write(): void {
    if (this.#written === this.#frame) return;
    const { number, bytes } = this.#block;
    const offset = number * WAL_INDEX_BLOCK_BYTES;
    if (this.#isLive) {
      const zero = frameBefore(number);
      const from = pageOffset(number, this.#written + 1 - zero);
      writeAt(this.#files.shm, bytes, from, pageOffset(number, this.#frame + 1 - zero) - from, offset + from);
      this.#writeSlots(offset);
    } else {
      const from = pageOffset(number, 1);
      this.#grow(offset + WAL_INDEX_BLOCK_BYTES);
      writeAt(this.#files.shm, bytes, from, WAL_INDEX_BLOCK_BYTES - from, offset + from);
    }
    this.#written = this.#frame;
  }

  #writeSlots(offset: number): void {
    const { shm } = this.#files;
    const { bytes } = this.#block;
    for (let i = 0; i < this.#changes; i++) {
      const store = this.#changed[i]!;
      const at = HASH_OFFSET + store * WHOLE_STORE_BYTES;
      writeAt(shm, bytes, at, WHOLE_STORE_BYTES, offset + at);
      this.#isChanged[store] = 0;
    }
    this.#changes = 0;
  }

  /** Real zeros, not a hole: a page of a mapping for which there is no room on the disk would kill its readers. */
  #grow(end: number): void {
    const { shm } = this.#files;
    const { size } = fstatSync(shm);
    const wanted = Math.ceil(end / this.#mapBytes) * this.#mapBytes;
    for (let at = size; at < wanted; at += WAL_INDEX_BLOCK_BYTES) {
      writeAt(shm, zeros, 0, Math.min(WAL_INDEX_BLOCK_BYTES, wanted - at), at);
    }
  }
}

const zeros = new Uint8Array(WAL_INDEX_BLOCK_BYTES);

/**
 * What an applier that was killed in the middle of a change left in the index is taken out, so that it stands as after
 * the last published commit. `WalWriter` does it by itself; this is for a gate that is about to open. Locks as above.
 */
export function cleanupIndex(files: DatabaseFiles, header: WalIndexHeader): void {
  new SharedIndex(files).begin(header);
}

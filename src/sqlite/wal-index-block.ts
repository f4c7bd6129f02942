import { WAL_INDEX_BLOCK_BYTES, WAL_INDEX_HEADER_BYTES } from "./wal-index.ts";

/**
 * One 32 KiB block of the wal-index (SQLite's "WAL-mode File Format", section 2.3; wal.c, `walHashGet`): the page numbers
 * of up to 4096 frames, then a hash table of 8192 slots of 16 bits that leads from a page to its frames. The first block
 * begins with the header, and has room for 34 page numbers less.
 */

/** Page numbers in the first block and in each later one (wal.c, `HASHTABLE_NPAGE_ONE`, `HASHTABLE_NPAGE`). */
const BLOCK_PAGES = 4096;
const HEADER_WORDS = WAL_INDEX_HEADER_BYTES / 4;
const FIRST_BLOCK_PAGES = BLOCK_PAGES - HEADER_WORDS;
const HASH_SLOTS = 8192;
/** `HASHTABLE_HASH_1`. */
const HASH_FACTOR = 383;

/** Byte offset of the hash table in a block. */
export const HASH_OFFSET = BLOCK_PAGES * 4;
/** Size and alignment of the smallest store to a hash table that no reader can see torn. */
export const WHOLE_STORE_BYTES = 8;
/** Slots in such a store. */
export const SLOTS_PER_STORE = WHOLE_STORE_BYTES / 2;
/** Such stores in a hash table. */
export const HASH_STORES = HASH_SLOTS / SLOTS_PER_STORE;

/** The block that holds frame `frame` (from 1), counted from 0 (wal.c, `walFramePage`). */
export function blockOf(frame: number): number {
  return frame <= FIRST_BLOCK_PAGES ? 0 : 1 + Math.floor((frame - FIRST_BLOCK_PAGES - 1) / BLOCK_PAGES);
}

/** The last frame before block `block` (`iZero`). */
export function frameBefore(block: number): number {
  return block === 0 ? 0 : FIRST_BLOCK_PAGES + (block - 1) * BLOCK_PAGES;
}

/** Byte offset, in block `block`, of the page number at `place` (from 1). */
export function pageOffset(block: number, place: number): number {
  return 4 * ((block === 0 ? HEADER_WORDS : 0) + place - 1);
}

/** A block in this process's memory. It can become any block; in the first one the header's bytes are never touched. */
export class IndexBlock {
  readonly bytes = new Uint8Array(WAL_INDEX_BLOCK_BYTES);
  /** The same bytes as the numbers that `WHOLE_STORE_BYTES` hold. */
  readonly stores = new BigUint64Array(this.bytes.buffer);
  readonly #pages = new Uint32Array(this.bytes.buffer, 0, BLOCK_PAGES);
  readonly #slots = new Uint16Array(this.bytes.buffer, HASH_OFFSET, HASH_SLOTS);
  /** Which block it is, from 0. */
  number: number;

  constructor(number: number) {
    this.number = number;
  }

  /** Makes it block `number`, without frames. */
  clear(number: number): void {
    this.number = number;
    this.bytes.fill(0);
  }

  /**
   * Enters a frame at `place` (from 1), which holds `page` (wal.c, `walIndexAppend`); returns its slot. Places are filled
   * in order, so more than half of the slots are always free.
   */
  put(place: number, page: number): number {
    this.#pages[(this.number === 0 ? HEADER_WORDS : 0) + place - 1] = page;
    const slots = this.#slots;
    let slot = (page * HASH_FACTOR) & (HASH_SLOTS - 1);
    while (slots[slot] !== 0) slot = (slot + 1) & (HASH_SLOTS - 1);
    slots[slot] = place;
    return slot;
  }

  /** Whether there is a page number past `place`. */
  hasPagesPast(place: number): boolean {
    const pages = this.#pages;
    for (let i = (this.number === 0 ? HEADER_WORDS : 0) + place; i < BLOCK_PAGES; i++) if (pages[i] !== 0) return true;
    return false;
  }

  /**
   * Takes out all frames past `place` (wal.c, `walCleanupHash`). Calls `cleared` for each slot that it clears; returns
   * how many slots are still in use: `place` of them, or the block is damaged.
   */
  end(place: number, cleared?: (slot: number) => void): number {
    this.#pages.fill(0, (this.number === 0 ? HEADER_WORDS : 0) + place);
    const slots = this.#slots;
    let used = 0;
    for (let slot = 0; slot < HASH_SLOTS; slot++) {
      if (slots[slot] === 0) continue;
      if (slots[slot]! <= place) {
        used++;
        continue;
      }
      slots[slot] = 0;
      cleared?.(slot);
    }
    return used;
  }
}

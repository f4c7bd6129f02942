import {
  HEADER_COPIES_BYTES,
  OFFSET_BACKFILL,
  OFFSET_BACKFILL_ATTEMPTED,
  WAL_INDEX_HEADER_BYTES,
  WalIndexHeader,
  WalIndexImage,
} from "../sqlite/wal-index.ts";
import type { DatabaseFiles } from "./files.ts";
import type { HeldLocks } from "./held-locks.ts";
import { rebuildIndex } from "./index-rebuild.ts";
import { readAt, writeAt } from "./io.ts";

/** The generation and frame up to which Sluice knows that the WAL was backfilled; undefined while it knows nothing. */
export interface Backfilled {
  readonly salt1: number;
  readonly salt2: number;
  readonly frame: number;
}

export type Repair =
  /** A writer holds the lock: it may be alive and about to finish the header. Try again within 50 ms. */
  | "busy"
  /** Nothing was wrong any more. */
  | "whole"
  /** The header was repaired from one of its copies, or `nBackfill` was. */
  | "repaired"
  /** Both copies were bad: the whole index was built again from the WAL. */
  | "rebuilt";

const word = new Uint8Array(4);

/** One of the 4-byte fields after the header copies; a torn store of them is harmless (smaller values only). */
export function writeIndexWord(shm: number, offset: number, value: number): void {
  new Uint32Array(word.buffer)[0] = value;
  writeAt(shm, word, 0, 4, offset);
}

/**
 * Repairs a header that a killed application left between its two copies, or an `nBackfill` that lies past it
 * (protocol section 4, "Header repair"). Only Sluice can: SQLite's own recovery needs the checkpoint lock, and
 * applications give up after 10 s. RECOVER is not taken: with it they would give up sooner.
 */
export function repairHeader(files: DatabaseFiles, locks: HeldLocks, backfilled: Backfilled | undefined): Repair {
  if (!locks.tryWrite()) return "busy";
  try {
    return repairUnderWrite(files, backfilled);
  } finally {
    locks.releaseWrite();
  }
}

/** The same for a caller that holds the WRITE lock. */
function repairUnderWrite(files: DatabaseFiles, backfilled: Backfilled | undefined): Repair {
  const image = new WalIndexImage();
  readAt(files.shm, image.bytes, WAL_INDEX_HEADER_BYTES, 0);
  const header = new WalIndexHeader();
  if (image.isWhole) {
    image.parse(0, header);
    if (!isForeign(image.backfill, header, backfilled)) return "whole";
    clearBackfill(files.shm);
    return "repaired";
  }
  // Copy 1 is complete before copy 0 is begun (wal.c, walIndexWriteHdr), so after a kill one of them is whole. Copy 0
  // is what readers have seen; it also takes back a restart that was not finished.
  const copy = image.isValid(0) ? 0 : image.isValid(1) ? 1 : undefined;
  if (copy === undefined) {
    clearBackfill(files.shm);
    rebuildIndex(files);
    return "rebuilt";
  }
  image.parse(copy, header);
  if (isForeign(image.backfill, header, backfilled)) clearBackfill(files.shm);
  image.repairFrom(copy);
  writeAt(files.shm, image.bytes, 0, HEADER_COPIES_BYTES, 0);
  return "repaired";
}

function isForeign(backfill: number, header: WalIndexHeader, backfilled: Backfilled | undefined): boolean {
  if (backfill > header.mxFrame) return true;
  if (backfill === 0 || backfilled === undefined) return false;
  return !header.sameGeneration(backfilled);
}

function clearBackfill(shm: number): void {
  writeIndexWord(shm, OFFSET_BACKFILL, 0);
  writeIndexWord(shm, OFFSET_BACKFILL_ATTEMPTED, 0);
}

import { fdatasync } from "node:fs";
import { promisify } from "node:util";
import { SluiceError } from "../errors/error.ts";
import { tryLock, unlock, walReadLock } from "../sqlite/locks.ts";
import {
  MARK_UNUSED,
  OFFSET_BACKFILL,
  OFFSET_BACKFILL_ATTEMPTED,
  OFFSET_MARKS,
  WAL_INDEX_HEADER_BYTES,
  WalIndexHeader,
  WalIndexImage,
} from "../sqlite/wal-index.ts";
import type { WalPlace } from "./capture.ts";
import { type DatabaseFiles, fileError } from "./files.ts";
import type { FrameList } from "./frame-list.ts";
import { writeIndexWord } from "./header-repair.ts";
import { readAt } from "./io.ts";
import { PageCopy } from "./page-copy.ts";

const datasync = promisify(fdatasync);

/** Frames that one pass moves at most: bounds the time for which `WAL_READ_LOCK(0)` is held. */
export const PASS_FRAMES = 16_384;
/** How long a pass works before other work of the process gets its turn. */
const SLICE_MS = 1;

export interface PassResult {
  /** Frames that are in the database file now. */
  readonly backfilled: number;
  /** What kept the pass from reaching its limit: a reader's snapshot, or a reader in the way of the lock. */
  readonly blocked: boolean;
}

/**
 * What SQLite calls a checkpoint, without stopping a writer (protocol section 4; wal.c, `walCheckpoint`): pages of
 * captured, locally durable frames go to the database file, as far as no reader's snapshot forbids it.
 *
 * `backfilled` is Sluice's own word for the wal-index's `nBackfill`: they are compared before every pass.
 */
export class Backfill {
  readonly #files: DatabaseFiles;
  readonly #frames: FrameList;
  readonly #pageSize: number;
  readonly #image = new WalIndexImage();
  readonly #header = new WalIndexHeader();
  #backfilled = 0;

  constructor(files: DatabaseFiles, pageSize: number, frames: FrameList) {
    this.#files = files;
    this.#pageSize = pageSize;
    this.#frames = frames;
  }

  get backfilled(): number {
    return this.#backfilled;
  }

  /** At opening: `frame` is what the wal-index says and the start-up capture has read. */
  begin(frame: number): void {
    this.#backfilled = frame;
  }

  /** Sluice has restarted the WAL. */
  restarted(): void {
    this.#backfilled = 0;
  }

  /**
   * One pass up to `limit` at most: the last frame of `place`'s generation that is in a locally durable batch.
   * `stopped` is asked while it works; when it says so, the pass ends without having done anything that counts.
   */
  async pass(limit: number, place: WalPlace, stopped: () => boolean): Promise<PassResult> {
    const wanted = Math.min(limit, this.#backfilled + PASS_FRAMES);
    if (wanted <= this.#backfilled) return { backfilled: this.#backfilled, blocked: false };
    try {
      // The WAL must be on disk before the database is changed (section 4, step 4).
      await datasync(this.#files.wal);
      const target = this.lowerToMarks(wanted);
      if (target <= this.#backfilled || !tryLock(this.#files.shm, "exclusive", walReadLock(0))) {
        return { backfilled: this.#backfilled, blocked: true };
      }
      try {
        const copy = this.#prepare(target, place);
        if (copy === undefined) return { backfilled: this.#backfilled, blocked: true };
        let since = performance.now();
        while (!copy.done) {
          copy.step();
          if (performance.now() - since < SLICE_MS) continue;
          await new Promise(setImmediate);
          if (stopped()) return { backfilled: this.#backfilled, blocked: true };
          since = performance.now();
        }
        this.#publish(target);
      } finally {
        unlock(this.#files.shm, walReadLock(0));
      }
      return { backfilled: this.#backfilled, blocked: target < wanted };
    } catch (error) {
      throw fileError(error, this.#files.path, "backfill");
    }
  }

  /**
   * The same without a pause, for the short tail under the WRITE lock; the WAL is on disk already. False when a reader
   * is in the way.
   */
  passNow(limit: number, place: WalPlace): boolean {
    if (limit <= this.#backfilled) return true;
    const target = this.lowerToMarks(limit);
    if (target < limit || !tryLock(this.#files.shm, "exclusive", walReadLock(0))) return false;
    try {
      const copy = this.#prepare(target, place);
      if (copy === undefined) return false;
      while (!copy.done) copy.step();
      this.#publish(target);
      return true;
    } finally {
      unlock(this.#files.shm, walReadLock(0));
    }
  }

  /** The loop over `aReadMark` in `walCheckpoint`, without slot 0 and the pinned slot. */
  lowerToMarks(limit: number): number {
    this.#read();
    for (let i = 1; i <= 3; i++) {
      const mark = this.#image.mark(i);
      if (limit <= mark) continue;
      if (tryLock(this.#files.shm, "exclusive", walReadLock(i))) {
        try {
          writeIndexWord(this.#files.shm, OFFSET_MARKS + 4 * i, i === 1 ? limit : MARK_UNUSED);
        } finally {
          unlock(this.#files.shm, walReadLock(i));
        }
      } else {
        limit = mark;
      }
    }
    return limit;
  }

  /**
   * Under `WAL_READ_LOCK(0)`: reads the header again. Only with the same salts and `mxFrame` at or above the target may
   * pages be written; without this look Sluice would rebuild SQLite's WAL-reset bug.
   */
  #prepare(target: number, place: WalPlace): PageCopy | undefined {
    this.#read();
    if (!this.#image.isWhole) return undefined;
    this.#image.parse(0, this.#header);
    if (!this.#header.sameGeneration(place) || this.#header.mxFrame < target) return undefined;
    const stored = this.#image.backfill;
    if (stored > this.#backfilled) throw this.#broken(`nBackfill is ${stored}, not ${this.#backfilled}`);
    const pairs = this.#frames.newest(this.#backfilled + 1, target, this.#header.pageCount);
    writeIndexWord(this.#files.shm, OFFSET_BACKFILL_ATTEMPTED, target);
    return new PageCopy(this.#files, this.#pageSize, pairs, place);
  }

  #publish(target: number): void {
    writeIndexWord(this.#files.shm, OFFSET_BACKFILL, target);
    this.#backfilled = target;
  }

  #read(): void {
    const length = readAt(this.#files.shm, this.#image.bytes, WAL_INDEX_HEADER_BYTES, 0);
    if (length < WAL_INDEX_HEADER_BYTES) throw new SluiceError("SLU-2006", `${this.#files.shmPath} was truncated`);
  }

  #broken(what: string): SluiceError {
    return new SluiceError("SLU-2007", `${this.#files.path}: ${what}: somebody else backfills`);
  }
}

import { randomFillSync } from "node:crypto";
import { fdatasync, fdatasyncSync, fstatSync, ftruncateSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { SluiceError } from "../errors/error.ts";
import { tryLock, unlock, walReadLock } from "../sqlite/locks.ts";
import { frameOffset } from "../sqlite/wal.ts";
import { nextSalt1, OFFSET_BACKFILL_ATTEMPTED, RESTART_BYTES } from "../sqlite/wal-index.ts";
import type { Backfill } from "./backfill.ts";
import type { Capture } from "./capture.ts";
import { type DatabaseFiles, fileError } from "./files.ts";
import { writeIndexWord } from "./header-repair.ts";
import type { HeldLocks } from "./held-locks.ts";
import { writeAt } from "./io.ts";

export type RestartOutcome =
  /** The WAL begins anew with the next commit. */
  | "restarted"
  /** A writer holds the WRITE lock. */
  | "busy"
  /** A reader's snapshot is in the way. */
  | "readers"
  /** So much was written since the last backfill that another one without the lock comes first. */
  | "behind";

/** Tries for the WRITE lock in one turn: a saturating writer leaves gaps of a few µs between its transactions. */
const BURST = 64;
const SHRINK_STEP_BYTES = 8 * 1024 * 1024;

const datasync = promisify(fdatasync);

export interface WalRestartParts {
  readonly files: DatabaseFiles;
  readonly locks: HeldLocks;
  readonly capture: Capture;
  readonly backfill: Backfill;
  /** Commits may have been captured under the WRITE lock: whoever waits for them is told before anything else. */
  readonly captured: () => void;
  /** Seals everything captured into a locally durable batch, at once: it runs under the WRITE lock. */
  readonly sealNow: () => void;
  readonly canSealNow: () => boolean;
  /** The WAL has begun anew; called while writers are still held up. */
  readonly restarted: () => void;
}

/**
 * The restart of the WAL (protocol section 4): when everything in it is captured, sealed and backfilled, the next
 * commit writes frame 1 again. Only Sluice does this. The long part, a backfill and fsync of the database, has been
 * done before without a lock; under WRITE there is only a short tail.
 */
export class WalRestart {
  readonly #parts: WalRestartParts;
  /** Frames up to this one are in the database file, and that is on disk. */
  #prepared = 0;

  constructor(parts: WalRestartParts) {
    this.#parts = parts;
  }

  /** Makes what was backfilled durable in the database file, so that nothing or little is left to do under the lock. */
  async prepare(): Promise<void> {
    const { files, backfill } = this.#parts;
    const frame = backfill.backfilled;
    try {
      await datasync(files.db);
      this.#prepared = frame;
    } catch (error) {
      throw fileError(error, files.path, "fsync");
    }
  }

  /**
   * One try. `drainMs`: how long readers may be waited for while writers are held up. `tailFrames`: how many frames that
   * came since `prepare` may be captured, sealed, backfilled and synced under the lock; without any it is held for some
   * 100 µs. `catchUp` does the same for more of them, with turns for others in between, while writers have to wait; where
   * it is not given the outcome is "behind". `onRestarted` runs while the WRITE lock is still held.
   */
  async attempt(
    drainMs: number,
    tailFrames: number,
    steps: { readonly catchUp?: (() => Promise<boolean>) | undefined; readonly onRestarted?: () => Promise<void> } = {},
  ): Promise<RestartOutcome> {
    const { files, locks } = this.#parts;
    if (!this.#takeWrite()) return "busy";
    try {
      let tail = this.#finishTail(tailFrames);
      if (tail === "behind" && steps.catchUp !== undefined) {
        tail = (await steps.catchUp()) ? this.#finishTail(0) : "readers";
      }
      if (tail !== undefined) return tail;
      const deadline = performance.now() + drainMs;
      while (!this.#lockReaders()) {
        if (performance.now() >= deadline) return "readers";
        await sleep(1);
      }
      try {
        this.#restart();
        await steps.onRestarted?.();
      } finally {
        this.#unlockReaders();
      }
      return "restarted";
    } catch (error) {
      throw fileError(error, files.path, "restart of the WAL");
    } finally {
      locks.releaseWrite();
    }
  }

  /**
   * Cuts the end off a WAL file that is longer than `keepBytes`, in steps that hold writers up for about a
   * millisecond each. Only when the present generation's header and frames are on disk: behind an old header, frames
   * without their successors would be replayed over a newer database after a power loss. True when nothing is left
   * to cut.
   */
  shrink(keepBytes: number): boolean {
    const { files, locks, capture } = this.#parts;
    const size = fstatSync(files.wal).size;
    if (size <= keepBytes) return true;
    if (capture.frame === 0 || !this.#takeWrite()) return false;
    try {
      if (capture.look() === "torn") return false;
      // Frames past `mxFrame` are nobody's while Sluice holds WRITE.
      const used = frameOffset(capture.header.mxFrame + 1, capture.pageSize);
      const target = Math.max(keepBytes, used, size - SHRINK_STEP_BYTES);
      if (target < size) ftruncateSync(files.wal, target);
      return target === Math.max(keepBytes, used);
    } catch (error) {
      throw fileError(error, files.walPath, "cut");
    } finally {
      locks.releaseWrite();
    }
  }

  #takeWrite(): boolean {
    for (let i = 0; i < BURST; i++) if (this.#parts.locks.tryWrite()) return true;
    return false;
  }

  /** Captures, seals and backfills what came since the last pass, and makes the database file whole and durable. */
  #finishTail(tailFrames: number): RestartOutcome | undefined {
    const { files, capture, backfill, sealNow } = this.#parts;
    if (capture.look() === "torn") return "busy";
    if (capture.header.mxFrame - backfill.backfilled > tailFrames) return "behind";
    capture.advance();
    this.#parts.captured();
    if (capture.unsummed > 0) return "behind";
    const pending = backfill.backfilled < capture.frame;
    if (pending) {
      if (!this.#parts.canSealNow()) return "behind";
      sealNow();
      fdatasyncSync(files.wal);
      if (!backfill.passNow(capture.frame, capture.place)) return "readers";
    }
    const bytes = capture.size * capture.pageSize;
    // Only a commit of this generation says how long the file is to be.
    const resize = capture.frame > 0 && fstatSync(files.db).size !== bytes;
    if (resize) ftruncateSync(files.db, bytes);
    if (pending || resize || this.#prepared !== capture.frame) fdatasyncSync(files.db);
    return undefined;
  }

  /** 124–127 exclusively: with `nBackfill` = `mxFrame` new readers go to slot 0, so these drain. */
  #lockReaders(): boolean {
    const { files, locks } = this.#parts;
    for (let i = 1; i <= 4; i++) {
      if (i === 4 ? locks.raisePin() : tryLock(files.shm, "exclusive", walReadLock(i))) continue;
      for (let held = 1; held < i; held++) unlock(files.shm, walReadLock(held));
      return false;
    }
    return true;
  }

  #unlockReaders(): void {
    const { files, locks } = this.#parts;
    locks.lowerPin();
    for (let i = 3; i >= 1; i--) unlock(files.shm, walReadLock(i));
  }

  /** One write of 120 bytes, which no kill can tear. */
  #restart(): void {
    const { files, capture, backfill } = this.#parts;
    const { image, header } = capture;
    const salt2 = randomFillSync(new Int32Array(1))[0]!;
    const old = header.mxFrame;
    if (capture.frame !== old || backfill.backfilled !== old) {
      throw new SluiceError("SLU-2000", `${files.path}: a restart of the WAL would lose frames`);
    }
    header.mxFrame = 0;
    header.bigEndian = false;
    header.salt1 = nextSalt1(header.salt1);
    header.salt2 = salt2;
    image.put(header);
    image.putRestarted();
    header.mxFrame = old;
    writeAt(files.shm, image.bytes, 0, RESTART_BYTES, 0);
    capture.restarted();
    backfill.restarted();
    this.#parts.restarted();
    this.#prepared = 0;
    writeIndexWord(files.shm, OFFSET_BACKFILL_ATTEMPTED, 0);
  }
}

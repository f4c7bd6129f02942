import { fdatasync, ftruncate } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { isLockedByOther, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import { FRAME_HEADER_BYTES } from "../sqlite/wal.ts";
import { Backfill, PASS_FRAMES } from "./backfill.ts";
import { Capture, type CommitSink } from "./capture.ts";
import { type DatabaseFiles, fileError, type FileMark } from "./files.ts";
import { healFrames } from "./frame-heal.ts";
import { FrameList } from "./frame-list.ts";
import { type Repair, repairHeader } from "./header-repair.ts";
import type { HeldLocks } from "./held-locks.ts";
import type { DatabaseLimits } from "./limits.ts";
import type { OpenedFiles } from "./opening.ts";
import { PageView } from "./page-view.ts";
import { type Activity, WakeUp } from "./wake-up.ts";
import { WalRestart } from "./wal-restart.ts";

const datasync = promisify(fdatasync);
const truncate = promisify(ftruncate);

/** Bytes of the WAL that are read in one turn of the event loop: 1 to 2 ms. */
const SLICE_BYTES = 2 * 1024 * 1024;
/** Between two passes the disk and the writer get at least this long, and twice as long as the pass took. */
const REST_MS = 50;
const REST_MOST_MS = 300;
const RETRY_BLOCKED_MS = 100;
/** How long a restart waits for a commit to follow, so that a lone writer's next one is far away. */
const AFTER_COMMIT_MS = 50;
const DRAIN_MS = 1;
const DRAIN_HARD_MS = 30;
const HARD_RETRY_MS = 10;
/** Backfills without the lock that a restart tries one after the other to come close to a busy writer. */
const RESTART_ROUNDS = 6;
/** Frames that a backfill waits for at most before it seals them. */
const SEAL_FRAMES_MOST = 16_000;
/** Frames that a restart may handle under the WRITE lock: twice this many, and more from try to try. */
const TAIL_FRAMES = 128;
const HEAL_TRIES = 200;
const REPEAT_ERROR_MS = 10_000;

/** What the part that makes batches does for the WAL, and is told about it. */
export interface WalOwner extends CommitSink {
  /** Commits were captured. */
  moved(): void;
  /** Whether captured commits can be sealed now; while they can't, nothing is backfilled. */
  readonly canSeal: boolean;
  /** Whether `sealNow` may be called, too. */
  readonly canSealNow: boolean;
  /** Sealed batches that wait for the store: the more there are, the larger the next ones. */
  readonly unsent: number;
  /** Seals everything captured, and says up to which frame with `sealed`. */
  seal(): Promise<void>;
  /** The same at once, for the short tail under the WRITE lock. */
  sealNow(): void;
  /** The WAL has begun anew: frames are counted from 1 again. */
  restarted(): void;
  /** Runs `work` when no other work on this database is under way. */
  queue<T>(work: () => Promise<T>): Promise<T>;
  /** Un-backfilled frames passed the limit (true), or are well below it again. */
  alarm(on: boolean, frames: number): void;
  repaired(how: Repair): void;
  /** Frames that SQLite left without checksums got theirs. */
  healed(): void;
  /** Something failed that is tried again. */
  failed(error: Error): void;
  /** Nothing can be captured any more: SLU-2006 or SLU-2007. Called once. */
  lost(error: SluiceError): void;
}

/**
 * The WAL of one open database: captured as it grows, merged into the database file, restarted (protocol sections 3, 4).
 *
 * - **opened**: files and locks are there; `captureAll` reads what is in the WAL. Nothing else happens.
 * - **live**: from `start`. Looks capture; from `backfillFrames` on *maintenance* runs: seal, backfill, and a restart of
 *   the WAL when it is long. A failure of the disk is reported and tried again.
 * - **lost**: the files or the WAL are not what Sluice has followed. Nothing is read or written any more.
 * - **closed**: by `stop`; the files stay open until `release`.
 */
export class LiveWal {
  readonly files: DatabaseFiles;
  readonly locks: HeldLocks;
  readonly pageSize: number;
  readonly frames = new FrameList();
  readonly capture: Capture;
  readonly backfill: Backfill;
  readonly #owner: WalOwner;
  readonly #limits: DatabaseLimits;
  readonly #restart: WalRestart;
  #wakeUp: WakeUp | undefined;
  #durable = 0;
  #paused = 0;
  #maintaining = false;
  #stopped = false;
  #alarmed = false;
  #retryAtMs = 0;
  #lostReported = false;
  #lastError = { code: "", atMs: Number.NEGATIVE_INFINITY };
  #onCommit: (() => void) | undefined;

  /** `size`: pages of the database file before the first frame of the WAL. */
  constructor(opened: OpenedFiles, size: number, owner: WalOwner, limits: DatabaseLimits) {
    this.files = opened.files;
    this.locks = opened.locks;
    this.pageSize = opened.pageSize;
    this.#owner = owner;
    this.#limits = limits;
    this.capture = new Capture(this.files, this.pageSize, size, this.frames, owner);
    this.backfill = new Backfill(this.files, this.pageSize, this.frames);
    this.#restart = new WalRestart({
      files: this.files,
      locks: this.locks,
      capture: this.capture,
      backfill: this.backfill,
      captured: () => owner.moved(),
      sealNow: () => {
        owner.sealNow();
        this.#durable = this.capture.frame;
      },
      canSealNow: () => owner.canSealNow,
      restarted: () => {
        this.#durable = 0;
        owner.restarted();
      },
    });
  }

  /** Bytes of the WAL up to the last captured commit. */
  get bytes(): number {
    return this.capture.frame * (FRAME_HEADER_BYTES + this.pageSize);
  }

  /** Last frame of this generation that is in a locally durable batch. */
  get durable(): number {
    return this.#durable;
  }

  get unbackfilled(): number {
    return this.capture.frame - this.backfill.backfilled;
  }

  get isWatching(): boolean {
    return this.#wakeUp?.isWatching ?? false;
  }

  /**
   * Captures all that is committed now. Waits for nothing; blocks for as long as reading the rest of the WAL takes.
   * Throws the reason when the database is lost, SLU-2010 when the WAL can't be read.
   */
  captureNow(): void {
    try {
      let look = this.capture.look();
      if (look === "torn" && this.#repair()) look = this.capture.look();
      // A header that is torn now was not published: nobody was told that its commit is there.
      if (look !== "moved") return;
      const before = this.capture.frame;
      this.capture.advance();
      if (this.capture.frame !== before) this.#captured();
    } catch (error) {
      throw this.#report(error);
    }
  }

  /** The same with turns for others in between, when much was written. */
  async captureInTurns(): Promise<void> {
    for (;;) {
      try {
        let look = this.capture.look();
        if (look === "torn" && this.#repair()) look = this.capture.look();
        if (look !== "moved") return;
        const done = this.capture.advance(SLICE_BYTES);
        if (done) return this.#captured();
      } catch (error) {
        throw this.#report(error);
      }
      await new Promise(setImmediate);
    }
  }

  /** The start-up capture: reads all frames, with turns for others in between. */
  async captureAll(): Promise<void> {
    for (;;) {
      let look = this.capture.look();
      while (look === "torn") {
        if (!this.#repair()) await sleep(20);
        look = this.capture.look();
      }
      if (look === "same" || this.capture.advance(SLICE_BYTES)) break;
      await new Promise(setImmediate);
    }
    this.backfill.begin(Math.min(this.capture.image.backfill, this.capture.frame));
  }

  /** Everything up to `durable` is in a locally durable batch: capture goes on by itself from now on. */
  start(durable: number): void {
    this.sealed(durable);
    this.#wakeUp = new WakeUp(
      this.files.walPath,
      (isPoll) => this.#look(isPoll),
      (all) => this.#checkFiles(all),
    );
    this.#wakeUp.wake();
  }

  /** Everything captured up to `frame` of this generation was sealed. */
  sealed(frame: number): void {
    if (frame > this.capture.frame) throw this.#internal(`frame ${frame} was sealed but not captured`);
    this.#durable = Math.max(this.#durable, frame);
    this.#forget();
  }

  /**
   * The database as it was after frame `frame`, which ended a commit that left it with `size` pages. Right while
   * `pause` holds, or for as long as nothing else runs in the queue.
   */
  view(frame: number, size: number): PageView {
    const pairs = this.frames.newest(this.backfill.backfilled + 1, frame, size);
    return new PageView(this.files, this.pageSize, size, pairs);
  }

  /**
   * Gives frames that SQLite left without checksums theirs; resolves at once when there are none. To be called before
   * a seal and before a backfill. False when a writer kept the lock all the time.
   */
  async heal(): Promise<boolean> {
    for (let attempt = 0; this.capture.unsummed > 0; attempt++) {
      if (attempt === HEAL_TRIES) return false;
      const healed = healFrames(this.files, this.locks, this.capture);
      // What was committed meanwhile was captured under the lock.
      this.#owner.moved();
      if (healed) this.#owner.healed();
      else await sleep(1);
    }
    return true;
  }

  /** Makes all of the WAL durable. Throws SLU-2008 to SLU-2010. */
  async sync(): Promise<void> {
    try {
      await datasync(this.files.wal);
    } catch (error) {
      throw fileError(error, this.files.walPath, "fsync");
    }
  }

  /** Keeps backfills and restarts waiting until the returned function is called. */
  pause(): () => void {
    this.#paused++;
    let released = false;
    return () => {
      if (released) return;
      released = true;
      this.#paused--;
      this.#maintainSoon();
    };
  }

  /** No look and no maintenance from now on; what runs ends at its next step. */
  stop(): void {
    this.#stopped = true;
    this.#wakeUp?.close();
    this.#wakeUp = undefined;
    this.#onCommit?.();
  }

  /**
   * For a clean close, after `stop`: brings everything into the database file and leaves an empty WAL, so that no
   * frames of a killed writer can come to life in it later. Returns what identifies the file as it is then, taken while
   * nobody could write; undefined when writers or readers were in the way for `patienceMs`.
   */
  async finish(patienceMs: number): Promise<FileMark | undefined> {
    const deadline = performance.now() + patienceMs;
    do {
      this.captureNow();
      if (this.bytes > 0 && (await this.#sealAndBackfill())) {
        await sleep(HARD_RETRY_MS);
        continue;
      }
      await this.#restart.prepare();
      let mark: FileMark | undefined;
      const onRestarted = async (): Promise<void> => {
        await truncate(this.files.wal, 0);
        mark = this.files.markNow();
      };
      await this.#restart.attempt(DRAIN_HARD_MS, TAIL_FRAMES, { onRestarted, catchUp: () => this.#catchUp() });
      if (mark !== undefined) return mark;
    } while (performance.now() < deadline);
    return undefined;
  }

  /** Lets the locks and files go. */
  release(): void {
    this.stop();
    this.files.close();
  }

  #look(isPoll: boolean): Activity {
    if (this.#stopped) return "still";
    try {
      const look = this.capture.look();
      if (look === "torn") return this.#repair() ? "more" : "torn";
      if (look === "same") {
        this.#maintainSoon();
        // A poll needs no ladder of looks behind it: another one follows.
        return !isPoll && isLockedByOther(this.files.shm, "shared", WAL_WRITE_LOCK) ? "writing" : "still";
      }
      const done = this.capture.advance(SLICE_BYTES);
      this.#captured();
      return done ? "moved" : "more";
    } catch (error) {
      this.#report(error);
      return "still";
    }
  }

  #captured(): void {
    this.#owner.moved();
    this.#onCommit?.();
    this.#watchBacklog();
    this.#maintainSoon();
  }

  #checkFiles(all: boolean): void {
    if (this.#stopped) return;
    try {
      const difference = all ? this.files.difference() : this.files.nextDifference();
      if (difference === undefined) return;
      const error = new SluiceError("SLU-2006", difference);
      this.capture.stop(error);
      this.#report(error);
    } catch (error) {
      this.#report(fileError(error, this.files.path, "stat"));
    }
  }

  #repair(): boolean {
    const { salt1, salt2 } = this.capture.place;
    const frame = this.backfill.backfilled;
    const how = repairHeader(this.files, this.locks, frame === 0 ? undefined : { salt1, salt2, frame });
    if (how === "busy") return false;
    if (how !== "whole") this.#owner.repaired(how);
    return true;
  }

  #watchBacklog(): void {
    const frames = this.unbackfilled;
    const { alarmFrames } = this.#limits;
    if (this.#alarmed ? frames >= alarmFrames / 2 : frames < alarmFrames) return;
    this.#alarmed = !this.#alarmed;
    this.#owner.alarm(this.#alarmed, frames);
  }

  #needsWork(): boolean {
    if (this.#stopped || this.#paused > 0 || this.capture.lost !== undefined || !this.#owner.canSeal) return false;
    const { backfillFrames, restartBytes } = this.#limits;
    return (
      this.#isSealDue() || this.#durable - this.backfill.backfilled >= backfillFrames || this.bytes >= restartBytes
    );
  }

  /** While batches wait for the store a backfill waits for more frames, so that it does not make many small ones. */
  #isSealDue(): boolean {
    const { backfillFrames } = this.#limits;
    const wanted = Math.min(backfillFrames * 2 ** this.#owner.unsent, Math.max(backfillFrames, SEAL_FRAMES_MOST));
    return this.unbackfilled >= wanted && this.capture.frame > this.#durable;
  }

  #maintainSoon(): void {
    if (this.#maintaining || !this.#needsWork() || performance.now() < this.#retryAtMs) return;
    this.#maintaining = true;
    this.#owner
      .queue(() => this.#maintain())
      .catch((error: unknown) => {
        this.#retryAtMs = performance.now() + 10 * RETRY_BLOCKED_MS;
        this.#report(error);
      })
      .finally(() => {
        this.#maintaining = false;
      });
  }

  /** One round: seal, backfill, and a try to restart the WAL when it is long. */
  async #maintain(): Promise<void> {
    if (!this.#needsWork()) return;
    const startMs = performance.now();
    const isLong = this.bytes >= this.#limits.restartBytes;
    const blocked = await this.#sealAndBackfill(isLong || this.#isSealDue());
    this.#rest(blocked, performance.now() - startMs);
    if (blocked || this.#isInterrupted()) return;
    if (this.bytes < this.#limits.restartBytes) {
      await this.#nextCommit();
      if (!this.#isInterrupted()) this.#restart.shrink(3 * this.#limits.restartBytes);
    } else if (this.backfill.backfilled < this.#durable) {
      // More frames than one pass moves: the next round comes before a restart.
      this.#retryAtMs = performance.now();
    } else {
      await this.#tryRestart();
    }
  }

  /** Passes cost the writer something: they come the less often the longer they take, unless there is a backlog. */
  #rest(blocked: boolean, tookMs: number): void {
    const restMs = this.unbackfilled > PASS_FRAMES ? 0 : Math.min(2 * tookMs, REST_MOST_MS);
    this.#retryAtMs = performance.now() + Math.max(blocked ? RETRY_BLOCKED_MS : REST_MS, restMs);
  }

  /** True when a reader was in the way. */
  async #sealAndBackfill(seal = true): Promise<boolean> {
    this.locks.assertHeld();
    if (!(await this.heal())) return true;
    if (seal && this.#durable < this.capture.frame) await this.#owner.seal();
    const { blocked } = await this.backfill.pass(this.#durable, this.capture.place, () => this.#paused > 0);
    this.#assertOrder();
    this.#forget();
    this.#watchBacklog();
    return blocked;
  }

  #isInterrupted(): boolean {
    return this.#stopped || this.#paused > 0;
  }

  /**
   * Right after a commit, brings everything into the database file without the lock, and only then takes it for a
   * moment. Writers that never leave a pause get past that: the WAL grows to twice the limit, and from there on what
   * came meanwhile is handled under the lock, more of it from try to try. Past the hard limit, all of it.
   */
  async #tryRestart(): Promise<void> {
    const { restartBytes, hardBytes } = this.#limits;
    let hard = false;
    for (let round = 0; round < RESTART_ROUNDS; round++) {
      hard = this.bytes >= hardBytes;
      if (!hard) await this.#nextCommit();
      const mayHurry = this.bytes >= 2 * restartBytes && this.#wakeUp?.isBusy === true && this.#owner.canSealNow;
      // Syncing the database file takes longest: before the backfill where the rest of it is synced under the lock.
      if (mayHurry) await this.#restart.prepare();
      if (this.unbackfilled > 0 && (await this.#sealAndBackfill())) return;
      if (!mayHurry) await this.#restart.prepare();
      if (this.#isInterrupted()) return;
      this.locks.assertHeld();
      const tail = mayHurry ? TAIL_FRAMES * (2 + round) : 0;
      const catchUp = hard ? (): Promise<boolean> => this.#catchUp() : undefined;
      const outcome = await this.#restart.attempt(hard ? DRAIN_HARD_MS : DRAIN_MS, tail, { catchUp });
      if (outcome === "restarted" || outcome === "readers") return;
    }
    if (hard) this.#retryAtMs = performance.now() + HARD_RETRY_MS;
  }

  /**
   * Under the WRITE lock, past the hard limit of the WAL's length: writers wait until all of it is in the database file.
   * False when a reader is in the way.
   */
  async #catchUp(): Promise<boolean> {
    if (this.capture.look() === "torn") return false;
    while (!this.capture.advance(SLICE_BYTES)) await new Promise(setImmediate);
    this.#owner.moved();
    if (this.capture.unsummed > 0) return false;
    if (this.#durable < this.capture.frame) await this.#owner.seal();
    while (this.backfill.backfilled < this.capture.frame) {
      const before = this.backfill.backfilled;
      await this.backfill.pass(this.#durable, this.capture.place, () => false);
      if (this.backfill.backfilled === before) return false;
    }
    await this.#restart.prepare();
    return true;
  }

  /** Right after a commit a lone writer's next one is farthest away. */
  async #nextCommit(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => this.#onCommit?.(), AFTER_COMMIT_MS);
      this.#onCommit = () => {
        clearTimeout(timer);
        this.#onCommit = undefined;
        resolve();
      };
    });
  }

  /** Frames that are in a batch and in the database file are of no use any more. */
  #forget(): void {
    this.frames.dropThrough(Math.min(this.backfill.backfilled, this.#durable));
  }

  /** Invariant 2. */
  #assertOrder(): void {
    const { backfilled } = this.backfill;
    const { frame, header } = this.capture;
    if (backfilled <= this.#durable && this.#durable <= frame && frame <= header.mxFrame) return;
    throw this.#internal(`backfilled ${backfilled}, durable ${this.#durable}, captured ${frame} of ${header.mxFrame}`);
  }

  #internal(what: string): SluiceError {
    return new SluiceError("SLU-2000", `${this.files.path}: ${what}`);
  }

  /** Tells the owner: what is lost once, what repeats not more often than every ten seconds. */
  #report(error: unknown): Error {
    const known = error instanceof Error ? error : new Error(String(error));
    const { lost } = this.capture;
    if (lost !== undefined) {
      if (!this.#lostReported) {
        this.#lostReported = true;
        this.stop();
        this.#owner.lost(lost);
      }
      return lost;
    }
    if (isSluiceError(known, "SLU-2006") || isSluiceError(known, "SLU-2007")) {
      this.capture.stop(known);
      return this.#report(known);
    }
    const code = isSluiceError(known) ? known.code : known.message;
    const nowMs = performance.now();
    if (code !== this.#lastError.code || nowMs - this.#lastError.atMs > REPEAT_ERROR_MS) {
      this.#lastError = { code, atMs: nowMs };
      this.#owner.failed(known);
    }
    return known;
  }
}

import { SluiceError } from "../errors/error.ts";
import {
  lockHolder,
  type LockHolder,
  SHARED_FIRST,
  SHARED_SIZE,
  tryLock,
  unlock,
  WAL_CKPT_LOCK,
  WAL_DMS_LOCK,
  WAL_PIN_LOCK,
  WAL_WRITE_LOCK,
} from "../sqlite/locks.ts";
import { MARK_UNUSED, OFFSET_PIN_MARK } from "../sqlite/wal-index.ts";
import type { DatabaseFiles } from "./files.ts";
import { readAt, writeAt } from "./io.ts";

/**
 * The locks that Sluice holds on a database for as long as it has it open (protocol section 2): SHARED, DMS, CKPT and
 * the pin. Taken without waiting; what could not be had is said, and what was had is kept for the next try.
 */
export class HeldLocks {
  readonly #files: DatabaseFiles;
  #shared = false;
  #dms = false;
  #checkpoint = false;
  #pin = false;
  /** The gate is closed: WRITE is held shared whenever it isn't held exclusively. */
  #closed = false;
  #exclusive = false;
  /** A change is being written behind the closed gate. */
  #writing = false;
  /** Changes that wait for the end of maintenance under WRITE. */
  readonly #waiting: (() => void)[] = [];

  constructor(files: DatabaseFiles) {
    this.#files = files;
  }

  /** Tries for the locks that are missing, in their order. Undefined when all are held, else what is in the way. */
  take(): string | undefined {
    const { shm } = this.#files;
    const blockedBefore = this.#takeShared();
    if (blockedBefore !== undefined) return blockedBefore;
    this.#checkpoint ||= tryLock(shm, "exclusive", WAL_CKPT_LOCK);
    if (!this.#checkpoint) {
      return blocked("the checkpoint lock is held", lockHolder(shm, "exclusive", WAL_CKPT_LOCK));
    }
    this.#pin ||= this.#takePin();
    if (!this.#pin) return blocked("read mark 4 is in use", lockHolder(shm, "exclusive", WAL_PIN_LOCK));
    return undefined;
  }

  /**
   * Takes what two Sluices can hold at once, beside the one that looks after the database: SHARED, DMS, and the pin that is
   * held already. From then on neither of them, and nobody else, can restart the WAL. What is in the way, or undefined.
   */
  takeBeside(): string | undefined {
    const { shm } = this.#files;
    const blockedBefore = this.#takeShared();
    if (blockedBefore !== undefined) return blockedBefore;
    this.#pin ||= this.#sharePin();
    return this.#pin ? undefined : blocked("read mark 4 is in use", lockHolder(shm, "shared", WAL_PIN_LOCK));
  }

  #takeShared(): string | undefined {
    const { db, shm } = this.#files;
    this.#shared ||= tryLock(db, "shared", SHARED_FIRST, SHARED_SIZE);
    if (!this.#shared) {
      return blocked("the database file is locked exclusively", lockHolder(db, "shared", SHARED_FIRST, SHARED_SIZE));
    }
    this.#dms ||= tryLock(shm, "shared", WAL_DMS_LOCK);
    return this.#dms ? undefined : blocked("the wal-index is being set up", lockHolder(shm, "shared", WAL_DMS_LOCK));
  }

  /** The mark first, so that no reader can be using the slot when the lock becomes a shared one. */
  #takePin(): boolean {
    const { shm } = this.#files;
    if (!tryLock(shm, "exclusive", WAL_PIN_LOCK)) return false;
    setPinMark(shm);
    return tryLock(shm, "shared", WAL_PIN_LOCK);
  }

  /** Another holder has set the mark: while the lock is shared nobody can change it. */
  #sharePin(): boolean {
    const { shm } = this.#files;
    if (!tryLock(shm, "shared", WAL_PIN_LOCK)) return false;
    if (isPinMarkSet(shm)) return true;
    unlock(shm, WAL_PIN_LOCK);
    return false;
  }

  /** Gives up CKPT alone, for a successor: the pin stays, and so does the WAL. `take` takes it back. */
  releaseCheckpoint(): void {
    unlock(this.#files.shm, WAL_CKPT_LOCK);
    this.#checkpoint = false;
  }

  /** Invariant 1: all four are held, and nobody has changed the pin's mark. Throws SLU-2000. */
  assertHeld(): void {
    if (this.#shared && this.#dms && this.#checkpoint && this.#pin) return;
    throw new SluiceError("SLU-2000", `${this.#files.path}: a lock that Sluice must hold is not held`);
  }

  /** Exclusive instead of shared, for a restart of the WAL; false only while a successor shares the pin. */
  raisePin(): boolean {
    return tryLock(this.#files.shm, "exclusive", WAL_PIN_LOCK);
  }

  lowerPin(): void {
    setPinMark(this.#files.shm);
    tryLock(this.#files.shm, "shared", WAL_PIN_LOCK);
  }

  /** The WRITE lock for maintenance. False while an application, or a change on a replica, is writing. */
  tryWrite(): boolean {
    if (this.#writing) return false;
    this.#exclusive = tryLock(this.#files.shm, "exclusive", WAL_WRITE_LOCK);
    return this.#exclusive;
  }

  releaseWrite(): void {
    if (this.#closed) tryLock(this.#files.shm, "shared", WAL_WRITE_LOCK);
    else unlock(this.#files.shm, WAL_WRITE_LOCK);
    this.#exclusive = false;
    for (const resume of this.#waiting.splice(0)) resume();
  }

  /**
   * Closes the gate (protocol section 2): nobody but Sluice can commit until `openGate`, and for as long as any process
   * shares these descriptors. False while an application is writing.
   */
  closeGate(): boolean {
    this.#closed ||= tryLock(this.#files.shm, "shared", WAL_WRITE_LOCK);
    return this.#closed;
  }

  openGate(): void {
    if (this.#writing)
      throw new SluiceError("SLU-2000", `${this.#files.path}: the gate opens in the middle of a change`);
    this.#closed = false;
    if (!this.#exclusive) unlock(this.#files.shm, WAL_WRITE_LOCK);
  }

  get isGateClosed(): boolean {
    return this.#closed;
  }

  /** Behind a closed gate: the end of the WAL is the caller's until `endChange`. Waits for maintenance under WRITE. */
  async beginChange(): Promise<void> {
    if (!this.#closed || this.#writing) {
      throw new SluiceError(
        "SLU-2000",
        `${this.#files.path}: a change while ${this.#writing ? "another is written" : "the gate is open"}`,
      );
    }
    while (this.#exclusive) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (this.#writing) throw new SluiceError("SLU-2000", `${this.#files.path}: two changes at once`);
    this.#writing = true;
  }

  endChange(): void {
    this.#writing = false;
  }

  release(): void {
    const { db, shm } = this.#files;
    unlock(shm, WAL_WRITE_LOCK);
    unlock(shm, WAL_PIN_LOCK);
    unlock(shm, WAL_CKPT_LOCK);
    unlock(shm, WAL_DMS_LOCK);
    unlock(db, SHARED_FIRST, SHARED_SIZE);
    this.#shared = this.#dms = this.#checkpoint = this.#pin = this.#closed = this.#exclusive = false;
  }
}

const word = new Uint8Array(4);

function isPinMarkSet(shm: number): boolean {
  readAt(shm, word, 4, OFFSET_PIN_MARK);
  return word.every((byte) => byte === 0xff);
}

function setPinMark(shm: number): void {
  if (isPinMarkSet(shm)) return;
  new Uint32Array(word.buffer)[0] = MARK_UNUSED;
  writeAt(shm, word, 0, 4, OFFSET_PIN_MARK);
}

function blocked(what: string, holder: LockHolder | undefined): string {
  if (holder === undefined) return what;
  if (holder.pid > 0) return `${what} by process ${holder.pid}`;
  return `${what} by another Sluice or its guardian`;
}

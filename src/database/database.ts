import path from "node:path";
import Sqlite from "better-sqlite3";
import { SluiceError } from "../errors/error.ts";
import type { Position } from "../ltx/position.ts";
import { lockHolder, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import type { Batches } from "./batches.ts";
import { Feed } from "./commit-feed.ts";
import type { DatabaseSnapshot, FrozenBatch, LoggedDatabase, LogState } from "./contract.ts";
import type { DatabaseEvent } from "./events.ts";
import { fileMark, isSameMark } from "./files.ts";
import { Followed } from "./followed.ts";
import type { LiveWal } from "./live-wal.ts";
import { type Passed, passCheckpoint } from "./passing.ts";
import type { ResyncSource } from "./replication.ts";
import { resyncSource } from "./resync-source.ts";
import { toBatches } from "./roles.ts";
import { Snapshots } from "./snapshots.ts";
import { type DatabaseOptions, start, type Started } from "./starting.ts";
import type { StateFile } from "./state.ts";
import type { WorkQueue } from "./work-queue.ts";

export type { DatabaseOptions } from "./starting.ts";

/** Where Sluice keeps what belongs to the database at `file`: `.NAME-sluice` beside it. */
export function stateDirOf(file: string): string {
  return path.join(path.dirname(file), `.${path.basename(file)}-sluice`);
}

/**
 * One database on this node: opened beside the applications that use it, captured, sealed into batches, merged, closed.
 * Ties the WAL (`LiveWal`) to what is sealed and sent (`Batches`).
 *
 * - **starting**: inside `open`. The start-up capture and the persisted state are put together (`recover`); after a
 *   power loss, lost commits are put back and opening begins again.
 * - **open**: commits are captured, named and, once `begin` was called, sealed. Asynchronous work is done one by one.
 * - **lost**: told by the event `lost`. Every capture throws the reason; only `close` makes sense.
 * - **closed**: by `close`. All methods but getters throw SLU-2013.
 */
export class Database implements LoggedDatabase {
  readonly path: string;
  readonly stateDir: string;
  readonly pageSize: number;
  onFrozen: (batch: FrozenBatch) => void = () => undefined;
  onCaptured: (position: Position) => void = () => undefined;
  readonly #parts: Started;
  readonly #wal: LiveWal;
  readonly #batches: Batches;
  readonly #file: StateFile;
  readonly #snapshots: Snapshots;
  readonly #queue: WorkQueue;
  readonly #onEvent: (event: DatabaseEvent) => void;
  #feed: Feed | undefined;
  #closed = false;

  /**
   * Opens the database at `file`, which must exist: SLU-2005 tells that it's not there yet. Further SLU-2001 to SLU-2010
   * and SLU-2014; after an error nothing is held.
   */
  static async open(file: string, options: DatabaseOptions = {}): Promise<Database> {
    const absolute = path.resolve(file);
    const parts = await start(absolute, stateDirOf(absolute), options, options.gate ?? "open");
    const database = await Database.of(parts);
    parts.wal.start(parts.durable);
    return database;
  }

  /** Goes on with a database that is open; where it followed a primary, its gate is closed. */
  static async of(parts: Started): Promise<Database> {
    const { books } = parts;
    return new Database(parts, books instanceof Followed ? await toBatches(parts, books) : books);
  }

  private constructor(parts: Started, batches: Batches) {
    const { wal } = parts;
    this.#parts = parts;
    this.path = wal.files.path;
    this.stateDir = parts.file.dir;
    this.pageSize = wal.pageSize;
    this.#wal = wal;
    this.#batches = batches;
    this.#file = parts.file;
    this.#queue = parts.queue;
    this.#onEvent = parts.onEvent;
    this.#snapshots = new Snapshots(wal, batches, parts.limits);
    batches.onFrozen = (batch) => this.onFrozen(batch);
    parts.owner.live(batches, () => {
      this.#snapshots.check();
      this.#feed?.moved();
      this.onCaptured(batches.position);
    });
  }

  get position(): Position {
    return this.#batches.position;
  }

  get logState(): LogState | undefined {
    return this.#batches.logState;
  }

  get frozen(): readonly FrozenBatch[] {
    return this.#batches.frozen;
  }

  /** Nothing that was captured is missing in the log; also to be asked when it's closed. */
  get isConfirmed(): boolean {
    return this.#batches.isConfirmed;
  }

  /** The last sealed state and its checksum; undefined before the first. */
  get sealed(): { readonly position: Position; readonly checksum: bigint } | undefined {
    const { sealedTxid, sealedPosition: position, sealedChecksum: checksum } = this.#batches.state;
    return sealedTxid === 0 ? undefined : { position, checksum };
  }

  /** Bytes of the WAL that are in use. */
  get walBytes(): number {
    return this.#wal.bytes;
  }

  /** Frames that are not in the database file yet. */
  get unbackfilledFrames(): number {
    return this.#wal.unbackfilled;
  }

  /** Size of the database in pages, after the last captured commit. */
  get pageCount(): number {
    return this.#wal.capture.size;
  }

  /** False where the system gave no file watch, and Sluice polls instead. */
  get isWatching(): boolean {
    return this.#wal.isWatching;
  }

  captureNow(): Position {
    this.#assertOpen();
    this.#wal.captureNow();
    return this.#batches.position;
  }

  bindLog(log: { readonly logId: string; readonly nodeId: string }): Promise<void> {
    return this.#run(() => this.#batches.bindLog(log));
  }

  confirm(txid: number): Promise<void> {
    return this.#run(() => this.#batches.confirm(txid));
  }

  freezeTakeover(options: {
    readonly txid: number;
    readonly writer: bigint;
    readonly minTimestampMs: number;
    readonly full?: boolean;
  }): Promise<FrozenBatch> {
    return this.#run(async () => {
      await this.#settle();
      return this.#batches.freezeTakeover(options);
    });
  }

  abandonTakeover(txid: number): Promise<void> {
    return this.#run(() => this.#naming(() => this.#batches.abandon(txid)));
  }

  begin(epoch: number, writer: bigint): Promise<void> {
    return this.#run(() => this.#naming(() => this.#batches.begin(epoch, writer)));
  }

  /** Commits that were captured while a takeover was not decided have their names after `work`. */
  async #naming(work: () => Promise<void>): Promise<void> {
    const before = this.position;
    await work();
    if (this.position === before) return;
    this.#feed?.moved();
    this.onCaptured(this.position);
  }

  freeze(): Promise<FrozenBatch | undefined> {
    return this.#run(async () => {
      await this.#settle();
      return this.#batches.freeze();
    });
  }

  snapshot(): Promise<DatabaseSnapshot> {
    return this.#run(async () => {
      await this.#settle();
      return this.#snapshots.take();
    });
  }

  /**
   * The commits from now on, for replicas. To be asked for after `begin`, while the gate is closed: everything captured is
   * sealed then. Throws SLU-2000 otherwise.
   */
  feed(): Feed {
    this.#assertOpen();
    if (this.#feed !== undefined) return this.#feed;
    if (!this.#batches.isSealed)
      throw new SluiceError("SLU-2000", `${this.path}: a feed behind commits that aren't sealed`);
    this.#feed = new Feed(this.#wal, () => this.position, this.#batches.sums.copy());
    this.#wal.capture.tap = this.#feed;
    return this.#feed;
  }

  /** A consistent picture for a replica that compares itself with it; bounded as `snapshot` is. */
  resyncSource(): Promise<ResyncSource> {
    return this.#run(async () => {
      await this.#settle();
      const snapshot = await this.#snapshots.take();
      const { confirmed } = this.#batches.state;
      const record = { ...confirmed, epoch: this.#batches.state.epoch };
      return resyncSource(snapshot, this.#batches.sums.words.slice(), record);
    });
  }

  /** Captures to the present end, and waits until every frame that is captured has its checksum. */
  async #settle(): Promise<void> {
    this.#wal.captureNow();
    await this.#wal.heal();
  }

  /** Who may take over behind the records that are sealed from now on (protocol section 9). */
  nameMembers(members: readonly number[]): void {
    this.#batches.nameMembers(members);
  }

  /** The members that the last confirmed record of this life names, and those of each batch that is under way. */
  get namedMembers(): readonly (readonly number[])[] {
    return this.#batches.named;
  }

  /** Lets applications write. */
  openGate(): void {
    this.#wal.locks.openGate();
  }

  /** Keeps applications from writing. False while one is in a transaction: try again. */
  closeGate(): boolean {
    return this.#wal.locks.closeGate();
  }

  get isGateClosed(): boolean {
    return this.#wal.locks.isGateClosed;
  }

  /** The process whose write transaction is under way; 0 where it can't be told. */
  get writerPid(): number {
    return lockHolder(this.#wal.files.shm, "shared", WAL_WRITE_LOCK)?.pid ?? 0;
  }

  /** The descriptors whose locks must outlive this process for as long as an application runs. */
  get descriptors(): readonly number[] {
    return [this.#wal.files.db, this.#wal.files.shm];
  }

  /**
   * This database is a `Replica`'s from now on: its gate is closed and its log writer stopped. What is committed is
   * captured first. Nothing is closed.
   */
  async handOver(): Promise<Started> {
    if (!this.isGateClosed) throw new SluiceError("SLU-2000", `${this.path} is handed over with an open gate`);
    await this.#run(() => this.#settle());
    this.#closed = true;
    this.#wal.capture.tap = undefined;
    this.#snapshots.abort("the node steps down");
    await this.#queue.idle();
    return { ...this.#parts, books: this.#batches };
  }

  /**
   * Gives it to another Sluice on this host (`passCheckpoint`). What is committed is sealed first. When it's "taken" only
   * `close` without a merge makes sense; otherwise an epoch must be begun again. Throws SLU-2008 to SLU-2010.
   */
  pass(offer: () => Promise<boolean>): Promise<Passed> {
    return this.#run(async () => {
      await this.#settle();
      if (this.#batches.canSeal) await this.#batches.freeze();
      // Whoever has it next begins an epoch, and no batch comes between.
      this.#batches.rest();
      const { outcome, heldMs } = await passCheckpoint(this.#wal, offer);
      this.#onEvent({ type: "passed", outcome, heldMs });
      return outcome;
    });
  }

  /**
   * Ends it. `merge` (the default): what is committed is sealed, the WAL is brought into the database file, and when
   * no application has it open, WAL and wal-index go; the next start then needs no look at the pages. It is left
   * out where nothing can be sealed, or where others keep the database busy. Batches that were not sent stay frozen.
   * Never rejects for what the disk does: that is told as an event `failed`.
   */
  async close(options: { readonly merge?: boolean; readonly patienceMs?: number } = {}): Promise<void> {
    if (this.#closed) return this.#queue.idle();
    this.#closed = true;
    this.#wal.stop();
    this.#snapshots.abort("the database is being closed");
    await this.#queue.run(async () => {
      const { merge = true, patienceMs = 2_000 } = options;
      try {
        if (merge && this.#wal.capture.lost === undefined) {
          this.#wal.captureNow();
          if (this.#batches.canSeal) await this.#merge(patienceMs);
        }
      } catch (error) {
        this.#onEvent({ type: "failed", error: error instanceof Error ? error : new Error(String(error)) });
      } finally {
        this.#wal.release();
        this.#file.close();
      }
    });
  }

  /** Before the locks go, the WAL is empty: nothing in it can come to life when SQLite opens it alone. */
  async #merge(patienceMs: number): Promise<void> {
    const mark = await this.#wal.finish(patienceMs);
    if (mark === undefined) return;
    this.#wal.release();
    // The last close of a database removes WAL and wal-index (wal.c, sqlite3WalClose).
    const connection = new Sqlite(this.path, { fileMustExist: true, timeout: 0 });
    try {
      connection.prepare("select count(*) from sqlite_schema").get();
    } finally {
      connection.close();
    }
    const now = fileMark(this.path);
    if (now !== undefined && isSameMark(now, mark)) await this.#batches.closed(mark);
  }

  #run<T>(work: () => Promise<T>): Promise<T> {
    this.#assertOpen();
    return this.#queue.run(work);
  }

  #assertOpen(): void {
    if (this.#closed) throw new SluiceError("SLU-2013", `${this.path} is closed`);
  }
}

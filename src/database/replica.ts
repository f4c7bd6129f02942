import path from "node:path";
import Sqlite from "better-sqlite3";
import { SluiceError } from "../errors/error.ts";
import { lockPage } from "../ltx/header.ts";
import { formatPosition, NOTHING, type Position } from "../ltx/position.ts";
import { bootId } from "./boot.ts";
import type { LogState } from "./contract.ts";
import { stateDirOf } from "./database.ts";
import { fileMark, isSameMark } from "./files.ts";
import { Followed } from "./followed.ts";
import { WalChange } from "./incoming-change.ts";
import type { LiveWal } from "./live-wal.ts";
import type { ChangeHead, IncomingChange, RecordName, ReplicaDatabase, ResyncSource } from "./replication.ts";
import { pictureOf } from "./replica-picture.ts";
import { toFollowed } from "./roles.ts";
import { quarantinePages } from "./quarantine.ts";
import { type DatabaseOptions, start, type Started } from "./starting.ts";
import { saveSums } from "./sums-file.ts";
import { WalWriter } from "./wal-writer.ts";

/** Of a larger database only the pages that differ are kept when more isn't known. */
const WHOLE_BYTES_MAX = 64 * 1024 * 1024;

/**
 * One database on a replica (protocol section 5): its gate is closed, Sluice is the only writer of its WAL, and readers
 * in other processes see each change as if SQLite had committed it.
 *
 * - **open**: from `open`, or after a primary stepped down (`of`). Changes come one at a time.
 * - **lost**: told by the event `lost`. Only `close` makes sense.
 * - **handed over**: to a `Database` by `handOver`; the gate is still closed.
 * - **closed**: by `close`.
 */
export class Replica implements ReplicaDatabase {
  readonly path: string;
  readonly stateDir: string;
  readonly #parts: Started;
  readonly #wal: LiveWal;
  readonly #followed: Followed;
  readonly #writer: WalWriter;
  /** Called after each change, with the new position; must return at once and not throw. */
  onApplied: (position: Position) => void = () => undefined;
  /** Called after a record was placed; the same. */
  onPlaced: (record: RecordName) => void = () => undefined;
  readonly #ending = new AbortController();
  #closed = false;

  /**
   * Opens the database at `file`, in whichever role it was left, with its gate closed. SLU-2003 when an application does
   * not stop to write; further SLU-2001 to SLU-2010 and SLU-2014. After an error nothing is held.
   */
  static async open(file: string, options: DatabaseOptions = {}): Promise<Replica> {
    const absolute = path.resolve(file);
    const parts = await start(absolute, stateDirOf(absolute), options, "closed");
    const replica = await Replica.of(parts);
    parts.wal.start(parts.durable);
    return replica;
  }

  /** Goes on with a database that is open, its gate closed and everything captured. */
  static async of(parts: Started): Promise<Replica> {
    const { wal, books, file } = parts;
    const followed = books instanceof Followed ? books : await toFollowed(parts, books);
    if (file.state?.following !== true || file.state.clean !== undefined) await followed.save();
    return new Replica({ ...parts, books: followed }, followed, new WalWriter(wal.files, wal.pageSize));
  }

  private constructor(parts: Started, followed: Followed, writer: WalWriter) {
    const { wal } = parts;
    this.path = wal.files.path;
    this.stateDir = parts.file.dir;
    this.#parts = parts;
    this.#wal = wal;
    this.#followed = followed;
    this.#writer = writer;
    parts.owner.live(followed, () => undefined);
    wal.sealed(wal.capture.frame);
  }

  get pageSize(): number {
    return this.#wal.pageSize;
  }

  get pageCount(): number {
    return this.#followed.sums.count;
  }

  get position(): Position | undefined {
    return this.#followed.isKnown ? this.#followed.position : undefined;
  }

  get checksum(): bigint {
    return this.#followed.sums.checksum;
  }

  get sums(): Int32Array {
    return this.#followed.sums.words;
  }

  get record(): RecordName | undefined {
    return this.#followed.record;
  }

  get epoch(): number {
    return this.#followed.epoch;
  }

  /** Whether this node began the epoch of this writer, in the present boot of its machine. */
  wrote(writer: bigint): boolean {
    const { state } = this.#parts.file;
    return state?.writer === writer && state.bootId === bootId();
  }

  get logState(): LogState | undefined {
    const { state } = this.#parts.file;
    const record = this.#followed.record;
    if (state === undefined) return undefined;
    return { logId: state.logId, nodeId: state.nodeId, confirmed: record ?? state.confirmed };
  }

  /** Bytes of the WAL that are in use. */
  get walBytes(): number {
    return this.#wal.bytes;
  }

  /** The descriptors whose locks must outlive this process for as long as an application runs. */
  get descriptors(): readonly number[] {
    return [this.#wal.files.db, this.#wal.files.shm];
  }

  async change(head: ChangeHead): Promise<IncomingChange> {
    this.#assertOpen();
    if (head.before !== this.position) {
      const here = this.position === undefined ? "an unknown position" : formatPosition(this.position);
      throw new SluiceError("SLU-2000", `${this.path}: a change on ${formatPosition(head.before)}, at ${here}`);
    }
    return this.#begin(head, {});
  }

  async resync(
    head: ChangeHead,
    record: RecordName,
    options: { readonly quarantine: boolean },
  ): Promise<IncomingChange> {
    this.#assertOpen();
    const beforePublish = async (pages: Uint32Array): Promise<void> => {
      if (options.quarantine) await this.#quarantine(pages, head.pageCount);
    };
    const afterPublish = (): Promise<void> => this.#followed.resynced(record, head.position === record.position);
    return this.#begin(head, { beforePublish, afterPublish });
  }

  async sealed(record: RecordName): Promise<void> {
    this.#assertOpen();
    await this.#followed.place(record);
    this.onPlaced(record);
  }

  /** Whether this database was once in the state of this name, with this content, as far as it remembers. */
  had(position: Position, checksum: bigint): boolean {
    if (position === this.position) return checksum === this.checksum;
    return this.#followed.journal.has(position, checksum);
  }

  /**
   * A consistent picture, for a node that takes over and asks what others have. Ends with the replica, or after half a
   * minute; backfills wait for it, changes don't. Throws SLU-2012 where its state has no name.
   */
  resyncSource(): Promise<ResyncSource> {
    this.#assertOpen();
    return pictureOf(this.#wal, this.#followed, this.#ending.signal);
  }

  async #begin(
    head: ChangeHead,
    steps: { beforePublish?: (pages: Uint32Array) => Promise<void>; afterPublish?: () => Promise<void> },
  ): Promise<IncomingChange> {
    const { locks } = this.#wal;
    await locks.beginChange();
    try {
      this.#wal.captureNow();
      await this.#writer.prepare(this.#wal.capture.header);
      return new WalChange({
        head,
        wal: this.#wal,
        locks,
        followed: this.#followed,
        writer: this.#writer,
        ...(steps.beforePublish && { beforePublish: steps.beforePublish }),
        afterPublish: async () => {
          await steps.afterPublish?.();
          this.onApplied(head.position);
        },
      });
    } catch (error) {
      locks.endChange();
      throw error;
    }
  }

  /**
   * The own version of pages that are about to leave the history: of those that come, and of those that are cut off. With
   * what else is on top of the last record they are the whole way from there to the state that is left, though some of it
   * may be in the history: it goes on from a later state than that record's. After a restart it isn't known what that is;
   * a database that isn't large is then kept whole.
   */
  async #quarantine(pages: Uint32Array, newSize: number): Promise<void> {
    const wal = this.#wal;
    const size = this.pageCount;
    const all = new Set(pages);
    for (let page = newSize + 1; page <= size; page++) if (page !== lockPage(wal.pageSize)) all.add(page);
    if (all.size === 0) return;
    const { changed } = this.#followed;
    const isWhole = changed.isEverything && size * wal.pageSize <= WHOLE_BYTES_MAX;
    const onTop = isWhole ? Array.from({ length: size }, (_, i) => i + 1) : changed.numbers;
    for (const page of onTop) if (page <= size && page !== lockPage(wal.pageSize)) all.add(page);
    const own = [...all].filter((page) => page <= size).sort((a, b) => a - b);
    if (own.length === 0) return;
    const resume = wal.pause();
    try {
      const view = wal.view(wal.capture.frame, size);
      const names = {
        common: this.record?.position ?? NOTHING,
        own: this.#followed.position,
        checksum: this.checksum,
        txid: (this.record?.txid ?? 0) + 1,
        epoch: this.epoch,
      };
      const file = await quarantinePages(this.stateDir, names, view, own);
      this.#parts.onEvent({ type: "quarantined", path: file, pages: own.length });
    } finally {
      resume();
    }
  }

  /** This database is a `Database`'s from now on; the gate stays as it is, and nothing is closed. */
  handOver(): Started {
    this.#assertOpen();
    this.#closed = true;
    this.#ending.abort();
    return this.#parts;
  }

  /**
   * Ends it. `merge` (the default): the WAL is brought into the database file, and when no application has it open, WAL and
   * wal-index go; the next start then needs no look at the pages. Never rejects for what the disk does.
   */
  async close(options: { readonly merge?: boolean; readonly patienceMs?: number } = {}): Promise<void> {
    if (this.#closed) return this.#parts.queue.idle();
    this.#closed = true;
    this.#ending.abort();
    const { queue, onEvent, file } = this.#parts;
    this.#wal.stop();
    await queue.run(async () => {
      const { merge = true, patienceMs = 2_000 } = options;
      try {
        if (merge && this.#wal.capture.lost === undefined) await this.#merge(patienceMs);
      } catch (error) {
        onEvent({ type: "failed", error: error instanceof Error ? error : new Error(String(error)) });
      } finally {
        this.#wal.release();
        this.#followed.journal.close();
        file.close();
      }
    });
  }

  async #merge(patienceMs: number): Promise<void> {
    const mark = await this.#wal.finish(patienceMs);
    await this.#followed.save();
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
    const { file } = this.#parts;
    if (now === undefined || !isSameMark(now, mark) || file.state === undefined) return;
    await saveSums(this.stateDir, this.record?.txid ?? 0, this.#followed.sums);
    await file.write({ ...file.state, clean: mark });
  }

  #assertOpen(): void {
    if (this.#closed) throw new SluiceError("SLU-2013", `${this.path} is closed`);
  }
}

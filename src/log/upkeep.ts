import path from "node:path";
import type { FrozenBatch, LoggedDatabase } from "../database/contract.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import type { Position } from "../ltx/position.ts";
import { Compactor, SourceDamaged, SourceGone } from "./compactor.ts";
import { throwIfStopped, untilAnswered, UPKEEP_TRIES_MAX, type LogContext } from "./context.ts";
import { formatTxid, SNAPSHOT_LEVEL } from "./layout.ts";
import { filesOfStates, keptStates } from "./kept-states.ts";
import { intake, planLevel, windowEnd, type Level } from "./levels.ts";
import { listLog, LogListing, type LogFile } from "./listing.ts";
import type { LtxWork } from "./ltx-work.ts";
import { readRecord } from "./record-access.ts";
import { planRetention, type RetentionLimits } from "./retention.ts";
import { Snapshots } from "./snapshots.ts";
import { ownRecord } from "./takeover.ts";
import type { WorkSlots } from "./work-slots.ts";

export interface UpkeepOptions {
  readonly context: LogContext;
  readonly database: LoggedDatabase;
  readonly ltx: LtxWork;
  readonly slots: WorkSlots;
  /** Levels 1, 2, …; at most 8. */
  readonly levels: readonly Level[];
  readonly snapshotIntervalMs: number;
  readonly retention: RetentionLimits;
  /** The log as the takeover left it. */
  readonly listing: LogListing;
  /** First slot that no file covers: a snapshot is written at once. */
  readonly gap: number | undefined;
  readonly waitFor: (position: Position, signal: AbortSignal) => Promise<void>;
}

/** What is known of a file beyond its name. */
interface Known {
  readonly timestampMs: number;
  readonly isTakeover: boolean;
  /** Of a record that was confirmed in this life. */
  readonly position?: Position;
}

/** After the end of a window, so that its last record is confirmed; and up to this much more, at random. */
const GRACE_MS = 2_000;
const JITTER_MS = 3_000;
const RETRY_FIRST_MS = 10_000;
const RETRY_LAST_MS = 10 * 60_000;
/** Headers of old level-0 objects that one round reads; the rest is left to the next. */
const HEADERS_PER_ROUND = 100;
const HEADERS_AT_ONCE = 8;
/** The states to be kept are looked up at most this often, and twice while a record is young. */
const KEPT_EVERY_MS = 2 * 60_000;
/** Keys of one delete request (S3's DeleteObjects takes 1,000). */
const DELETE_BATCH = 500;

/**
 * Compaction, snapshots and retention of one log, on behalf of its primary.
 *
 * - **idle**: nothing is confirmed that is not compacted, and no snapshot is due. No timer. Left by a confirmed record.
 * - **waiting**: one timer for the earliest of: the end of a window with something in it, the next snapshot, a retry.
 * - **working**: a snapshot if one is due; then each level upwards; then, if any of them made a file, retention. One
 *   job at a time, and few in the whole process (`WorkSlots`).
 *
 * The listing is known from the takeover and from own writes; it's read again only when a source turns out to be gone.
 * If that leaves slots that nothing covers, the log has a hole: alarm (SLU-4110), and a snapshot at once.
 */
export class Upkeep {
  readonly #options: UpkeepOptions;
  readonly #compactor: Compactor;
  readonly #snapshots: Snapshots;
  readonly #abort = new AbortController();
  readonly #known = new Map<string, Known>();
  readonly #localPaths = new Map<string, string>();
  #listing: LogListing;
  #cancelTimer: (() => void) | undefined;
  #timerAtMs = Infinity;
  #running: Promise<void> | undefined;
  #hole: { readonly bridged: Promise<void>; readonly close: () => void } | undefined;
  /** Position of the newest snapshot, or of the state that is known to be equal to it. */
  #snapshotPosition: Position | undefined;
  /** A snapshot is needed before anything else, to bridge files that are gone. */
  #wantsSnapshot = false;
  /** … and because of files that are there but damaged: none up to that snapshot is a source any more. */
  #isDamaged = false;
  #skippedTxid = 0;
  #failures = 0;
  #retryAtMs = 0;
  /** States that quarantines build on, and when they were looked up. */
  #kept: readonly number[] = [];
  #keptAtMs = -Infinity;

  constructor(options: UpkeepOptions) {
    const { context, database, levels, ltx, waitFor } = options;
    if (levels.length >= SNAPSHOT_LEVEL) throw new SluiceError("SLU-4000", `${levels.length} compaction levels`);
    this.#options = options;
    this.#listing = options.listing;
    const workDir = path.join(database.stateDir, "compaction");
    const localPath = (source: LogFile): string | undefined => this.#localPaths.get(source.key);
    this.#compactor = new Compactor({ context, workDir, ltx, localPath });
    const confirmedPosition = (txid: number): Position | undefined =>
      this.#known.get(context.layout.slotKey(txid))?.position;
    this.#snapshots = new Snapshots({ context, database, ltx, waitFor, confirmedPosition });
  }

  start(): void {
    if (this.#options.gap !== undefined) this.#alarm(this.#options.gap);
    this.#arm();
  }

  /** Resolves when no hole is open: what is confirmed can be restored. Throws SLU-4109 when this stops before. */
  async bridged(): Promise<void> {
    while (this.#hole !== undefined) {
      await this.#hole.bridged;
      throwIfStopped(this.#options.context, this.#abort.signal);
    }
  }

  /** Takes note of a record that was just confirmed. */
  confirmed(batch: FrozenBatch): void {
    const file = ownRecord(this.#options.context, batch);
    this.#listing.add(file);
    const { timestampMs, position } = batch;
    this.#known.set(file.key, { timestampMs, isTakeover: batch.epoch === batch.txid, position });
    this.#localPaths.set(file.key, batch.path);
    if (this.#running === undefined) this.#armFor(this.#dueMs(batch.timestampMs));
  }

  /** Breaks off what is under way; resolves when nothing runs any more. */
  async stop(): Promise<void> {
    this.#abort.abort();
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#hole?.close();
    await this.#running;
  }

  /** When there is something to do next; `Infinity` for never. `newMs`: time of a record that just came. */
  #dueMs(newMs?: number): number {
    const { levels } = this.#options;
    let dueMs = this.#snapshotDueMs();
    if (newMs !== undefined) return Math.min(dueMs, this.#timerAtMs, this.#windowDueMs(newMs, levels[0]));
    for (const [index, level] of levels.entries()) {
      const found = intake(this.#listing, index + 1, this.#skippedTxid);
      const first = found.kind === "sources" ? found.sources[0] : undefined;
      if (found.kind === "hole") return this.#retryAtMs;
      if (first !== undefined) dueMs = Math.min(dueMs, this.#windowDueMs(this.#timeOf(first), level));
    }
    return dueMs;
  }

  #windowDueMs(timeMs: number, level: Level | undefined): number {
    return level === undefined ? Infinity : windowEnd(timeMs, level.intervalMs) + GRACE_MS;
  }

  #snapshotDueMs(): number {
    if (this.#wantsSnapshot) return 0;
    const newest = this.#listing.level(SNAPSHOT_LEVEL).at(-1);
    if (newest === undefined) return 0;
    if (this.#options.database.logState?.confirmed.position === this.#snapshotPosition) return Infinity;
    return newest.modifiedMs + this.#options.snapshotIntervalMs;
  }

  #arm(): void {
    if (!this.#abort.signal.aborted) this.#armFor(this.#dueMs());
  }

  #armFor(dueMs: number): void {
    const { clock, random } = this.#options.context;
    const atMs = dueMs === 0 ? this.#retryAtMs : Math.max(dueMs, this.#retryAtMs);
    if (this.#abort.signal.aborted || atMs >= this.#timerAtMs || dueMs === Infinity) return;
    this.#cancelTimer?.();
    this.#timerAtMs = atMs;
    const delayMs = Math.max(0, atMs - clock.now()) + (dueMs === 0 ? 0 : random() * JITTER_MS);
    this.#cancelTimer = clock.schedule(delayMs, () => {
      this.#cancelTimer = undefined;
      this.#timerAtMs = Infinity;
      this.#running ??= this.#run().finally(() => {
        this.#running = undefined;
        this.#arm();
      });
    });
  }

  async #run(): Promise<void> {
    const { context, slots } = this.#options;
    const { signal } = this.#abort;
    try {
      await slots.run(signal, () => this.#round(signal));
      this.#failures = 0;
      this.#retryAtMs = 0;
    } catch (error) {
      if (signal.aborted || isSluiceError(error, "SLU-4109")) return;
      this.#failures++;
      const delayMs = Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** Math.min(this.#failures - 1, 10));
      const nowMs = context.clock.now();
      this.#retryAtMs = nowMs + delayMs;
      context.onEvent({
        type: "retrying",
        step: "upkeep",
        attempt: this.#failures,
        sinceMs: nowMs,
        delayMs,
        cause: error,
      });
    }
  }

  async #round(signal: AbortSignal): Promise<void> {
    const { context, levels } = this.#options;
    let made = false;
    if (context.clock.now() >= this.#snapshotDueMs()) made = await this.#snapshot(signal);
    try {
      for (const [index, { intervalMs }] of levels.entries()) {
        made = (await this.#compact(index + 1, intervalMs, signal)) || made;
      }
    } catch (error) {
      if (error instanceof SourceDamaged) {
        context.onEvent({ type: "alarm", error });
        this.#wantsSnapshot = true;
        this.#isDamaged = true;
        return;
      }
      if (!(error instanceof SourceGone)) throw error;
      await this.#relist(signal);
      // A hole is bridged at once; a file that is listed but can't be read is tried again later.
      if (!this.#wantsSnapshot) throw error;
    }
    if (made) await this.#retain(signal);
  }

  /** Whether a snapshot was written. */
  async #snapshot(signal: AbortSignal): Promise<boolean> {
    const newest = this.#listing.level(SNAPSHOT_LEVEL).at(-1);
    if (newest !== undefined && this.#snapshotPosition === undefined && !this.#wantsSnapshot) {
      const { position } = await this.#read(newest, signal);
      this.#snapshotPosition = position;
      if (this.#snapshotDueMs() === Infinity) return false;
    }
    const file = await this.#snapshots.write(signal);
    if (file === undefined) throw new SluiceError("SLU-4112", `${this.#options.context.url}: snapshot given up`);
    this.#listing.add(file);
    this.#known.set(file.key, { timestampMs: file.timestampMs, isTakeover: false });
    this.#snapshotPosition = file.position;
    this.#wantsSnapshot = false;
    if (this.#isDamaged) this.#skippedTxid = file.maxTxid;
    this.#isDamaged = false;
    if (this.#listing.firstGap() === undefined) {
      this.#hole?.close();
      this.#hole = undefined;
    }
    return true;
  }

  /** Makes what is due on one level; whether that was anything. */
  async #compact(level: number, intervalMs: number, signal: AbortSignal): Promise<boolean> {
    const { context } = this.#options;
    const found = intake(this.#listing, level, this.#skippedTxid);
    if (found.kind === "hole") {
      await this.#relist(signal);
      // Covered by other levels, perhaps; but this one has nothing to go on from without a snapshot.
      this.#wantsSnapshot = intake(this.#listing, level, this.#skippedTxid).kind === "hole";
      return false;
    }
    for (const source of found.sources) {
      if (!this.#known.has(source.key)) await this.#read(source, signal);
    }
    const nowMs = context.clock.now();
    const plans = planLevel(level, intervalMs, found.sources, (file) => this.#timeOf(file), nowMs - GRACE_MS);
    for (const plan of plans) {
      const file = await this.#compactor.compact(plan, signal);
      this.#listing.add(file);
      this.#known.set(file.key, { timestampMs: this.#timeOf(plan.sources.at(-1)!), isTakeover: false });
      for (const source of plan.sources) this.#localPaths.delete(source.key);
    }
    return plans.length > 0;
  }

  async #retain(signal: AbortSignal): Promise<void> {
    const { context, retention } = this.#options;
    let kept: ReadonlySet<string> = new Set();
    const plan = (): ReturnType<typeof planRetention> =>
      planRetention(this.#listing, (file) => this.#known.get(file.key), retention, context.clock.now(), kept);
    const first = plan();
    if (first.deletable.length + first.unread.length === 0) return;
    kept = filesOfStates(this.#listing.files, await this.#keptStates(signal));
    const unread = plan().unread.slice(0, HEADERS_PER_ROUND);
    for (let start = 0; start < unread.length; start += HEADERS_AT_ONCE) {
      await Promise.all(unread.slice(start, start + HEADERS_AT_ONCE).map((file) => this.#read(file, signal)));
    }
    const { deletable } = plan();
    for (let start = 0; start < deletable.length; start += DELETE_BATCH) {
      const files = deletable.slice(start, start + DELETE_BATCH);
      const keys = files.map((file) => file.key);
      await this.#ask("delete old files", signal, () => context.store.delete(keys, { signal }));
      for (const file of files) this.#forget(file);
    }
    for (let level = 0; level <= SNAPSHOT_LEVEL; level++) {
      const files = deletable.filter((file) => file.level === level);
      if (files.length === 0) continue;
      const sizeBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
      context.onEvent({ type: "deleted", level, count: files.length, sizeBytes });
    }
  }

  async #keptStates(signal: AbortSignal): Promise<readonly number[]> {
    const { context, retention } = this.#options;
    const nowMs = context.clock.now();
    if (nowMs - this.#keptAtMs >= Math.min(KEPT_EVERY_MS, retention.l0RetentionMs / 2)) {
      this.#kept = await this.#ask("list what must be kept", signal, () => keptStates(context, signal));
      this.#keptAtMs = nowMs;
    }
    return this.#kept;
  }

  #forget(file: LogFile): void {
    this.#listing.remove(file);
    this.#known.delete(file.key);
    this.#localPaths.delete(file.key);
  }

  /** Looks at the store again, after something was not as expected there. */
  async #relist(signal: AbortSignal): Promise<void> {
    const { context } = this.#options;
    const files = await this.#ask("list the log", signal, () => listLog(context.store, context.layout, { signal }));
    this.#listing = new LogListing(files);
    const gap = this.#listing.firstGap();
    if (gap !== undefined) this.#alarm(gap);
  }

  #alarm(gap: number): void {
    const { context } = this.#options;
    this.#wantsSnapshot = true;
    if (this.#hole !== undefined) return;
    let close = (): void => undefined;
    const bridged = new Promise<void>((resolve) => (close = resolve));
    this.#hole = { bridged, close };
    const message = `${context.url}: TXID ${formatTxid(gap)} is in no file`;
    context.onEvent({ type: "alarm", error: new SluiceError("SLU-4110", message) });
  }

  /** Header time of a file; until that was read, when the store says it was written. */
  #timeOf(file: LogFile): number {
    return this.#known.get(file.key)?.timestampMs ?? file.modifiedMs;
  }

  #ask<T>(step: string, signal: AbortSignal, run: () => Promise<T>): Promise<T> {
    return untilAnswered(this.#options.context, step, signal, run, UPKEEP_TRIES_MAX);
  }

  async #read(file: LogFile, signal: AbortSignal): Promise<{ readonly position: Position }> {
    const { context } = this.#options;
    const record = await this.#ask(`read ${file.key}`, signal, () =>
      readRecord(context, file, signal).catch((error: unknown) => {
        if (isSluiceError(error, "SLU-3404")) throw new SourceGone(file);
        throw error;
      }),
    );
    const isTakeover = file.level === 0 && record.epoch === record.maxTxid;
    this.#known.set(file.key, { timestampMs: record.timestampMs, isTakeover });
    return record;
  }
}

import { EventEmitter } from "node:events";
import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Database, type DatabaseOptions } from "../database/database.ts";
import type { DatabaseEvent } from "../database/events.ts";
import { isSluiceError, type SluiceError } from "../errors/error.ts";
import { logContext, type LogEvent } from "../log/context.ts";
import { ltxJobs } from "../log/ltx-jobs.ts";
import { LogWriter } from "../log/log-writer.ts";
import type { RetentionLimits } from "../log/retention.ts";
import type { WorkSlots } from "../log/work-slots.ts";
import { formatPosition, type Position } from "../ltx/position.ts";
import type { ObjectStore } from "../store/store.ts";
import { isThere, newNodeId, quarantineFile, restoreMissing } from "./restore-missing.ts";
import type { DatabaseState, DatabaseStatus } from "./status.ts";

export interface ProtectedOptions {
  readonly path: string;
  readonly store: ObjectStore;
  readonly prefix: string;
  readonly syncIntervalMs: number;
  readonly levels: readonly { readonly intervalMs: number }[];
  readonly snapshotIntervalMs: number;
  readonly retention: RetentionLimits;
  readonly slots: WorkSlots;
  /** Restore a database that isn't there. Otherwise it's waited for. */
  readonly restoreMissing: boolean;
  /** Put a database that the log doesn't know into the quarantine, and restore the log's. */
  readonly adopt: boolean;
  readonly acceptRollback: boolean;
  readonly limits?: DatabaseOptions["limits"];
}

interface Events {
  state: [DatabaseState];
  database: [DatabaseEvent];
  log: [LogEvent];
  /** Commits were captured up to the position. */
  captured: [Position];
  restored: [{ readonly txid: number; readonly elapsedMs: number }];
  adopted: [string];
  /** It can't go on by itself: another writer has the log, or the log refuses this database. */
  refused: [SluiceError];
  /** Something failed and is tried again. */
  failed: [Error];
}

const POLL_MS = 250;
const RETRY_FIRST_MS = 500;
const RETRY_LAST_MS = 30_000;
/** An application may start, with its database on disk, when the store has not answered for this long. */
const STORE_PATIENCE_MS = 5_000;

/**
 * One database with its log (protocol sections 7 and 10, for a node without others). In this order:
 *
 * - **restoring**: at the start there is no file; the log's newest state is put there. An empty log leads to *waiting*.
 * - **waiting**: no file, and nothing to restore: the application will create it. Left when there is one.
 * - **opening**: locks, start-up capture, recovery of the position. A database in use, or a full disk: tried again.
 * - **taking-over**: everything is captured; the takeover record goes into the log. While the store is away this lasts.
 * - **protected**: captured and shipped. Left when the file is replaced or frames were lost: back to *opening*.
 * - **failed**: the reason is in the status. Refusals of the log end here; what may pass is tried again.
 * - **closed**: by `stop`.
 *
 * `start` resolves when an application may start: in *waiting*, *protected*, or in *taking-over* when the store doesn't
 * answer and the database was on this disk. It rejects with what keeps it from that.
 */
export class ProtectedDatabase extends EventEmitter<Events> {
  readonly path: string;
  readonly #options: ProtectedOptions;
  readonly #abort = new AbortController();
  #state: DatabaseState = "opening";
  #error: Error | undefined;
  #database: Database | undefined;
  #writer: LogWriter | undefined;
  #life: Promise<string | undefined> | undefined;
  #drain: AbortSignal | undefined;
  #hasBeenThere = false;
  #adopted = false;
  #lost = Promise.withResolvers<void>();

  constructor(options: ProtectedOptions) {
    super();
    this.path = options.path;
    this.#options = options;
  }

  async start(): Promise<void> {
    const ready = Promise.withResolvers<void>();
    this.#life = this.#live(ready);
    await ready.promise;
  }

  get state(): DatabaseState {
    return this.#state;
  }

  /** Waits until what is committed now is durable: sealed on this disk, or confirmed by the store. */
  async sync(wait: "local" | "store", signal: AbortSignal): Promise<Position> {
    while (this.#writer === undefined || this.#database === undefined) {
      signal.throwIfAborted();
      if (this.#state === "failed" && this.#error !== undefined) throw this.#error;
      await sleep(POLL_MS / 10, undefined, { signal });
    }
    const position = this.#database.captureNow();
    if (wait === "local") await this.#database.freeze();
    else await this.#writer.waitFor(position, signal);
    return position;
  }

  /**
   * Captures what is there, tries until `drain` is aborted to get it into the store, and lets go of everything. A
   * sentence says what isn't in the store.
   */
  async stop(drain: AbortSignal): Promise<string | undefined> {
    this.#drain = drain;
    this.#abort.abort();
    const missing = await this.#life;
    this.#enter("closed");
    return missing;
  }

  get status(): DatabaseStatus {
    const { store, prefix } = this.#options;
    const database = this.#database;
    const shipped = this.#writer?.status;
    const confirmed = database?.logState?.confirmed;
    return {
      path: this.path,
      store: prefix === "" ? store.url : `${store.url}/${prefix}`,
      state: this.#state,
      error: this.#error === undefined ? undefined : describe(this.#error),
      position: database && formatPosition(database.position),
      sizeBytes: statSync(this.path, { throwIfNoEntry: false })?.size,
      walBytes: database?.walBytes,
      confirmed: confirmed && {
        txid: confirmed.txid,
        position: formatPosition(confirmed.position),
        at: new Date(confirmed.timestampMs).toISOString(),
      },
      storeLagMs: shipped && (shipped.behindSinceMs === undefined ? 0 : Date.now() - shipped.behindSinceMs),
      frozen: database?.frozen.length,
    };
  }

  get database(): Database | undefined {
    return this.#database;
  }

  get writer(): LogWriter | undefined {
    return this.#writer;
  }

  get #stopped(): boolean {
    return this.#abort.signal.aborted;
  }

  #enter(state: DatabaseState, error?: Error): void {
    this.#error = error;
    if (this.#state === state) return;
    this.#state = state;
    this.emit("state", state);
  }

  /** From the start to the end; whatever may pass is tried again from the beginning. */
  async #live(ready: PromiseWithResolvers<void>): Promise<string | undefined> {
    let retryMs = RETRY_FIRST_MS;
    while (!this.#stopped) {
      try {
        await this.#bring(ready);
        await this.#open();
        await this.#takeOver(ready);
        retryMs = RETRY_FIRST_MS;
        await this.#protect(ready);
      } catch (error) {
        if (this.#stopped) break;
        const known = error instanceof Error ? error : new Error(String(error));
        await this.#close({ merge: false });
        if (this.#options.adopt && isForeign(known)) {
          this.emit("adopted", quarantineFile(this.path));
          this.#adopted = true;
          continue;
        }
        this.#enter("failed", known);
        const refused = isSluiceError(known) && isRefusal(known);
        ready.reject(known);
        if (refused) {
          this.emit("refused", known);
          return undefined;
        }
        this.emit("failed", known);
        await sleep(retryMs, undefined, { signal: this.#abort.signal }).catch(() => undefined);
        retryMs = Math.min(2 * retryMs, RETRY_LAST_MS);
      }
    }
    ready.reject(this.#abort.signal.reason as Error);
    return this.#finish();
  }

  /** Drains and closes; a sentence says what isn't in the store. */
  async #finish(): Promise<string | undefined> {
    const database = this.#database;
    const drained = (await this.#writer?.stop(this.#drain)) ?? database === undefined;
    await this.#close({ merge: true });
    if (drained || database === undefined) return undefined;
    const { logState } = database;
    const since = logState === undefined ? "of this database" : `after ${formatPosition(logState.confirmed.position)}`;
    return `${this.path}: commits ${since} are on this disk and not in the store`;
  }

  /** Until there is a file. */
  async #bring(ready: PromiseWithResolvers<void>): Promise<void> {
    if (isThere(this.path)) return;
    const { store, prefix } = this.#options;
    // A file that goes while an application runs was deleted by somebody: what comes in its place is waited for.
    const restores = !this.#hasBeenThere && (this.#options.restoreMissing || this.#options.adopt);
    if (restores || this.#adopted) {
      this.#enter("restoring");
      const restored = await restoreMissing({ path: this.path, store, prefix, signal: this.#abort.signal });
      this.#adopted = false;
      if (restored !== undefined) {
        this.emit("restored", restored);
        return;
      }
    }
    this.#enter("waiting");
    ready.resolve();
    while (!isThere(this.path)) await sleep(POLL_MS, undefined, { signal: this.#abort.signal });
  }

  async #open(): Promise<void> {
    this.#enter("opening");
    const { limits } = this.#options;
    this.#lost = Promise.withResolvers<void>();
    const onEvent = (event: DatabaseEvent): void => {
      this.emit("database", event);
      if (event.type === "lost") this.#lost.reject(event.error);
    };
    this.#lost.promise.catch(() => undefined);
    this.#database = await Database.open(this.path, { onEvent, signal: this.#abort.signal, ...(limits && { limits }) });
  }

  async #takeOver(ready: PromiseWithResolvers<void>): Promise<void> {
    this.#enter("taking-over");
    const patience = setTimeout(() => ready.resolve(), STORE_PATIENCE_MS);
    const { store, prefix, slots, syncIntervalMs, levels, snapshotIntervalMs, retention, acceptRollback } =
      this.#options;
    const database = this.#database!;
    try {
      this.#writer = await LogWriter.open(
        {
          context: logContext(store, { prefix, onEvent: (event) => this.emit("log", event) }),
          database,
          nodeId: database.logState?.nodeId || newNodeId(),
          ltx: ltxJobs,
          slots,
          syncIntervalMs,
          levels,
          snapshotIntervalMs,
          retention,
          acceptRollback,
          onEnded: (error) => this.#lost.reject(error),
        },
        this.#abort.signal,
      );
    } finally {
      clearTimeout(patience);
    }
    const shipped = database.onCaptured;
    database.onCaptured = (position) => {
      shipped(position);
      this.emit("captured", position);
    };
  }

  /** Until it's stopped, or lost. */
  async #protect(ready: PromiseWithResolvers<void>): Promise<void> {
    this.#enter("protected");
    this.#hasBeenThere = true;
    ready.resolve();
    const stopped = Promise.withResolvers<void>();
    const onAbort = (): void => stopped.resolve();
    this.#abort.signal.addEventListener("abort", onAbort, { once: true });
    if (this.#stopped) onAbort();
    try {
      await Promise.race([this.#lost.promise, stopped.promise]);
    } finally {
      this.#abort.signal.removeEventListener("abort", onAbort);
    }
  }

  async #close(options: { readonly merge: boolean }): Promise<void> {
    const writer = this.#writer;
    const database = this.#database;
    this.#writer = undefined;
    await writer?.stop();
    await database?.close(options);
    this.#database = undefined;
  }
}

/** The log says that this database may not write to it: trying again changes nothing. */
function isRefusal({ code }: SluiceError): boolean {
  return /^SLU-410[1-6]$/.test(code);
}

/** What `--adopt` is the answer to: passed by another writer, no history with the log, or another log's. */
function isForeign(error: Error): boolean {
  return ["SLU-4101", "SLU-4104", "SLU-4105"].some((code) => isSluiceError(error) && error.code === code);
}

function describe(error: Error): NonNullable<DatabaseStatus["error"]> {
  if (isSluiceError(error)) return { code: error.code, message: error.message, hint: error.hint };
  return { code: undefined, message: error.message, hint: "" };
}

import { EventEmitter, once } from "node:events";
import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Feed } from "../database/commit-feed.ts";
import { type Database, stateDirOf } from "../database/database.ts";
import type { DatabaseEvent } from "../database/events.ts";
import { QuarantineWatch } from "../database/quarantined.ts";
import type { Replica } from "../database/replica.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { logContext, type LogContext, type LogEvent, untilAnswered } from "../log/context.ts";
import { listLog } from "../log/listing.ts";
import type { LogWriter } from "../log/log-writer.ts";
import { placeLog } from "../log/place.ts";
import type { Restored } from "../log/restore.ts";
import { epochOf, formatPosition, NOTHING, type Position } from "../ltx/position.ts";
import type { ProtectedOptions } from "./database-options.ts";
import { Engine } from "./engine.ts";
import { EpochEnds } from "./epoch-ends.ts";
import { follow } from "./following.ts";
import { openWriter } from "./leading.ts";
import { assertEligible, waitReplica } from "./members.ts";
import { keepBases } from "./quarantine-keep.ts";
import { isThere, quarantineFile, restoreMissing } from "./restore-missing.ts";
import type { DatabaseState, DatabaseStatus, NodeRole } from "./status.ts";

interface Events {
  state: [DatabaseState];
  database: [DatabaseEvent];
  log: [LogEvent];
  /** Commits were captured up to the position. */
  captured: [Position];
  /** A change of the primary's, or of the log's, was applied. */
  applied: [Position];
  restored: [{ readonly txid: number; readonly elapsedMs: number }];
  adopted: [string];
  /** It can't go on by itself: another writer has the log, or the log refuses this database. */
  refused: [SluiceError];
  /** Another node writes the log: this one must step down. */
  deposed: [SluiceError];
  /** On a replica: the log has everything up to the position. */
  placed: [Position];
  /** Something failed and is tried again. */
  failed: [Error];
}

const POLL_MS = 250;
const LOG_POLL_MS = 1_000;
const RETRY_FIRST_MS = 500;
const RETRY_LAST_MS = 30_000;
/** An application may start, with its database on disk, when the store has not answered for this long. */
const STORE_PATIENCE_MS = 5_000;

/**
 * One database with its log (protocol sections 7 and 10). In this order:
 *
 * - **restoring**: at the start there is no file; the log's newest state is put there, or the primary's. An empty log
 *   leads to *waiting*.
 * - **waiting**: no file, and nothing to restore: the application will create it (on a replica: the primary will).
 * - **opening**: locks, start-up capture, recovery of the position. A database in use, or a full disk: tried again.
 * - as primary **taking-over**: everything is captured; the takeover record goes into the log. While the store is away
 *   this lasts. A node with others first places what the log has.
 * - as primary **protected**: captured and shipped. With other nodes, applications can write from `openGate` on.
 * - as replica **following**: the gate is closed; changes come from the primary, or from the log.
 * - **failed**: the reason is in the status. Refusals of the log end here; what may pass is tried again.
 * - **closed**: by `stop`.
 *
 * Left when the file is replaced or frames were lost: back to *opening*. `become` changes the role without closing
 * anything: the same descriptors, locks and WAL go on under other books.
 *
 * `start` resolves when an application may start: in *waiting* on a primary, *protected*, *following*, or in
 * *taking-over* when the store doesn't answer and the database was on this disk. It rejects with what keeps it from
 * that.
 */
export class ProtectedDatabase extends EventEmitter<Events> {
  readonly path: string;
  readonly name: string;
  readonly #options: ProtectedOptions;
  /** Where this database's epochs ended. */
  readonly ends: EpochEnds;
  readonly #abort = new AbortController();
  readonly #context: LogContext;
  readonly #quarantine: QuarantineWatch;
  /** Entries of the quarantine for which the log keeps what they build on. */
  readonly #based = new Set<string>();
  #role: NodeRole;
  /** Aborted when the role changes. */
  #turn = new AbortController();
  #reached = Promise.withResolvers<void>();
  #state: DatabaseState = "opening";
  #error: Error | undefined;
  readonly #engine: Engine;
  #writer: LogWriter | undefined;
  #feed: Feed | undefined;
  #takenOverAt: Position = NOTHING;
  #life: Promise<string | undefined> | undefined;
  #drain: AbortSignal | undefined;
  #hasBeenThere = false;
  /** What comes in this place was not there when this began, and isn't in the log yet. */
  #isAwaited = false;
  /** What its files were when the log refused it. */
  #refused: string | undefined;
  #adopted = false;

  constructor(options: ProtectedOptions) {
    super();
    this.path = options.path;
    this.name = options.name;
    this.#options = options;
    this.#quarantine = new QuarantineWatch(stateDirOf(options.path));
    this.#role = options.cluster?.role ?? "primary";
    this.#context = logContext(options.store, {
      prefix: options.prefix,
      onEvent: (event) => this.emit("log", event),
    });
    this.ends = new EpochEnds(this.#context);
    this.#engine = new Engine({
      path: options.path,
      limits: options.limits,
      cluster: options.cluster,
      signal: this.#abort.signal,
      onOpening: () => this.#enter("opening"),
      onEvent: (event) => {
        this.emit("database", event);
        if (event.type === "quarantined") this.#keepBases();
      },
    });
    this.#reached.promise.catch(() => undefined);
  }

  async start(): Promise<void> {
    const ready = Promise.withResolvers<void>();
    this.#life = this.#live(ready);
    await ready.promise;
  }

  get state(): DatabaseState {
    return this.#state;
  }

  get role(): NodeRole {
    return this.#role;
  }

  /**
   * Changes the role. As primary: resolves when the takeover is in the log, with the gate still closed. As replica: the
   * gate must be closed already; resolves when it follows. Rejects when another role is wanted first, when the database
   * is refused or stopped; until then what fails is tried again.
   */
  become(role: NodeRole): Promise<void> {
    if (this.#role !== role) {
      this.#role = role;
      this.#reached.reject(new Error(`the role has changed to ${role}`));
      this.#reached = Promise.withResolvers();
      this.#reached.promise.catch(() => undefined);
      this.#turn.abort();
      this.#turn = new AbortController();
    }
    return this.#reached.promise;
  }

  /**
   * The position now; as primary with all that is committed. `NOTHING` for a database that isn't open (yet): what is
   * committed to it has no position. Undefined where there is none, or one that was refused and has not changed since.
   */
  captureNow(): Position | undefined {
    const { database, replica } = this.#engine;
    const position = database?.captureNow() ?? replica?.position;
    if (position !== undefined) return position;
    return isThere(this.path) && this.#refused !== stampOf(this.path) ? NOTHING : undefined;
  }

  /** Waits until what is committed now is durable: sealed on this disk, or confirmed by the store. */
  async sync(wait: "local" | "replica" | "store", signal: AbortSignal): Promise<Position> {
    await this.#opened("primary", signal).catch((error: unknown) => {
      throw this.#error ?? (error as Error);
    });
    const position = this.#engine.database!.captureNow();
    if (wait === "local") await this.#engine.database!.freeze();
    else await this.waitDurable(position, wait, signal);
    return position;
  }

  /** Until the database is open in this role, as primary with the log begun. Rejects when it never will be. */
  async #opened(role: NodeRole, signal: AbortSignal): Promise<void> {
    const isOpen = (): boolean =>
      role === "primary"
        ? this.#writer !== undefined && this.#engine.database !== undefined
        : this.#engine.replica !== undefined;
    while (!isOpen()) {
      signal.throwIfAborted();
      if (isSluiceError(this.#error) && isRefusal(this.#error)) throw this.#error;
      await sleep(POLL_MS / 10, undefined, { signal });
    }
  }

  /**
   * Resolves when `position`, which this node has, is durable at `level` (protocol section 9); `NOTHING`: what is committed
   * once the database is open. Rejects with SLU-4109 when that can't be told any more (this node stopped being the primary),
   * with the reason of `signal`.
   */
  async waitDurable(position: Position, level: "replica" | "store", signal: AbortSignal): Promise<void> {
    if (position === NOTHING) {
      await this.#opened(this.#role, signal);
      const now = this.captureNow();
      if (now !== undefined && now !== NOTHING) await this.waitDurable(now, level, signal);
      return;
    }
    const [cluster, database, writer] = [this.#options.cluster, this.#engine.database, this.#writer];
    if (level === "store" || cluster === undefined || database === undefined || writer === undefined) {
      return this.waitStored(position, signal);
    }
    const { upstream, memberLagMs } = cluster;
    await waitReplica(
      {
        database,
        writer,
        source: upstream,
        name: this.name,
        lagMaxMs: memberLagMs,
        isOver: () => this.#writer !== writer,
        onOver: (listener) => {
          this.on("state", listener);
          return () => void this.off("state", listener);
        },
      },
      position,
      signal,
    );
  }

  /** Everything committed is in the log, and the last record names no member: any candidate may go on from it. */
  async drain(signal: AbortSignal): Promise<void> {
    const [database, writer] = [this.#engine.database, this.#writer];
    if (database === undefined || writer === undefined) return;
    database.nameMembers([]);
    await database.freeze();
    await writer.sync(signal);
    while (database.frozen.length > 0) await sleep(1, undefined, { signal });
  }

  /**
   * Resolves when `position`, which this node has, is in the log. Rejects with SLU-4109 when that can't be told any more
   * (this node stopped being the primary), with the reason of `signal`.
   */
  async waitStored(position: Position, signal: AbortSignal): Promise<void> {
    // Open, and not the log's writer yet: it is taking over.
    if (this.#engine.database !== undefined) await this.#opened("primary", signal);
    if (this.#writer !== undefined) return this.#writer.waitFor(position, signal);
    const stored = (): Position => this.#engine.replica?.record?.position ?? NOTHING;
    while (stored() < position) await once(this, "placed", { signal });
    const epoch = epochOf(position);
    const end = epoch === epochOf(stored()) ? undefined : await this.ends.of(epoch, signal);
    if (end !== undefined && position > end) throw new SluiceError("SLU-4109", `${this.path}: it has left the history`);
  }

  /**
   * Captures what is there, tries until `drain` is aborted to get it into the store, and lets go of everything. A
   * sentence says what isn't in the store.
   */
  async stop(drain: AbortSignal): Promise<string | undefined> {
    this.#drain = drain;
    // An application may have made the file and ended before it was looked for again.
    if (this.#isAwaited && this.#role === "primary" && isThere(this.path))
      await this.#opened("primary", drain).catch(() => undefined);
    this.#abort.abort();
    this.#turn.abort();
    const missing = await this.#life;
    this.#enter("closed");
    return missing;
  }

  get status(): DatabaseStatus {
    const { store, prefix } = this.#options;
    const database = this.#engine.database ?? this.#engine.replica;
    const shipped = this.#writer?.status;
    const confirmed = database?.logState?.confirmed;
    const position = database?.position;
    return {
      path: this.path,
      name: this.name,
      store: prefix === "" ? store.url : `${store.url}/${prefix}`,
      role: this.#role,
      state: this.#state,
      error: this.#error === undefined ? undefined : describe(this.#error),
      position: position === undefined ? undefined : formatPosition(position),
      sizeBytes: statSync(this.path, { throwIfNoEntry: false })?.size,
      walBytes: database?.walBytes,
      confirmed: confirmed && {
        txid: confirmed.txid,
        position: formatPosition(confirmed.position),
        at: new Date(confirmed.timestampMs).toISOString(),
      },
      storeLagMs: shipped && (shipped.behindSinceMs === undefined ? 0 : Date.now() - shipped.behindSinceMs),
      frozen: this.#engine.database?.frozen.length,
      quarantined: this.#quarantine.size,
    };
  }

  get database(): Database | undefined {
    return this.#engine.database;
  }

  get replica(): Replica | undefined {
    return this.#engine.replica;
  }

  /** On a replica: brings it to the end of its log. */
  async placeRecords(signal: AbortSignal): Promise<void> {
    if (this.#engine.replica !== undefined) await placeLog(this.#context, this.#engine.replica, signal);
  }

  /** Resolves when this database has no log writer, and so no waiter, any more. */
  async ended(): Promise<void> {
    while (this.#writer !== undefined && !this.#stopped) await sleep(1);
  }

  /** Lets applications write, once the takeover is in the log and this node leads. */
  openGate(): void {
    if (this.#state === "protected") this.#engine.database?.openGate();
  }

  /** The primary's commits, for its replicas; undefined while there are none to be had. */
  get feed(): Feed | undefined {
    return this.#feed;
  }

  /** The position in the takeover record with which this node began to lead. */
  get takenOverAt(): Position {
    return this.#takenOverAt;
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
    const settled = (): void => {
      retryMs = RETRY_FIRST_MS;
      this.#hasBeenThere = true;
      this.#isAwaited = false;
      this.#keepBases();
      ready.resolve();
      this.#reached.resolve();
    };
    while (!this.#stopped) {
      const turn = AbortSignal.any([this.#abort.signal, this.#turn.signal]);
      try {
        if (!this.#engine.isKept) await this.#bring(ready, turn);
        if (this.#role === "primary") await this.#lead(ready, settled, turn);
        else await this.#follow(settled, turn);
      } catch (error) {
        if (this.#stopped) break;
        const known = error instanceof Error ? error : new Error(String(error));
        if (isSluiceError(known, "SLU-8109")) {
          this.#reached.reject(known);
          await this.#keep();
          await ended(turn);
          continue;
        }
        if (turn.aborted && !isLost(known) && this.#engine.database?.isGateClosed !== false) {
          await this.#keep();
          continue;
        }
        const refused = isSluiceError(known) && isRefusal(known);
        // A replica's gate stays closed while it waits for a disk or a primary: what an application wrote would be lost.
        const adopts = isSluiceError(known, "SLU-2021") || (this.#options.adopt && isForeign(known));
        if (this.#role === "replica" && isOutside(known) && !refused) await this.#keep();
        else await this.#close({ merge: false, reopens: this.#role === "replica" && !refused && !adopts });
        if (adopts) {
          this.emit("adopted", quarantineFile(this.path));
          this.#adopted = true;
          continue;
        }
        this.#enter("failed", known);
        ready.reject(known);
        if (refused) {
          this.#refused = stampOf(this.path);
          this.#reached.reject(known);
          this.emit("refused", known);
          return undefined;
        }
        this.emit("failed", known);
        await sleep(retryMs, undefined, { signal: turn }).catch(() => undefined);
        retryMs = Math.min(2 * retryMs, RETRY_LAST_MS);
      }
    }
    this.#reached.reject(this.#abort.signal.reason as Error);
    ready.reject(this.#abort.signal.reason as Error);
    return this.#finish();
  }

  /** Drains and closes; a sentence says what isn't in the store. */
  async #finish(): Promise<string | undefined> {
    const database = this.#engine.database;
    if (this.#drain !== undefined) await this.drain(this.#drain).catch(() => undefined);
    const drained = (await this.#writer?.stop(this.#drain)) ?? database === undefined;
    await this.#close({ merge: true });
    if (database === undefined && this.#isAwaited && isThere(this.path))
      return `${this.path}: nothing of this new database is in the store`;
    if (drained || database === undefined) return undefined;
    const { logState, position } = database;
    if (logState?.confirmed.position === position) return undefined;
    const since = logState === undefined ? "of this database" : `after ${formatPosition(logState.confirmed.position)}`;
    return `${this.path}: commits ${since} are on this disk and not in the store`;
  }

  /** Until there is a file. */
  async #bring(ready: PromiseWithResolvers<void>, turn: AbortSignal): Promise<void> {
    if (isThere(this.path)) return;
    const { cluster } = this.#options;
    // A file that goes while an application runs was deleted by somebody: what comes in its place is waited for.
    const wanted = (): boolean => !this.#hasBeenThere && (this.#options.restoreMissing || this.#options.adopt);
    while (wanted() || this.#adopted || this.#role === "replica") {
      this.#enter("restoring");
      const restored = await this.#restore(turn);
      this.#adopted = false;
      if (restored !== undefined) {
        this.emit("restored", restored);
        return;
      }
      if (this.#role === "primary" || cluster === undefined) break;
      if (await cluster.upstream.seed(this.name, this.path, turn)) return;
      this.#enter("waiting");
      await sleep(POLL_MS, undefined, { signal: turn });
    }
    this.#enter("waiting");
    this.#isAwaited = true;
    ready.resolve();
    this.#reached.resolve();
    while (!isThere(this.path)) await sleep(POLL_MS, undefined, { signal: turn });
  }

  #restore(signal: AbortSignal): Promise<Restored | undefined> {
    const { store, prefix } = this.#options;
    const onQuarantined = (where: string): void =>
      void this.emit("database", { type: "quarantined", path: where, pages: undefined });
    return restoreMissing({ path: this.path, store, prefix, signal, onQuarantined });
  }

  /** As primary, until it's stopped, lost, or the role changes. */
  async #lead(ready: PromiseWithResolvers<void>, settled: () => void, turn: AbortSignal): Promise<void> {
    const { cluster } = this.#options;
    const patience = setTimeout(() => ready.resolve(), STORE_PATIENCE_MS);
    try {
      if (cluster !== undefined && this.#engine.hasHistory) {
        const replica = await this.#openReplica();
        await placeLog(this.#context, replica, turn);
        await cluster.upstream.fetchAhead(this.name, replica, turn);
        await assertEligible(this.#context, replica, cluster, turn);
        turn.throwIfAborted();
        await this.#engine.keep();
      }
      const database = await this.#engine.toDatabase();
      this.#enter("taking-over");
      // Until a takeover is decided this node takes no other role: only a stop breaks it off.
      this.#writer = await openWriter(
        this.#options,
        database,
        {
          log: (event) => this.emit("log", event),
          captured: (position) => this.emit("captured", position),
          ended: (error) => this.#engine.fail(error),
        },
        this.#abort.signal,
      );
      this.#takenOverAt = database.position;
      this.ends.note(database.position);
      if (cluster !== undefined) this.#feed = database.feed();
    } catch (error) {
      // Another node was faster: its record is placed before the next try.
      if (cluster === undefined || !isSluiceError(error, "SLU-4101") || this.#engine.database === undefined)
        throw error;
      await this.#keep();
      return;
    } finally {
      clearTimeout(patience);
    }
    this.#enter("protected");
    settled();
    await Promise.race([this.#engine.lost, ended(turn)]).catch((error: unknown) => this.#deposed(error, turn));
    if (this.#stopped) return;
    await this.#keep();
  }

  /** Another node writes the log now: with others, the node closes the gate, and this database then follows. */
  async #deposed(error: unknown, turn: AbortSignal): Promise<void> {
    if (this.#options.cluster === undefined || !isSluiceError(error, "SLU-4101")) throw error;
    this.emit("deposed", error);
    await ended(turn);
  }

  /** As replica, until it's stopped, lost, or the role changes. */
  async #follow(settled: () => void, turn: AbortSignal): Promise<void> {
    const { cluster } = this.#options;
    if (cluster === undefined) return;
    await this.#awaitLog(turn);
    const replica = await this.#openReplica();
    this.#enter("following");
    settled();
    const { upstream, storeOnly } = cluster;
    const onProblem = (error: unknown): void => {
      if (error instanceof Error) this.emit("failed", error);
    };
    const options = { name: this.name, replica, upstream, storeOnly, context: this.#context, onProblem };
    await Promise.race([this.#engine.lost, follow(options, turn)]);
    if (!this.#stopped) await this.#keep();
  }

  /** A file without history on a replica: it may become the primary's that begins the log; in another's it is foreign. */
  async #awaitLog(turn: AbortSignal): Promise<void> {
    if (this.#engine.hasHistory) return;
    // What an application made on a replica must not grow: its gate is closed meanwhile.
    await this.#engine.toDatabase();
    for (;;) {
      this.#enter("waiting");
      const files = await untilAnswered(this.#context, "list the log", turn, () =>
        listLog(this.#context.store, this.#context.layout, { signal: turn }),
      );
      if (files.length > 0) {
        throw new SluiceError(
          "SLU-4104",
          `${this.path} is on a replica, and belongs to no log; ${this.#context.url} has one`,
        );
      }
      await sleep(LOG_POLL_MS, undefined, { signal: turn });
    }
  }

  async #openReplica(): Promise<Replica> {
    const replica = await this.#engine.toReplica();
    replica.onApplied = (position) => this.emit("applied", position);
    replica.onPlaced = ({ txid, epoch, position }) => {
      if (txid === epoch) this.ends.note(position);
      this.emit("placed", position);
    };
    return replica;
  }

  /** What it can't read or say now it does at the next start. */
  #keepBases(): void {
    if (this.#quarantine.size.entries === 0) return;
    const stateDir = stateDirOf(this.path);
    keepBases(this.#context, stateDir, this.#based, this.#abort.signal).catch(() => undefined);
  }

  /** The database stays open for the next role; whoever waits for the log's word fails as unknown. */
  async #keep(): Promise<void> {
    await this.#endWriter();
    await this.#engine.keep();
  }

  async #close(options: { readonly merge: boolean; readonly reopens?: boolean }): Promise<void> {
    await this.#endWriter();
    await this.#engine.close(options);
  }

  async #endWriter(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    this.#feed = undefined;
    await writer?.stop();
  }
}

/** The files or the WAL are not what Sluice has followed: they must be opened anew. */
function isLost(error: Error): boolean {
  return ["SLU-2006", "SLU-2007", "SLU-2020"].some((code) => isSluiceError(error) && error.code === code);
}

/** The disk's fault, or another node's: the files that are open are as they were. */
function isOutside(error: Error): boolean {
  return isSluiceError(error) && /^SLU-(2008|2009|2010|8\d\d\d)$/.test(error.code);
}

/** Changes with every commit, unless the clock stands still. */
function stampOf(file: string): string {
  const stats = [file, `${file}-wal`].map((each) => statSync(each, { throwIfNoEntry: false, bigint: true }));
  return stats.map((each) => `${each?.ino} ${each?.size} ${each?.mtimeNs}`).join();
}

async function ended(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}

/** The log says that this database may not write to it, or the primary that it's another one: trying again changes nothing. */
function isRefusal({ code }: SluiceError): boolean {
  return /^SLU-(410[1-6]|8207)$/.test(code);
}

/** What `--adopt` is the answer to: passed by another writer, no history with the log, or another log's. */
function isForeign(error: Error): boolean {
  return ["SLU-4101", "SLU-4104", "SLU-4105", "SLU-8207"].some((code) => isSluiceError(error) && error.code === code);
}

function describe(error: Error): NonNullable<DatabaseStatus["error"]> {
  if (isSluiceError(error)) return { code: error.code, message: error.message, hint: error.hint };
  return { code: undefined, message: error.message, hint: "" };
}

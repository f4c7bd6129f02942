import { EventEmitter } from "node:events";
import type { Feed } from "../database/commit-feed.ts";
import { type Database, stateDirOf } from "../database/database.ts";
import { QuarantineWatch } from "../database/quarantined.ts";
import type { Replica } from "../database/replica.ts";
import { isSluiceError } from "../errors/error.ts";
import { aborted, type Clock, delay, sleep, systemClock } from "../log/clock.ts";
import { logContext, type LogContext } from "../log/context.ts";
import type { LogWriter } from "../log/log-writer.ts";
import { placeLog } from "../log/place.ts";
import { NOTHING, type Position } from "../ltx/position.ts";
import type { ProtectedEvents } from "./database-events.ts";
import type { ProtectedOptions } from "./database-options.ts";
import { isForeign, isLost, isOutside, isRefusal } from "./database-errors.ts";
import { databaseStatus } from "./database-status.ts";
import { Engine } from "./engine.ts";
import { EpochEnds } from "./epoch-ends.ts";
import { follow, untilRefused } from "./following.ts";
import { drain, openWriter, unsent } from "./leading.ts";
import { assertEligible } from "./members.ts";
import { keepBases } from "./quarantine-keep.ts";
import { isThere, quarantineFile, restoreMissing, stampOf } from "./restore-missing.ts";
import type { DatabaseState, DatabaseStatus, NodeRole } from "./status.ts";
import type { Heir } from "./succession/heir.ts";
import { Overlap } from "./succession/overlap.ts";
import type { Passable } from "./succession/succession.ts";
import { Waits } from "./waits.ts";

const POLL_MS = 250;
const RETRY_FIRST_MS = 500;
const RETRY_LAST_MS = 30_000;
/** An application may start, with its database on disk, when the store has not answered for this long. */
const STORE_PATIENCE_MS = 5_000;
/** How long the store may take for what is committed before a successor gets the database; then that sends it. */
const DRAIN_MS = 5_000;
const SETTLE_POLL_MS = 5;

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
 * - **passing**: a successor on this host has asked for it (`Succession`): nothing is sent any more, and soon the
 *   checkpoint lock is given up. Back to *protected* when it isn't taken.
 * - **succeeded**: the successor has it. Nothing is open here; questions are passed on to it. When it ends, *opening*.
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
export class ProtectedDatabase extends EventEmitter<ProtectedEvents> implements Passable {
  readonly path: string;
  readonly name: string;
  readonly #options: ProtectedOptions;
  /** Where this database's epochs ended. */
  readonly ends: EpochEnds;
  readonly #abort = new AbortController();
  readonly #clock: Clock;
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
  readonly #overlap: Overlap;
  readonly #waits: Waits;
  #writer: LogWriter | undefined;
  /** Rejects when the log is another writer's, or can't be written any more. */
  #writerEnded = Promise.withResolvers<never>();
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
    // Each who waits listens.
    this.setMaxListeners(0);
    this.path = options.path;
    this.name = options.name;
    this.#options = options;
    this.#quarantine = new QuarantineWatch(stateDirOf(options.path));
    this.#role = options.cluster?.role ?? "primary";
    this.#clock = options.clock ?? systemClock;
    this.#context = logContext(options.store, {
      prefix: options.prefix,
      clock: this.#clock,
      ...(options.random && { random: options.random }),
      onEvent: (event) => this.emit("log", event),
    });
    this.ends = new EpochEnds(this.#context);
    const { engine = (its) => new Engine(its) } = options;
    this.#engine = engine({
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
    this.#overlap = new Overlap(options.succession, this, () => ({
      writer: this.#writer,
      database: this.#engine.database,
    }));
    this.#waits = new Waits(this, options.cluster, this.#overlap, this.#clock);
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
   * The position now; as primary with all that is committed. `NOTHING` for a database that isn't open (yet), or that
   * another Sluice has: what is committed to it has no position here. Undefined where there is none, or one that was refused and has not changed since.
   */
  captureNow(): Position | undefined {
    const { database, replica } = this.#engine;
    if (this.isAway) return NOTHING;
    const position = database?.captureNow() ?? replica?.position;
    if (position !== undefined) return position;
    return isThere(this.path) && this.#refused !== stampOf(this.path) ? NOTHING : undefined;
  }

  /** Waits until what is committed now is durable: sealed on this disk, or confirmed by the store. */
  sync(wait: "local" | "replica" | "store", signal: AbortSignal): Promise<Position> {
    return this.#waits.sync(wait, signal);
  }

  /** See `Waits`. */
  waitDurable(position: Position, level: "replica" | "store", signal: AbortSignal): Promise<void> {
    return this.#waits.durable(position, level, signal);
  }

  /** The same at `store`. */
  waitStored(position: Position, signal: AbortSignal): Promise<void> {
    return this.#waits.stored(position, signal);
  }

  /** What went wrong last, while it's not over. */
  get failure(): Error | undefined {
    return this.#error;
  }

  /** Everything committed is in the log, and the last record names no member: any candidate may go on from it. */
  async drain(signal: AbortSignal): Promise<void> {
    const [database, writer] = [this.#engine.database, this.#writer];
    if (database !== undefined && writer !== undefined) await drain(database, writer, this.#clock, signal);
  }

  /** Another Sluice on this host has it, or is about to: what is captured here says nothing of what is committed. */
  get isAway(): boolean {
    if (this.#state === "passing" || this.#state === "succeeded") return true;
    return this.#overlap.isRetired && this.#writer === undefined && this.#state !== "waiting";
  }

  /** The last commit of now, named by whoever has the database. */
  positionNow(signal: AbortSignal): Promise<Position> {
    return this.#overlap.positionNow(signal);
  }

  get log(): string {
    const { store, prefix } = this.#options;
    return prefix === "" ? store.url : `${store.url}/${prefix}`;
  }

  async settled(signal: AbortSignal): Promise<void> {
    while (this.#state === "restoring" || this.#state === "opening") await delay(this.#clock, SETTLE_POLL_MS, signal);
  }

  passTo(heir: Heir): void {
    this.#overlap.ask(heir);
  }

  /**
   * Captures what is there, tries until `drain` is aborted to get it into the store, and lets go of everything. A
   * sentence says what isn't in the store.
   */
  async stop(drain: AbortSignal): Promise<string | undefined> {
    this.#drain = drain;
    // An application may have made the file and ended before it was looked for again.
    if (this.#isAwaited && this.#role === "primary" && isThere(this.path))
      await this.#waits.opened("primary", drain).catch(() => undefined);
    this.#abort.abort();
    this.#turn.abort();
    const missing = await this.#life;
    this.#enter("closed");
    return missing;
  }

  get status(): DatabaseStatus {
    const { path, name, log: store } = this;
    const [database, replica, successor] = [this.#engine.database, this.#engine.replica, this.#overlap.heir?.who];
    const about = { path, name, store, role: this.#role, state: this.#state, error: this.#error, successor };
    return databaseStatus(about, database, replica, this.#writer, this.#quarantine.size);
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
    while (this.#writer !== undefined && !this.isStopped) await delay(this.#clock, 1);
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

  get isStopped(): boolean {
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
    while (!this.isStopped) {
      const turn = AbortSignal.any([this.#abort.signal, this.#turn.signal]);
      const settled = (): void => {
        retryMs = RETRY_FIRST_MS;
        this.#hasBeenThere = true;
        this.#isAwaited = false;
        this.#keepBases();
        ready.resolve();
        // What was begun for an earlier role says nothing of the one that is wanted now.
        if (!turn.aborted) this.#reached.resolve();
      };
      try {
        if (!this.#engine.isKept) {
          if (await this.#elsewhere(settled, turn)) continue;
          await this.#bring(ready, turn);
          if (this.#overlap.asked.aborted) continue;
        }
        if (this.#role === "primary") await this.#lead(ready, settled, turn);
        else await this.#follow(settled, turn);
      } catch (error) {
        if (this.isStopped) break;
        const known = error instanceof Error ? error : new Error(String(error));
        if (isSluiceError(known, "SLU-8109")) {
          this.#reached.reject(known);
          await this.#keep();
          await aborted(turn);
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
        const wake = AbortSignal.any([turn, this.#overlap.asked]);
        await sleep(this.#clock, retryMs, wake);
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
    if (database === undefined && this.#isAwaited && !this.#overlap.isRetired && isThere(this.path))
      return `${this.path}: nothing of this new database is in the store`;
    return drained || database === undefined ? undefined : unsent(database);
  }

  /** Until there is a file. */
  async #bring(ready: PromiseWithResolvers<void>, turn: AbortSignal): Promise<void> {
    if (isThere(this.path)) return;
    const { cluster, store, prefix } = this.#options;
    const onQuarantined = (where: string): void =>
      void this.emit("database", { type: "quarantined", path: where, pages: undefined });
    // A file that goes while an application runs was deleted by somebody: what comes in its place is waited for.
    const wanted = (): boolean => !this.#hasBeenThere && (this.#options.restoreMissing || this.#options.adopt);
    while (wanted() || this.#adopted || this.#role === "replica") {
      this.#enter("restoring");
      const restored = await restoreMissing({ path: this.path, store, prefix, signal: turn, onQuarantined });
      this.#adopted = false;
      if (restored !== undefined) {
        this.emit("restored", restored);
        return;
      }
      if (this.#role === "primary" || cluster === undefined) break;
      if (await cluster.upstream.seed(this.name, this.path, turn)) return;
      this.#enter("waiting");
      await delay(this.#clock, POLL_MS, turn);
    }
    this.#enter("waiting");
    this.#isAwaited = true;
    ready.resolve();
    if (!turn.aborted) this.#reached.resolve();
    while (!isThere(this.path) && !this.#overlap.asked.aborted) await delay(this.#clock, POLL_MS, turn);
  }

  /** Nothing is open here. Another Sluice on this host wants the database, or has it: true when it had it for a while. */
  async #elsewhere(settled: () => void, turn: AbortSignal): Promise<boolean> {
    const { asking } = this.#overlap;
    if (asking === undefined) {
      const heir = await this.#overlap.find(turn);
      if (heir !== undefined) await this.#leaveTo(heir, settled, turn);
      return heir !== undefined;
    }
    const isTaken = await asking.offer();
    this.#overlap.decided();
    if (isTaken) await this.#leaveTo(asking, settled, turn);
    return true;
  }

  async #leaveTo(heir: Heir, settled: () => void, turn: AbortSignal): Promise<void> {
    const left = this.#overlap.leaveTo(heir, turn);
    this.#enter("succeeded");
    settled();
    await left;
  }

  /** As primary, until it's stopped, lost, or the role changes. */
  async #lead(ready: PromiseWithResolvers<void>, settled: () => void, turn: AbortSignal): Promise<void> {
    const { cluster } = this.#options;
    const cancelPatience = this.#clock.schedule(STORE_PATIENCE_MS, () => ready.resolve());
    try {
      if (cluster !== undefined && this.#engine.hasHistory) {
        const replica = await this.#openReplica();
        await placeLog(this.#context, replica, turn);
        await cluster.upstream.fetchAhead(this.name, replica, turn);
        await assertEligible(this.#context, replica, cluster, turn);
        turn.throwIfAborted();
        await this.#engine.keep();
      }
      const database = await this.#engine.toDatabase(this.#overlap.ancestor);
      this.#enter("taking-over");
      await this.#beginWriting(database);
    } catch (error) {
      // Another node was faster: its record is placed before the next try.
      if (cluster === undefined || !isSluiceError(error, "SLU-4101") || this.#engine.database === undefined)
        throw error;
      await this.#keep();
      return;
    } finally {
      cancelPatience();
    }
    for (;;) {
      // A takeover that was decided when another role was wanted already is an epoch without a commit.
      if (turn.aborted && !this.isStopped) return this.#keep();
      if (this.#writer !== undefined) {
        this.#enter("protected");
        settled();
      }
      const either = AbortSignal.any([turn, this.#overlap.asked]);
      const over = [this.#engine.lost, this.#writerEnded.promise, aborted(either)];
      await Promise.race(over).catch((error: unknown) => this.#deposed(error, turn));
      if (this.isStopped) return;
      const { asking } = this.#overlap;
      if (asking === undefined) return this.#keep();
      if (await this.#pass(asking)) return this.#leaveTo(asking, settled, turn);
    }
  }

  async #beginWriting(database: Database): Promise<void> {
    const ended = Promise.withResolvers<never>();
    ended.promise.catch(() => undefined);
    this.#writerEnded = ended;
    try {
      // Until a takeover is decided this node takes no other role: only a stop breaks it off, or a successor, which
      // finds the same on the disk.
      this.#writer = await openWriter(
        this.#options,
        database,
        {
          log: (event) => this.emit("log", event),
          captured: (position) => this.emit("captured", position),
          ended: (error) => ended.reject(error),
        },
        AbortSignal.any([this.#abort.signal, this.#overlap.asked]),
      );
    } catch (error) {
      if (this.isStopped || !this.#overlap.asked.aborted || !isSluiceError(error, "SLU-4109")) throw error;
      return;
    }
    this.#takenOverAt = database.position;
    this.ends.note(database.position);
    if (this.#options.cluster !== undefined) this.#feed = database.feed();
  }

  /** A successor gets everything that is committed, in the store if that answers, and then the database. False when it stays. */
  async #pass(heir: Heir): Promise<boolean> {
    const database = this.#engine.database!;
    const late = AbortSignal.any([this.#abort.signal, this.#clock.timeout(DRAIN_MS)]);
    await this.#writer?.sync(late).catch(() => undefined);
    this.#enter("passing");
    await this.#endWriter();
    const passed = await database
      .pass(() => heir.offer())
      .catch((error: unknown) => {
        this.emit("failed", error instanceof Error ? error : new Error(String(error)));
        return "kept";
      });
    this.#overlap.decided();
    if (passed === "taken") await this.#engine.close({ merge: false });
    else await this.#beginWriting(database);
    return passed === "taken";
  }

  /** Another node writes the log now: with others, the node closes the gate, and this database then follows. */
  async #deposed(error: unknown, turn: AbortSignal): Promise<void> {
    if (this.#options.cluster === undefined || !isSluiceError(error, "SLU-4101")) throw error;
    this.emit("deposed", error);
    await aborted(turn);
  }

  /** As replica, until it's stopped, lost, or the role changes. */
  async #follow(settled: () => void, turn: AbortSignal): Promise<void> {
    const { cluster } = this.#options;
    if (cluster === undefined) return;
    // What an application made on a replica must not grow: its gate is closed while it waits.
    if (!this.#engine.hasHistory) {
      await this.#engine.toDatabase();
      this.#enter("waiting");
      await untilRefused(this.#context, this.path, turn);
    }
    const replica = await this.#openReplica();
    this.#enter("following");
    settled();
    const { upstream, storeOnly } = cluster;
    const onProblem = (error: unknown): void => {
      if (error instanceof Error) this.emit("failed", error);
    };
    const options = {
      name: this.name,
      replica,
      upstream,
      storeOnly,
      context: this.#context,
      onProblem,
      clock: this.#clock,
    };
    await Promise.race([this.#engine.lost, follow(options, turn)]);
    if (!this.isStopped) await this.#keep();
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
    this.#overlap.release();
  }

  async #endWriter(): Promise<void> {
    const writer = this.#writer;
    this.#writer = undefined;
    this.#feed = undefined;
    await writer?.stop();
  }
}

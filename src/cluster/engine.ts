import { Database, type DatabaseOptions, stateDirOf } from "../database/database.ts";
import type { DatabaseEvent } from "../database/events.ts";
import { GateBridge } from "../database/gate-bridge.ts";
import type { Predecessor } from "../database/opening.ts";
import { Replica } from "../database/replica.ts";
import type { Started } from "../database/starting.ts";
import { peekState } from "../database/state.ts";
import type { ClusterOptions } from "./database-options.ts";

export interface EngineOptions {
  readonly path: string;
  readonly limits: DatabaseOptions["limits"] | undefined;
  readonly cluster: ClusterOptions | undefined;
  /** Breaks off an opening. */
  readonly signal: AbortSignal;
  /** Before the files are opened. */
  readonly onOpening: () => void;
  readonly onEvent: (event: DatabaseEvent) => void;
}

/** A bridge that is in the way of an opening goes after so long. */
const BRIDGE_MS = 2_000;

/**
 * The open files of one database, in one role or the other: descriptors, locks and WAL go on when the role changes.
 *
 *     closed ─ toDatabase, toReplica ─► database or replica ─ keep ─► kept ─ toDatabase, toReplica ─► …
 *        ▲                                                             │
 *        └──────────────────────────── close ◄────────────────────────┘
 */
export class Engine {
  readonly #options: EngineOptions;
  #database: Database | undefined;
  #replica: Replica | undefined;
  /** Open, between two roles. */
  #kept: Started | undefined;
  #lost = Promise.withResolvers<never>();
  /** Closed, and to be opened again with its gate closed. */
  #bridge: GateBridge | undefined;
  /** Behind it an opening has failed: SQLite may have to set up the wal-index anew, for which it needs what that locks. */
  #isInTheWay = false;

  constructor(options: EngineOptions) {
    this.#options = options;
  }

  get database(): Database | undefined {
    return this.#database;
  }

  get replica(): Replica | undefined {
    return this.#replica;
  }

  get isKept(): boolean {
    return this.#kept !== undefined;
  }

  /** Rejects when the database that was opened last can't go on: SLU-2006, 2007, 2020. */
  get lost(): Promise<never> {
    return this.#lost.promise;
  }

  /** Whether some record of its log is known to be in it. */
  get hasHistory(): boolean {
    const state = this.#kept?.file.state ?? peekState(stateDirOf(this.#options.path));
    return (state?.confirmed.txid ?? 0) > 0;
  }

  /** As a primary's; among other nodes its gate is closed. A `predecessor` is asked for it. */
  async toDatabase(predecessor?: Predecessor): Promise<Database> {
    const { path, cluster } = this.#options;
    const kept = this.#kept;
    const gate = cluster === undefined ? "open" : "closed";
    this.#database =
      kept === undefined
        ? await this.#bridged(() => Database.open(path, { ...this.#open(), gate, predecessor }))
        : await Database.of(kept);
    this.#kept = undefined;
    await cluster?.hold(path, this.#database.descriptors);
    return this.#database;
  }

  /** As a replica's; its gate is closed. */
  async toReplica(): Promise<Replica> {
    const { path, cluster } = this.#options;
    const kept = this.#kept;
    this.#replica =
      kept === undefined ? await this.#bridged(() => Replica.open(path, this.#open())) : await Replica.of(kept);
    this.#kept = undefined;
    await cluster?.hold(path, this.#replica.descriptors);
    return this.#replica;
  }

  /** Behind the bridge, until the opened files have a lock of their own; every second try without. */
  async #bridged<T>(open: () => Promise<T>): Promise<T> {
    const bridge = this.#bridge;
    if (this.#isInTheWay) bridge?.end();
    const timer = setTimeout(() => bridge?.end(), BRIDGE_MS);
    try {
      const opened = await open();
      bridge?.[Symbol.dispose]();
      this.#bridge = undefined;
      this.#isInTheWay = false;
      return opened;
    } catch (error) {
      this.#isInTheWay = bridge !== undefined && !this.#isInTheWay;
      bridge?.again();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #open(): DatabaseOptions {
    const { limits, signal, onOpening } = this.#options;
    onOpening();
    this.#lost = Promise.withResolvers();
    const lost = this.#lost;
    lost.promise.catch(() => undefined);
    const onEvent = (event: DatabaseEvent): void => {
      this.#options.onEvent(event);
      if (event.type === "lost") lost.reject(event.error);
    };
    return { onEvent, signal, ...(limits && { limits }) };
  }

  /** Ends the role, and keeps everything open for the next one. A primary's gate must be closed. */
  async keep(): Promise<void> {
    if (this.#database !== undefined) this.#kept = await this.#database.handOver();
    if (this.#replica !== undefined) this.#kept = this.#replica.handOver();
    this.#database = undefined;
    this.#replica = undefined;
  }

  /** `reopens`: the gate stays closed until the next opening has closed it again. */
  async close(options: { readonly merge: boolean; readonly reopens?: boolean }): Promise<void> {
    if (options.reopens === true) {
      this.#bridge ??= GateBridge.over(this.#options.path);
    } else {
      this.#bridge?.[Symbol.dispose]();
      this.#bridge = undefined;
    }
    if (this.#kept !== undefined) this.#replica = await Replica.of(this.#kept);
    this.#kept = undefined;
    await this.#database?.close(options);
    await this.#replica?.close(options);
    this.#database = undefined;
    this.#replica = undefined;
    this.#options.cluster?.release(this.#options.path);
  }
}

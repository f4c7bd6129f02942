import type { ResyncSource } from "../../database/replication.ts";
import { type Clock, systemClock } from "../../log/clock.ts";
import type { PublishedDatabase } from "./published.ts";

/** Pictures of databases that are open at once in a node: each keeps a database's backfills waiting. */
const OPEN_MAX = 2;
/** A picture older than this isn't given to another replica: too much has come since. */
const SHARED_MS = 10_000;

interface Open {
  readonly database: PublishedDatabase;
  readonly source: Promise<ResyncSource>;
  readonly openedMs: number;
  users: number;
}

/** A picture that was lent; `release` gives it back, once. */
export interface Lent {
  readonly source: ResyncSource;
  release(): void;
}

/**
 * The pictures that replicas compare themselves with. Replicas that come for one database at about the same time share
 * one; when as many as allowed are open, who comes waits for one to be released, in turn.
 */
export class ResyncSources {
  readonly #max: number;
  readonly #clock: Clock;
  readonly #open = new Set<Open>();
  readonly #waiting: (() => void)[] = [];

  constructor(max = OPEN_MAX, clock = systemClock) {
    this.#max = max;
    this.#clock = clock;
  }

  get open(): number {
    return this.#open.size;
  }

  /** Rejects with what the database says, or when `signal` is aborted. */
  async lend(database: PublishedDatabase, signal: AbortSignal): Promise<Lent> {
    for (;;) {
      signal.throwIfAborted();
      const open = this.#shared(database) ?? this.#begin(database);
      if (open === undefined) {
        await this.#turn(signal);
        continue;
      }
      open.users++;
      let isLent = true;
      const release = (): void => {
        if (isLent) this.#release(open);
        isLent = false;
      };
      try {
        const source = await open.source;
        signal.throwIfAborted();
        return { source, release };
      } catch (error) {
        release();
        throw error;
      }
    }
  }

  #shared(database: PublishedDatabase): Open | undefined {
    const now = this.#clock.elapsedMs();
    for (const open of this.#open) {
      if (open.database === database && now - open.openedMs < SHARED_MS) return open;
    }
    return undefined;
  }

  #begin(database: PublishedDatabase): Open | undefined {
    if (this.#open.size >= this.#max) return undefined;
    const open: Open = { database, source: database.resyncSource(), openedMs: this.#clock.elapsedMs(), users: 0 };
    this.#open.add(open);
    this.#watch(open).catch(() => this.#close(open));
    return open;
  }

  /** What was given up is no longer shared; who has it notices by itself. */
  async #watch(open: Open): Promise<void> {
    const { signal } = await open.source;
    signal.addEventListener("abort", () => this.#close(open), { once: true });
    if (signal.aborted) this.#close(open);
  }

  #release(open: Open): void {
    if (--open.users > 0) return;
    open.source.then((source) => source.release()).catch(() => undefined);
    this.#close(open);
  }

  #close(open: Open): void {
    if (this.#open.delete(open)) this.#waiting.shift()?.();
  }

  #turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const onTurn = (): void => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = (): void => {
        const at = this.#waiting.indexOf(onTurn);
        if (at >= 0) this.#waiting.splice(at, 1);
        reject(signal.reason as Error);
      };
      this.#waiting.push(onTurn);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }
}

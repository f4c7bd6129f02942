import { type EventEmitter, once } from "node:events";
import type { Database } from "../database/database.ts";
import type { Replica } from "../database/replica.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { type Clock, delay } from "../log/clock.ts";
import type { LogWriter } from "../log/log-writer.ts";
import { epochOf, NOTHING, type Position } from "../ltx/position.ts";
import { isRefusal } from "./database-errors.ts";
import type { ClusterOptions } from "./database-options.ts";
import type { EpochEnds } from "./epoch-ends.ts";
import { waitReplica } from "./members.ts";
import type { NodeRole } from "./status.ts";
import type { Heir } from "./succession/heir.ts";
import type { Overlap } from "./succession/overlap.ts";

/** What of a `ProtectedDatabase` is asked while somebody waits. */
interface Waited {
  readonly path: string;
  readonly name: string;
  readonly role: NodeRole;
  readonly failure: Error | undefined;
  readonly isStopped: boolean;
  readonly database: Database | undefined;
  readonly replica: Replica | undefined;
  readonly writer: LogWriter | undefined;
  readonly ends: EpochEnds;
  captureNow(): Position | undefined;
  on(event: "state" | "placed", listener: () => void): unknown;
  off(event: "state" | "placed", listener: () => void): unknown;
}

const LOOK_MS = 25;

/** Waits for what is committed to one database to be durable, whatever role the node has, and whoever has the database. */
export class Waits {
  readonly #one: Waited;
  readonly #cluster: ClusterOptions | undefined;
  readonly #overlap: Overlap;
  readonly #clock: Clock;

  constructor(one: Waited, cluster: ClusterOptions | undefined, overlap: Overlap, clock: Clock) {
    this.#one = one;
    this.#cluster = cluster;
    this.#overlap = overlap;
    this.#clock = clock;
  }

  /** Waits until what is committed now is durable: sealed on this disk, or confirmed by the store. */
  async sync(wait: "local" | "replica" | "store", signal: AbortSignal): Promise<Position> {
    for (;;) {
      const heir = await this.opened("primary", signal).catch((error: unknown) => {
        throw this.#one.failure ?? (error as Error);
      });
      const synced = heir === undefined ? this.#syncOwn(wait, signal) : heir.sync(wait, signal).catch(ignoreEnd);
      const position = await synced;
      if (position !== undefined) return position;
    }
  }

  /** Undefined when the database was closed and opened anew meanwhile, here or elsewhere. */
  async #syncOwn(wait: "local" | "replica" | "store", signal: AbortSignal): Promise<Position | undefined> {
    const position = this.#one.database!.captureNow();
    try {
      if (wait === "local") await this.#one.database!.freeze();
      else await this.durable(position, wait, signal);
      return position;
    } catch (error) {
      const mayAskAgain = this.#cluster === undefined && !this.#one.isStopped && isSluiceError(error, "SLU-4109");
      if (!mayAskAgain) throw error;
      await delay(this.#clock, LOOK_MS, signal);
      return undefined;
    }
  }

  /**
   * Until the database is open in this role, as primary with the log begun, or another Sluice on this host has it. Rejects
   * when it never will be.
   */
  async opened(role: NodeRole, signal: AbortSignal): Promise<Heir | undefined> {
    const isOpen = (): boolean =>
      role === "primary"
        ? this.#one.writer !== undefined && this.#one.database !== undefined
        : this.#one.replica !== undefined;
    while (!isOpen()) {
      signal.throwIfAborted();
      const { failure } = this.#one;
      if (isSluiceError(failure) && isRefusal(failure)) throw failure;
      if (this.#overlap.heir !== undefined) return this.#overlap.heir;
      await delay(this.#clock, LOOK_MS, signal);
    }
    return undefined;
  }

  /**
   * Resolves when `position`, which this node has, is durable at `level` (protocol section 9); `NOTHING`: what is committed
   * once the database is open. Rejects with SLU-4109 when that can't be told any more (this node stopped being the primary),
   * with the reason of `signal`.
   */
  async durable(position: Position, level: "replica" | "store", signal: AbortSignal): Promise<void> {
    if (position === NOTHING) {
      if (this.#cluster === undefined) return void (await this.sync(level, signal));
      await this.opened(this.#one.role, signal);
      const now = this.#one.captureNow();
      if (now !== undefined && now !== NOTHING) await this.durable(now, level, signal);
      return;
    }
    const [cluster, database, writer] = [this.#cluster, this.#one.database, this.#one.writer];
    if (level === "store" || cluster === undefined || database === undefined || writer === undefined) {
      return this.stored(position, signal);
    }
    const { upstream, memberLagMs } = cluster;
    await waitReplica(
      {
        database,
        writer,
        source: upstream,
        name: this.#one.name,
        lagMaxMs: memberLagMs,
        clock: this.#clock,
        isOver: () => this.#one.writer !== writer,
        onOver: (listener) => {
          this.#one.on("state", listener);
          return () => void this.#one.off("state", listener);
        },
      },
      position,
      signal,
    );
  }

  /**
   * Resolves when `position`, which this node has, is in the log. Rejects with SLU-4109 when that can't be told any more
   * (this node stopped being the primary), with the reason of `signal`.
   */
  async stored(position: Position, signal: AbortSignal): Promise<void> {
    if (this.#cluster === undefined) return this.#overlap.waitStored(position, signal);
    // Open, and not the log's writer yet: it is taking over.
    if (this.#one.database !== undefined) await this.opened("primary", signal);
    if (this.#one.writer !== undefined) return this.#one.writer.waitFor(position, signal);
    const stored = (): Position => this.#one.replica?.record?.position ?? NOTHING;
    while (stored() < position) await once(this.#one as unknown as EventEmitter, "placed", { signal });
    const epoch = epochOf(position);
    const end = epoch === epochOf(stored()) ? undefined : await this.#one.ends.of(epoch, signal);
    if (end !== undefined && position > end)
      throw new SluiceError("SLU-4109", `${this.#one.path}: it has left the history`);
  }
}

/** The other Sluice of a database has ended while it was asked: whoever has the database is asked then. */
function ignoreEnd(error: unknown): undefined {
  if (!isSluiceError(error, "SLU-6013")) throw error;
}

import { ChangedPages } from "../../../src/database/changed-pages.ts";
import type { Engine, EngineOptions } from "../../../src/cluster/engine.ts";
import { seqOf, type Position } from "../../../src/ltx/position.ts";
import type { LifeClock, Random } from "../../log/sim/clock.ts";
import type { Pages } from "../../log/sim/ltx.ts";
import type { Machine } from "./machine.ts";
import { SimPrimary } from "./primary.ts";
import { type Books, booksAfterKill, type OnLeft, SimReplica } from "./replica.ts";

export interface Surroundings {
  readonly machine: Machine;
  readonly clock: LifeClock;
  readonly random: Random;
  readonly onNamed: (position: Position, pages: Pages) => void;
  readonly onLeft: OnLeft;
}

/** The open files of one database, as `Engine` has them, on a simulated disk. */
export class SimEngine implements Pick<Engine, "isKept" | "lost" | "hasHistory" | "keep" | "close"> {
  readonly #around: Surroundings;
  readonly #options: EngineOptions;
  #database: SimPrimary | undefined;
  #replica: SimReplica | undefined;
  #kept: Books | undefined;
  #lost = Promise.withResolvers<never>();

  constructor(around: Surroundings, options: EngineOptions) {
    this.#around = around;
    this.#options = options;
  }

  get database(): SimPrimary | undefined {
    return this.#database;
  }

  get replica(): SimReplica | undefined {
    return this.#replica;
  }

  get isKept(): boolean {
    return this.#kept !== undefined;
  }

  get lost(): Promise<never> {
    return this.#lost.promise;
  }

  get hasHistory(): boolean {
    const { logState, following } = this.#around.machine.disk;
    return ((following ?? logState?.confirmed)?.txid ?? 0) > 0;
  }

  async toDatabase(): Promise<SimPrimary> {
    const { disk } = this.#around.machine;
    const books = this.#kept ?? (await this.#open());
    if (books !== undefined) {
      const { record, changed } = books;
      disk.open = new Set(changed.isEverything ? disk.pages.keys() : changed.numbers);
      disk.frozen = [];
      if (record !== undefined) {
        const { txid, position, timestampMs } = record;
        disk.logState = { ...disk.logState!, confirmed: { txid, position, timestampMs } };
      }
    }
    this.#kept = undefined;
    this.#database = this.#primary();
    return this.#database;
  }

  async toReplica(): Promise<SimReplica> {
    const { machine, clock, random, onLeft } = this.#around;
    const books = this.#kept ?? (await this.#open()) ?? this.#booksOf(this.#primary());
    this.#kept = undefined;
    this.#replica = new SimReplica(machine, books, clock, random, onLeft);
    return this.#replica;
  }

  async keep(): Promise<void> {
    if (this.#database !== undefined) {
      await this.#database.end();
      this.#kept = this.#booksOf(this.#database);
    }
    if (this.#replica !== undefined) {
      this.#replica.end();
      this.#kept = this.#replica.books;
    }
    this.#database = undefined;
    this.#replica = undefined;
  }

  async close(): Promise<void> {
    if (this.#database !== undefined) await this.#database.end();
    this.#replica?.end();
    this.#database = undefined;
    this.#replica = undefined;
    this.#kept = undefined;
  }

  /** Closes the gate and reads what is on the disk: the books of a replica, or nothing where it was a primary. */
  async #open(): Promise<Books | undefined> {
    const { machine, clock, random } = this.#around;
    this.#options.onOpening();
    this.#lost = Promise.withResolvers();
    this.#lost.promise.catch(() => undefined);
    do {
      await new Promise<void>((resolve) => void clock.schedule(1 + random.below(20), resolve));
      this.#options.signal.throwIfAborted();
    } while (!machine.closeGate());
    return machine.disk.following === undefined ? undefined : booksAfterKill(machine);
  }

  #primary(): SimPrimary {
    const { machine, clock, random, onNamed } = this.#around;
    return new SimPrimary(machine, clock, random, onNamed);
  }

  /** What is sealed and not in the log, and what isn't sealed, is on top of the last confirmed record. */
  #booksOf({ disk }: SimPrimary): Books {
    const confirmed = disk.logState?.confirmed;
    const record = confirmed === undefined || confirmed.txid === 0 ? undefined : { ...confirmed, epoch: disk.epoch };
    const changed = new ChangedPages();
    const seq = seqOf(disk.position);
    for (const { pages } of disk.frozen) for (const page of pages) changed.add(page, seq);
    for (const page of disk.open) changed.add(page, seq);
    disk.frozen = [];
    disk.open = new Set();
    return { record, changed };
  }
}

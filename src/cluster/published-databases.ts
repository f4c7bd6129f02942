import { SluiceError } from "../errors/error.ts";
import type { Clock } from "../log/clock.ts";
import { epochOf, type Position } from "../ltx/position.ts";
import type { ProtectedDatabase } from "./protected-database.ts";
import { holdsSince, type PublishedDatabase, type PublishedDatabases } from "./stream/published.ts";

/** How long the log may take to say where an epoch ended. */
const HISTORY_LIMIT_MS = 5_000;

/** The databases that a node, as primary, publishes: those whose takeover is in the log. */
export class LeadingDatabases implements PublishedDatabases {
  readonly #all: () => Iterable<ProtectedDatabase>;
  readonly #clock: Clock;
  readonly #listeners = new Set<() => void>();
  readonly #published = new Map<ProtectedDatabase, Leading>();

  /** `all`: the node's databases as they are now. */
  constructor(all: () => Iterable<ProtectedDatabase>, clock: Clock) {
    this.#all = all;
    this.#clock = clock;
  }

  /** To be called for every database, when its state or role may have changed. */
  changed(): void {
    const now = new Set([...this.#all()].filter((database) => database.feed !== undefined));
    for (const [database, leading] of this.#published) {
      if (!now.has(database) || leading.feed !== database.feed) this.#published.delete(database);
    }
    for (const database of now)
      if (!this.#published.has(database)) this.#published.set(database, new Leading(database, this.#clock));
    for (const listener of this.#listeners) listener();
  }

  list(): Iterable<PublishedDatabase> {
    return this.#published.values();
  }

  get(name: string): PublishedDatabase | undefined {
    for (const leading of this.#published.values()) if (leading.name === name) return leading;
    return undefined;
  }

  onChanged(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

/** One database of a primary, in one epoch. */
class Leading implements PublishedDatabase {
  readonly name: string;
  readonly logId: string;
  readonly epoch: number;
  readonly feed;
  readonly #database: ProtectedDatabase;
  readonly #clock: Clock;
  readonly #takenOverAt: Position;

  constructor(database: ProtectedDatabase, clock: Clock) {
    this.#clock = clock;
    this.name = database.name;
    const { logId, epoch } = database.writer!;
    // Who joins while this node steps down, without a writer already, still meets this log.
    this.logId = logId;
    this.epoch = epoch;
    this.feed = database.feed!;
    this.#database = database;
    this.#takenOverAt = database.takenOverAt;
  }

  get pageSize(): number {
    return this.#open.pageSize;
  }

  get pageCount(): number {
    return this.#open.pageCount;
  }

  get record() {
    const confirmed = this.#database.database?.logState?.confirmed;
    return confirmed === undefined ? undefined : { ...confirmed, epoch: this.epoch };
  }

  get durable(): Position {
    return this.record?.position ?? 0n;
  }

  resyncSource() {
    return this.#open.resyncSource();
  }

  onSealed(listener: () => void): () => void {
    const onLog = ({ type }: { readonly type: string }): void => {
      if (type === "appended") listener();
    };
    this.#database.on("log", onLog);
    return () => void this.#database.off("log", onLog);
  }

  /** What this epoch's takeover doesn't say about older ones, the log's takeover records do. */
  async holds(position: Position): Promise<boolean> {
    const newest = this.feed.position;
    if (this.feed.has(position) || holdsSince(this.#takenOverAt, newest, position)) return true;
    const epoch = epochOf(position);
    if (epoch >= epochOf(newest)) return false;
    const end = await this.#database.ends.of(epoch, this.#clock.timeout(HISTORY_LIMIT_MS)).catch(() => undefined);
    return end !== undefined && position <= end;
  }

  get #open() {
    const { database } = this.#database;
    if (database === undefined)
      throw new SluiceError("SLU-8205", `${this.name} is not this node's to publish any more`);
    return database;
  }
}

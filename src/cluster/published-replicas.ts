import type { Replica } from "../database/replica.ts";
import { NOTHING, type Position } from "../ltx/position.ts";
import type { ProtectedDatabase } from "./protected-database.ts";
import type { PublishedDatabase, PublishedDatabases } from "./stream/published.ts";

type Shown = Pick<ProtectedDatabase, "name" | "replica">;

/** The databases of a node that isn't the primary, for one that takes over and asks what others have. */
export class FollowingDatabases implements PublishedDatabases {
  readonly #all: () => Iterable<Shown>;
  readonly #shown = new WeakMap<Replica, Following>();

  /** `all`: the node's databases as they are now. */
  constructor(all: () => Iterable<Shown>) {
    this.#all = all;
  }

  *list(): Iterable<PublishedDatabase> {
    for (const { name, replica } of this.#all()) {
      if (replica?.position === undefined) continue;
      let following = this.#shown.get(replica);
      if (following === undefined) this.#shown.set(replica, (following = new Following(name, replica)));
      yield following;
    }
  }

  get(name: string): PublishedDatabase | undefined {
    for (const database of this.list()) if (database.name === name) return database;
    return undefined;
  }

  /** Who asks has its answer before they change. */
  onChanged(): () => void {
    return () => undefined;
  }
}

/** One database as it stands: its only step is a comparison. */
class Following implements PublishedDatabase {
  readonly name: string;
  readonly feed;
  readonly durable: Position = NOTHING;
  readonly #replica: Replica;

  constructor(name: string, replica: Replica) {
    this.name = name;
    this.#replica = replica;
    this.feed = {
      get position() {
        return replica.position ?? NOTHING;
      },
      get checksum() {
        return replica.checksum;
      },
      has: (position: Position) => position === replica.position,
      after: () => undefined,
      onMoved: () => () => undefined,
    };
  }

  get logId(): string {
    return this.#replica.logState?.logId ?? "";
  }

  get pageSize(): number {
    return this.#replica.pageSize;
  }

  get pageCount(): number {
    return this.#replica.pageCount;
  }

  get epoch(): number {
    return this.#replica.epoch;
  }

  get record() {
    return this.#replica.record;
  }

  resyncSource() {
    return this.#replica.resyncSource();
  }

  onSealed(): () => void {
    return () => undefined;
  }

  holds(position: Position, checksum: bigint): boolean {
    return this.#replica.had(position, checksum);
  }
}

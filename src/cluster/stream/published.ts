import type { CommitFeed, RecordName, ReplicaDatabase, ResyncSource } from "../../database/replication.ts";
import { epochOf, NOTHING, type Position } from "../../ltx/position.ts";

/** A primary's database as far as the stream needs it. */
export interface PublishedDatabase {
  /** The same on every node of the cluster. */
  readonly name: string;
  /** Id of its log. */
  readonly logId: string;
  readonly pageSize: number;
  readonly pageCount: number;
  /** The epoch in which the primary names its commits. */
  readonly epoch: number;
  /** The last confirmed record; undefined while nothing is in the log. */
  readonly record: RecordName | undefined;
  /** The highest position that is acknowledged at `replica`, as the primary counts it. */
  readonly durable: Position;
  /** The same as long as the database is published; after it was closed its steps may throw, no more. */
  readonly feed: CommitFeed;
  resyncSource(): Promise<ResyncSource>;
  /** Calls `listener` when `record` or `durable` has changed; returns how to stop. */
  onSealed(listener: () => void): () => void;
  /**
   * Whether the state of this name, and with this checksum as far as that is still known, is in the database's history. Where that can't be told: false, and a replica that has
   * the state puts what it has on top into its quarantine.
   */
  holds(position: Position, checksum: bigint): boolean | Promise<boolean>;
}

/** All databases that a primary publishes, as they are now. */
export interface PublishedDatabases {
  list(): Iterable<PublishedDatabase>;
  get(name: string): PublishedDatabase | undefined;
  /** Calls `listener` when a database came or went; returns how to stop. */
  onChanged(listener: () => void): () => void;
}

/** A replica's database as far as the stream needs it. */
export interface FollowingDatabase extends ReplicaDatabase {
  readonly logState: { readonly logId: string } | undefined;
}

/**
 * `PublishedDatabase.holds` for a primary that began its epoch at `takenOverAt`, the position in its takeover record: it
 * knows its own epoch and the one before, and that of older ones their last record at most was left out.
 */
export function holdsSince(takenOverAt: Position, newest: Position, position: Position): boolean {
  if (position === NOTHING || position <= takenOverAt) {
    return position === NOTHING || epochOf(position) === epochOf(takenOverAt);
  }
  return position <= newest && epochOf(position) === epochOf(newest) && epochOf(newest) !== epochOf(takenOverAt);
}

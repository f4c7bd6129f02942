import type { Durability } from "../config/config.ts";
import type { Position } from "../ltx/position.ts";

export interface DatabasePosition {
  /** The database's name, the same on every node. */
  readonly db: string;
  readonly position: Position;
}

/** Another node that is the primary. */
export interface PrimaryNode {
  /** As the node is named to Fly.io and to people. */
  readonly name: string;
  /** Its front door; undefined when it has none. */
  readonly proxy: URL | undefined;
}

/** How far a node got with a position that a client has seen. */
export type Applied =
  /** The node's state contains it. */
  | "reached"
  /** The commit left the history: its epoch ended before it. */
  | "lost"
  /** An epoch that the log doesn't know, or a database that there isn't: nobody here gave it out. */
  | "unknown";

/**
 * All that the front door knows of the cluster. Everything but `created` and the two waits answers at once, from memory, and is
 * called for every request.
 */
export interface NodeView {
  /** This node's name. */
  readonly name: string;
  /**
   * A number for this node's present time as primary, while it may answer as such: its lease's deadline is looked at
   * by the clock now. Another time as primary has another number. It stays while gates are closed for a handoff, until
   * the lease is another node's: answers are released then (`FrontDoor.pauseWrites` holds new writes). Undefined on
   * any other node, and before a takeover is complete.
   */
  reign(): number | undefined;
  /** The primary, when it is another node. */
  primary(): PrimaryNode | undefined;
  /** Calls `listener` when {@link reign} or {@link primary} may have changed; returns how to end that. */
  onChange(listener: () => void): () => void;
  /**
   * Every database's position now; on a primary, commits are captured up to this moment first. 0 for a database that isn't
   * open (yet): what is committed to it has no position, and {@link waitDurable} waits for whatever that is. A promise
   * where another process on this host has a database and is asked.
   */
  positions(): readonly DatabasePosition[] | Promise<readonly DatabasePosition[]>;
  /**
   * Looks for databases that the application has just made in a directory: those that aren't among the `known`. Undefined
   * where there are no directories. Rejects when one can't be read.
   */
  created(known: readonly DatabasePosition[]): Promise<readonly DatabasePosition[]> | undefined;
  /**
   * Until this node's state contains `position`, or it shows that it never will. A primary that sees a higher epoch
   * steps down. Rejects when `signal` aborts.
   */
  waitApplied(db: string, position: Position, signal: AbortSignal): Promise<Applied>;
  /**
   * Until `position` is durable at `level`, on any node; resolves at once where it is already. Rejects when the
   * position's epoch ends below it, when this node stops being the primary first, and when `signal` aborts.
   */
  waitDurable(db: string, position: Position, level: Exclude<Durability, "local">, signal: AbortSignal): Promise<void>;
  /** How far this node's state is behind the primary's; 0 on the primary, undefined when unknown. */
  lagMs(): number | undefined;
  /** Why this node can't serve ("app.db is being restored"); undefined when it can. */
  trouble(): string | undefined;
}

import type { Replica } from "../database/replica.ts";
import type { Position } from "../ltx/position.ts";

/** A replica that takes what the primary commits, from `Upstream.attach` to `detach`. */
export interface Attachment {
  /** Whether changes come from a primary just now. */
  readonly isJoined: boolean;
  /** Rejects when this database can't follow any more and must be opened anew. */
  readonly failed: Promise<never>;
  /** Resolves when nothing of it touches the replica any more. */
  detach(): Promise<void>;
}

/** A connected replica that may become primary, as far as one database asks. */
export interface MemberCandidate {
  /** Its life's number, as records name it. */
  readonly member: number;
  /** What it has applied; undefined while it doesn't follow this database. */
  readonly applied: Position | undefined;
  readonly lagMs: number;
}

/** The other nodes, as far as one database's durability at `replica` asks (protocol section 9). */
export interface MemberSource {
  /** Replicas that are connected to this node, and may become primary. */
  candidates(name: string): readonly MemberCandidate[];
  /** Calls `listener` when what some of them have has changed; returns how to stop. */
  onAcknowledged(listener: () => void): () => void;
  /** Whether records that name this number name this life of this node. */
  isOwnMember(member: number): boolean;
}

/** The primary of this node's cluster, as far as its replicas need it. */
export interface Upstream extends MemberSource {
  attach(name: string, replica: Replica): Attachment;
  /**
   * Copies the primary's database `name` to `path`, where there is no file. False when there is no primary in reach, or it
   * has no such database.
   */
  seed(name: string, path: string, signal: AbortSignal): Promise<boolean>;
  /**
   * Before a takeover, with the whole log placed: brings the replica as far as any node in reach is, within seconds. Never
   * rejects.
   */
  fetchAhead(name: string, replica: Replica, signal: AbortSignal): Promise<void>;
}

import type { Upstream } from "./upstream.ts";

/** A replica that is connected to this node, the primary. */
export interface ConnectedReplica {
  readonly nodeId: string;
  readonly name: string;
  readonly advertise: string;
  /** It may become primary. */
  readonly isCandidate: boolean;
  /** Of the database that is furthest behind. */
  readonly lagMs: number;
}

/** The other nodes: one that is followed, or those that follow. */
export interface Peers extends Upstream {
  /** A database's state, or the node's role, may have changed. */
  changed(): void;
  /** Follows the node at this URL; undefined: nobody. */
  follow(url: string | undefined): void;
  /** How long ago this node's databases were the primary's; undefined when that isn't known. */
  readonly lagMs: number | undefined;
  /** The primary that was followed last had something that isn't here. */
  readonly isBehind: boolean;
  readonly replicas: readonly ConnectedReplica[];
  /** Resolves when the replica has acknowledged every database's present position, and placed its last record. */
  awaitReplica(nodeId: string, signal: AbortSignal): Promise<void>;
  /** Tells the replica that the lease names it. */
  callSuccessor(nodeId: string): void;
  close(): Promise<void>;
}

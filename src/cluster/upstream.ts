import type { Replica } from "../database/replica.ts";

/** A replica that takes what the primary commits, from `Upstream.attach` to `detach`. */
export interface Attachment {
  /** Whether changes come from a primary just now. */
  readonly isJoined: boolean;
  /** Rejects when this database can't follow any more and must be opened anew. */
  readonly failed: Promise<never>;
  /** Resolves when nothing of it touches the replica any more. */
  detach(): Promise<void>;
}

/** The primary of this node's cluster, as far as its replicas need it. */
export interface Upstream {
  attach(name: string, replica: Replica): Attachment;
  /**
   * Copies the primary's database `name` to `path`, where there is no file. False when there is no primary in reach, or it
   * has no such database.
   */
  seed(name: string, path: string, signal: AbortSignal): Promise<boolean>;
}

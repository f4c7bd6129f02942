import type { Position } from "../ltx/position.ts";

/**
 * What a database gives to and takes from the replication stream (protocol sections 5 and 9). The stream (`cluster/stream`)
 * knows databases by this much only. A *change* is one commit, or several as one step: the newest version of every page
 * that they changed.
 */
export interface ChangeHead {
  /** The state that the change was made on. */
  readonly before: Position;
  /** The name of the state after it, its size in pages, and its checksum (protocol section 6). */
  readonly position: Position;
  readonly pageCount: number;
  readonly checksum: bigint;
  /** How many pages it holds. */
  readonly pages: number;
}

/** Pages of a change: `numbers[i]`'s content is at `i * pageSize` in `content`. Each page once, in any order. */
export interface PageChunk {
  readonly numbers: Uint32Array;
  readonly content: Uint8Array;
}

/** A record of the log, as far as placing asks (protocol section 7). */
export interface RecordName {
  readonly txid: number;
  readonly epoch: number;
  /** The state after it. */
  readonly position: Position;
  readonly timestampMs: number;
}

/** A change that is being read on a primary. */
export interface OutgoingChange {
  readonly head: ChangeHead;
  /**
   * The next pages, at most about 1 MiB; undefined after the last. The buffers are the reader's until the next call.
   * Throws SLU-2018 when the pages are no longer there because the WAL has begun anew: begin with another step.
   */
  next(): PageChunk | undefined;
}

/** A primary's commits as they are captured. Nothing is queued: a subscriber asks for what comes after its position. */
export interface CommitFeed {
  /** The name of the newest captured commit. */
  readonly position: Position;
  /** The database checksum at `position`. */
  readonly checksum: bigint;
  /** Whether the state `position` is one from which `after` can go on, without records and without a resync. */
  has(position: Position): boolean;
  /**
   * The change after `position`: the next commit, or, where more than `oneByOne` commits follow, all of them as one
   * step. Undefined when `position` is the newest. Throws SLU-2018 when `has(position)` is false.
   */
  after(position: Position, oneByOne: number): OutgoingChange | undefined;
  /** Calls `listener` after each capture that moved `position`, and when the WAL has begun anew; returns how to stop. */
  onMoved(listener: () => void): () => void;
}

/** A consistent picture at one position, for a replica that compares itself with it. */
export interface ResyncSource {
  readonly head: ChangeHead;
  /** The last record in that state. */
  readonly record: RecordName;
  /** The sums of all pages, two words a page, low half first, as `PageSums`. Not to be changed. */
  readonly sums: Int32Array;
  /** Aborted when its bound in time or WAL size was passed. */
  readonly signal: AbortSignal;
  /** The content of these pages (ascending, at most about 1 MiB of them). */
  read(numbers: Uint32Array): Promise<Uint8Array>;
  release(): void;
}

/** A change that is being written on a replica. One at a time for a database. */
export interface IncomingChange {
  /** Appends pages to the WAL, unseen by readers. The buffers are the caller's again when it returns. */
  pages(chunk: PageChunk): void;
  /**
   * Checks number of pages and checksum, then publishes the change to readers. SLU-2019 when the checksum is another:
   * nothing was published, and the database needs a resync.
   */
  commit(): Promise<void>;
  /** Forgets what was appended. Harmless after `commit`. */
  abort(): void;
}

/** A database on a replica: its gate is closed, and it takes what the primary commits. */
export interface ReplicaDatabase {
  readonly path: string;
  readonly pageSize: number;
  readonly pageCount: number;
  /** Undefined when it's not known, after a power loss for example: only a resync helps. */
  readonly position: Position | undefined;
  readonly checksum: bigint;
  /** The last record that was placed; undefined before the first. */
  readonly record: RecordName | undefined;
  /** The highest epoch that it has seen, kept on disk. */
  readonly epoch: number;
  /** Begins a change on `head.before`, which must be `position`. Resolves at once unless the WAL is being restarted. */
  change(head: ChangeHead): Promise<IncomingChange>;
  /** The record is confirmed in the log: it's placed (protocol section 7). Takeover records raise `epoch`. */
  sealed(record: RecordName): Promise<void>;
  /** The sums of its pages at `position`, for a resync. Valid until the next change. */
  readonly sums: Int32Array;
  /**
   * Begins the change that makes it the state `head` by difference, whatever it is now. With `quarantine`, its own version
   * of the pages that come goes to the quarantine first: it has commits that left the history. A node that only lags
   * quarantines nothing. `commit` also places `record`.
   */
  resync(head: ChangeHead, record: RecordName, options: { readonly quarantine: boolean }): Promise<IncomingChange>;
}

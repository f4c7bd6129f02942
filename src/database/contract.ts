import type { Position } from "../ltx/position.ts";

/**
 * What the log may ask of a database. `Database` (database.ts) is the one implementation; the log depends on this
 * much only. All methods are to be called from the main thread; those that return promises never run at the same
 * time for one database (the database queues them itself).
 */
export interface LoggedDatabase {
  readonly path: string;
  readonly stateDir: string;
  readonly pageSize: number;

  /** Name of the last captured commit. */
  readonly position: Position;

  /** What the persisted state says about the log, or undefined for a database without state. */
  readonly logState: LogState | undefined;

  /**
   * Sealed and locally durable, not yet confirmed; oldest first. `frozen[0]` is the one to send next. It survives a
   * restart, also a takeover record that was not decided: it is sent again then, unchanged, before anything else.
   */
  readonly frozen: readonly FrozenBatch[];

  /**
   * Persists which log this database belongs to, before anything of it is sent. A database that was restored from a
   * log without an id (Litestream's) has `logId` "" until then, and keeps what is confirmed. When another id is
   * replaced, nothing is confirmed or frozen any more and all pages are in the open batch.
   */
  bindLog(log: { readonly logId: string; readonly nodeId: string }): Promise<void>;

  /**
   * Persists that slot `txid` is confirmed and holds this node's bytes; the batch leaves `frozen`. Its local file may
   * go once the WAL no longer needs it.
   */
  confirm(txid: number): Promise<void>;

  /**
   * Freezes the takeover record for slot `txid` (protocol section 7, takeover 4): all of the open batch, also when it
   * is empty, named by the current position, epoch `txid`; every page of the database when `txid` is 1 or `full`.
   * Only with `frozen` empty. After `begin` the commits that follow are named `(txid, 1…)`, and so are those captured
   * in between. Nothing else is sealed before `begin` or `abandonTakeover`.
   */
  freezeTakeover(options: {
    readonly txid: number;
    readonly writer: bigint;
    readonly minTimestampMs: number;
    readonly full?: boolean;
  }): Promise<FrozenBatch>;

  /** The takeover in slot `epoch` was refused: forget its frozen record; its pages are in the open batch again. */
  abandonTakeover(txid: number): Promise<void>;

  /**
   * The takeover is in the log: commits are named in `epoch` from now on, and `freeze` may be used. Persists `epoch`:
   * commits of this life that only the next one captures are named in it, never in the one before.
   */
  begin(epoch: number, writer: bigint): Promise<void>;

  /**
   * Captures to the WAL's present end, without waiting for anything, and returns the position. Everything that any
   * application was told is committed when this is called is at or below it.
   */
  captureNow(): Position;

  /**
   * Seals the open batch into the slot after the last frozen or confirmed one; undefined when it's empty. The database
   * also does this on its own when the WAL needs a backfill; `onFrozen` tells of both.
   */
  freeze(): Promise<FrozenBatch | undefined>;

  /**
   * Set by the log: called after each batch that was sealed for whatever reason; again for the last one, larger, when
   * so many wait that it takes in what comes.
   */
  onFrozen: (batch: FrozenBatch) => void;

  /** Set by the log: called after each capture that moved `position`; must return at once and not throw. */
  onCaptured: (position: Position) => void;

  /**
   * A consistent picture of the database exactly at the cut of the last frozen (or else confirmed) batch; seals first
   * when the open batch isn't empty. Writers go on; backfills wait until it's released or its limits are passed.
   */
  snapshot(): Promise<DatabaseSnapshot>;
}

export interface LogState {
  readonly logId: string;
  readonly nodeId: string;
  /** The last confirmed slot and the name of the state after it. */
  readonly confirmed: { readonly txid: number; readonly position: Position; readonly timestampMs: number };
}

export interface FrozenBatch {
  readonly txid: number;
  readonly epoch: number;
  readonly position: Position;
  /** Database checksum after it (protocol section 6). */
  readonly checksum: bigint;
  readonly timestampMs: number;
  /** The lives that it names as members (protocol section 9). */
  readonly members: readonly number[];
  /** The local LTX file; synced, and so is its directory. Its bytes never change until it's confirmed or dropped. */
  readonly path: string;
  readonly sizeBytes: number;
}

export interface DatabaseSnapshot {
  readonly txid: number;
  readonly epoch: number;
  readonly writer: bigint;
  readonly position: Position;
  readonly checksum: bigint;
  readonly timestampMs: number;
  readonly pageSize: number;
  /** Size of the database in pages. */
  readonly pageCount: number;
  /** Aborted when a bound of the pause (time, WAL size) was passed: the pages can't be read any more. */
  readonly signal: AbortSignal;
  /** Fills `into` with whole pages from `firstPage` (1-based) on. The lock page reads as zeros. */
  read(firstPage: number, into: Uint8Array): Promise<void>;
  release(): void;
}

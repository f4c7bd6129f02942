/**
 * A lease: one small record that all nodes of a cluster read and that is only ever compared and swapped (protocol
 * section 8). The backends differ in where it lies; `LeaseKeeper` makes from any of them who may try to be primary.
 */

/** What stands in the lease. Every write makes another text of it: no two writes have the same owner, life and counter. */
export interface LeaseRecord {
  /** The owner's node id. */
  readonly nodeId: string;
  /** Random, of one life of the owner's process: tells a restarted or copied node from the one that wrote this. */
  readonly life: string;
  readonly nodeName: string;
  /** Where other nodes reach the owner; "" where it said nothing. */
  readonly advertise: string;
  /** URL of the owner's front door, where it has one. */
  readonly proxy?: string;
  /** Grows with each acquisition, also by the same node. */
  readonly generation: number;
  /** Grows with each write by anybody. */
  readonly counter: number;
  /** For how long this write keeps others off. Infinity: for ever (only where the record never leaves the process). */
  readonly ttlMs: number;
  /** Node id: the owner has given up, and this node may take the lease at once. */
  readonly successor?: string;
  /** Boot id of the owner's machine; only where the place of the lease is a machine's own. */
  readonly machine?: string;
  /** By which nodes with the cluster's secret know that one of them wrote this (`SignedRegister`). */
  readonly mac?: string;
  /** A tombstone: the owner has given up, and everybody may take the lease at once. */
  readonly released?: true;
}

/** A record as it was read. */
export interface LeaseVersion {
  /** Differs after every write; what `swap` compares. */
  readonly version: string;
  readonly record: LeaseRecord;
  /**
   * The backend itself has ended the ownership (the session expired, the lock's process is dead), and it does not do so
   * before `ttlMs` have passed since the record's write was first sent, unless the owner's process is dead.
   */
  readonly isFree: boolean;
}

export type SwapOutcome =
  /** The record is `next`, by this very call. */
  | { readonly outcome: "written"; readonly version: string }
  /** This call wrote nothing and never will; an earlier one with the same `next` may have. */
  | { readonly outcome: "refused" }
  /** Nobody knows; it may still take effect. */
  | { readonly outcome: "undecided"; readonly cause: unknown };

/**
 * Where a lease lies. One value is owned by one LeaseKeeper, which calls `read` and `swap` one after the other (a call
 * that was given up through its signal may still be running).
 */
export interface LeaseRegister {
  /** For messages; without secrets. */
  readonly place: string;
  /** Whether records run out. False: the configuration decides who holds it, for ever; nothing can be handed over. */
  readonly expires: boolean;

  /**
   * The newest record, undefined when there is none. Linearizable: it shows every swap that was answered before it was
   * called. Throws a SluiceError of the backend's when it can't be told; the caller asks again.
   */
  read(signal: AbortSignal): Promise<LeaseVersion | undefined>;

  /**
   * Replaces the record of version `expected` (undefined: none) by `next`, atomically. `next` is a renewal, an
   * acquisition, or gives up (`successor`, `released`); backends that have sessions begin, renew or end them with it.
   * Not idempotent: the second of two equal calls is refused. Never throws for what the backend or the network does:
   * whatever isn't known for certain is `undecided`.
   */
  swap(expected: string | undefined, next: LeaseRecord, signal: AbortSignal): Promise<SwapOutcome>;

  /** Lets go of connections and of what a dead owner would leave. Idempotent. The record stays as it is. */
  close(): Promise<void>;
}

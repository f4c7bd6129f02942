import type { LeaseClock } from "./clock.ts";
import type { LeaseRecord, LeaseRegister, LeaseVersion } from "./lease.ts";

/** What a LeaseKeeper is made of. */
export interface KeeperOptions {
  /** Owned by the keeper from now on: `close` closes it. */
  readonly register: LeaseRegister;
  readonly node: LeaseNode;
  /** What the own records promise; see `LeaseRecord.ttlMs`. Ignored where the register's records don't expire. */
  readonly ttlMs: number;
  /** How long before others may take the lease this node stops counting on it. Default: a fifth of it, 2 s at most. */
  readonly marginMs?: number;
  /**
   * The caller knows that no other process lives under this node id (it holds a lock on the node's directory). Then
   * what an earlier life left is taken over at once, instead of after its time.
   */
  readonly isOnlyLife?: boolean;
  readonly clock?: LeaseClock;
  /** 0 ≤ x < 1; spreads the nodes' requests. */
  readonly random?: () => number;
  readonly events: LeaseEvents;
}

interface LeaseNode {
  readonly id: string;
  readonly name: string;
  /** URL at which other nodes reach it; "" where it has none. */
  readonly advertise: string;
  /** URL of its front door. */
  readonly proxy?: string;
}

/** Called synchronously, when the keeper's state has changed already; must not throw. */
interface LeaseEvents {
  /** This node holds the lease from now on, until `lost`. */
  acquired?(grant: LeaseGrant): void;
  /** This node holds it no longer. Comes from the keeper's timer, or from within `isHeld`. */
  lost?(reason: LossReason, grant: LeaseGrant): void;
  /** Another record stands in the lease than before, by owner, generation, successor or release; renewals don't count. */
  changed?(holder: LeaseHolder | undefined): void;
  /** A request failed and is made again; every time. SLU-8005 comes here once: this node no longer tries. */
  trouble?(error: unknown): void;
}

export interface LeaseGrant {
  readonly generation: number;
  /** Of this keeper's life, as `LeaseRecord.life`. */
  readonly life: string;
}

/**
 * `expired`: not renewed in time. `taken`: the record is another's. `clock`: the machine's clocks contradict each other,
 * so it may have stood still. `copied`: another process writes under this node's id. `released`, `handed-over`: given up
 * on purpose. `closed`: the keeper was closed while it held the lease.
 */
export type LossReason = "expired" | "taken" | "clock" | "copied" | "released" | "handed-over" | "closed";

/** Whose the lease is, as far as this node has seen. */
export interface LeaseHolder {
  readonly record: LeaseRecord;
  /** Whether this very life of this node wrote it. */
  readonly isSelf: boolean;
  /** When others may take it, by the boot clock, if nothing is seen before. For the own record: this node's deadline. */
  readonly lapsesAtMs: number;
}

export interface AcquireOptions {
  /** Ends the attempt; a record that was won meanwhile is released again. */
  readonly signal?: AbortSignal;
  /**
   * Asked each time when the lease may be taken: for how long this node still leaves it to others, counted from when it
   * could first be taken; undefined: not now, ask again later. A successor that the record names is not asked.
   */
  readonly holdBackMs?: (seen: LeaseVersion | undefined) => number | undefined;
  /** The grant's generation is above this one: the highest epoch this node knows, where there is no log. */
  readonly aboveGeneration?: number;
}

/**
 * What became of giving up. `written`: the record says so. `lost`: the lease had ended before. `unknown`: no answer until
 * the end of the lease; it may have been written. In every case this node no longer holds it.
 */
export type GiveUpOutcome = "written" | "lost" | "unknown";

/** An observed record, and since when it stands there. */
export interface Observation {
  readonly seen: LeaseVersion | undefined;
  /** Arrival of the first read that showed it, by the boot clock. */
  readonly sinceMs: number;
}

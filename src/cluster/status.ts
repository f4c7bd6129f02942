import type { ErrorCode } from "../errors/codes.ts";
import type { ConnectedReplica } from "./peers.ts";
import type { RoleState } from "./roles.ts";

export type NodeRole = "primary" | "replica";

/** Who is the primary, as the lease says. */
export interface PrimaryRecord {
  readonly nodeId: string;
  readonly name: string;
  /** URL of its API. */
  readonly advertise: string;
  /** URL of its front door, where the lease says it. */
  readonly proxy: string | undefined;
  readonly isSelf: boolean;
}

/** What `sluice status` shows; the form of `GET /v1/status`. */
export interface NodeStatus {
  readonly version: string;
  readonly node: string;
  readonly role: NodeRole;
  readonly pid: number;
  readonly startedAt: string;
  readonly databases: readonly DatabaseStatus[];
  /** The rest is of a node among others. */
  readonly nodeId?: string;
  readonly state?: RoleState;
  readonly primary?: PrimaryRecord | undefined;
  /** How far this node is behind the primary; undefined when that isn't known. */
  readonly lagMs?: number | undefined;
  /** On a primary: who follows it, and how far they are behind. */
  readonly replicas?: readonly ConnectedReplica[];
  readonly lease?: {
    readonly place: string;
    readonly isHeld: boolean;
    readonly generation: number | undefined;
    /** When others may take it if nothing more is heard. */
    readonly lapsesInMs: number | undefined;
  };
}

/**
 * The life of one database in a node:
 *
 * - `waiting`: there is no file yet, and nothing in the store; the application will create it
 * - `restoring`, `opening`, `taking-over`: on the way
 * - `protected`: captured, and shipped to its store
 * - `following`: on a replica; it takes what the primary, or the log, has
 * - `passing`, `succeeded`: another Sluice on this host is taking it over, or has it now, and is asked about it
 * - `failed`: not protected, for the reason given; the node tries again where that can help
 * - `closed`: the node has let it go
 */
export type DatabaseState =
  | "waiting"
  | "restoring"
  | "opening"
  | "taking-over"
  | "protected"
  | "following"
  | "passing"
  | "succeeded"
  | "failed"
  | "closed";

export interface DatabaseStatus {
  readonly path: string;
  /** In the cluster: the same on every node. */
  readonly name: string;
  readonly role: NodeRole;
  /** Without secrets. */
  readonly store: string;
  readonly state: DatabaseState;
  readonly error: { readonly code: ErrorCode | undefined; readonly message: string; readonly hint: string } | undefined;
  /** 16 hex digits; of the last captured commit. */
  readonly position: string | undefined;
  readonly sizeBytes: number | undefined;
  readonly walBytes: number | undefined;
  /** What the store has confirmed. */
  readonly confirmed: { readonly txid: number; readonly position: string; readonly at: string } | undefined;
  /** For how long the oldest commit that is not in the store has been waiting; 0 when all are. */
  readonly storeLagMs: number | undefined;
  /** Who has taken it over, on this host. */
  readonly successor?: { readonly pid: number; readonly version: string };
  /** Sealed batches that wait for the store. */
  readonly frozen: number | undefined;
  /** What left its history and lies in its quarantine; `sluice quarantine` shows and extracts it. */
  readonly quarantined: { readonly entries: number; readonly bytes: number };
}

/** An event of `GET /v1/events`. */
export type NodeEvent =
  | { readonly type: "state"; readonly db: string; readonly state: DatabaseState }
  | { readonly type: "role"; readonly role: NodeRole; readonly state: RoleState }
  /** `commits` of them up to `position` were captured at `atMs` (wall clock). */
  | {
      readonly type: "commit";
      readonly db: string;
      readonly position: string;
      readonly commits: number;
      readonly atMs: number;
    }
  | {
      readonly type: "seal";
      readonly db: string;
      readonly txid: number;
      readonly position: string;
      readonly atMs: number;
    }
  | {
      readonly type: "upload";
      readonly db: string;
      readonly txid: number;
      readonly position: string;
      readonly atMs: number;
    }
  | {
      readonly type: "compaction";
      readonly db: string;
      readonly level: number;
      readonly minTxid: number;
      readonly maxTxid: number;
    }
  | { readonly type: "snapshot"; readonly db: string; readonly txid: number; readonly sizeBytes: number }
  /** What left the history of a database is at `where` now; `pages` is undefined for a whole file. */
  | { readonly type: "quarantined"; readonly db: string; readonly where: string; readonly pages: number | undefined }
  | { readonly type: "error"; readonly db: string; readonly code: string | undefined; readonly message: string };

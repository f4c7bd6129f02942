import type { DatabaseOptions } from "../database/database.ts";
import type { Clock } from "../log/clock.ts";
import type { LtxWork } from "../log/ltx-work.ts";
import type { RetentionLimits } from "../log/retention.ts";
import type { WorkSlots } from "../log/work-slots.ts";
import type { ObjectStore } from "../store/store.ts";
import type { Engine, EngineOptions } from "./engine.ts";
import type { Succession } from "./succession/succession.ts";
import type { NodeRole } from "./status.ts";
import type { Upstream } from "./upstream.ts";

export interface ProtectedOptions {
  readonly path: string;
  /** In the cluster: the same on every node. */
  readonly name: string;
  readonly store: ObjectStore;
  readonly prefix: string;
  readonly syncIntervalMs: number;
  readonly levels: readonly { readonly intervalMs: number }[];
  readonly snapshotIntervalMs: number;
  readonly retention: RetentionLimits;
  readonly slots: WorkSlots;
  /** Restore a database that isn't there. Otherwise it's waited for. */
  readonly restoreMissing: boolean;
  /** Put a database that the log doesn't know into the quarantine, and restore the log's. */
  readonly adopt: boolean;
  readonly acceptRollback: boolean;
  readonly limits?: DatabaseOptions["limits"];
  /** Other Sluices on this host that have the database, or want it. */
  readonly succession?: Succession | undefined;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** 0 ≤ x < 1, for jitter. Default: Math.random. */
  readonly random?: () => number;
  /** Default: real files. */
  readonly engine?: (options: EngineOptions) => Engine;
  /** Default: in threads. */
  readonly ltx?: LtxWork;
  /** For a node with others: its gates are closed until they are opened, and its role changes. */
  readonly cluster?: ClusterOptions;
}

export interface ClusterOptions {
  readonly role: NodeRole;
  readonly upstream: Upstream;
  /** Follow only the log, not the primary. */
  readonly storeOnly: boolean;
  /** Lets the locks of these descriptors live until the application is dead; called for each opening. */
  readonly hold: (key: string, descriptors: readonly number[]) => Promise<void>;
  /** A replica that is further behind is no member for durability at `replica`. */
  readonly memberLagMs: number;
  /** The user has said that members are gone for good: who isn't one may take over, too. */
  readonly isForced: () => boolean;
  /** These files were closed here: nobody needs to hold them any more. */
  readonly release: (key: string) => void;
}

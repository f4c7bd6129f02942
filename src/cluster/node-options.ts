import type { Config } from "../config/config.ts";
import type { LeaseRegister } from "../lease/lease.ts";
import type { Logger } from "../observe/log.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { ClusterOptions } from "./database-options.ts";
import type { Node } from "./node.ts";
import type { Peers } from "./peers.ts";
import type { Succession } from "./succession/succession.ts";

export interface NodeOptions {
  readonly config: Config;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** `run`: restore what is missing before the application starts. `replicate`: only where the configuration says so. */
  readonly restoreMissing: boolean;
  readonly adopt?: boolean;
  readonly acceptRollback?: boolean;
  /** Undefined for a node without others. */
  readonly cluster?: NodeCluster;
  /** Databases that another Sluice on this host has, or wants. */
  readonly succession?: Succession;
}

/** What a node of a cluster is made of besides its databases. */
export interface NodeCluster {
  readonly nodeId: string;
  readonly advertise: string;
  /** URL of this node's front door. */
  readonly proxy?: string;
  readonly candidate: boolean;
  readonly register: LeaseRegister;
  readonly ttlMs: number;
  readonly takeoverTimeoutMs: number;
  readonly handoffTimeoutMs: number;
  /** Lets the locks of these descriptors live until the application is dead. */
  readonly hold: ClusterOptions["hold"];
  readonly release: ClusterOptions["release"];
  /** A replica that is further behind is no member for durability at `replica`. */
  readonly memberLagMs: number;
  readonly peers: (node: Node) => Peers;
}

/** The resolved configuration: every default filled in, every path absolute, every spelling made one. */
export interface Config {
  /** The file it came from; undefined when it came from the command line. */
  readonly file: string | undefined;
  readonly dbs: readonly DbConfig[];
  readonly snapshotIntervalMs: number;
  readonly snapshotRetentionMs: number;
  readonly levels: readonly { readonly intervalMs: number }[];
  readonly l0RetentionMs: number;
  readonly shutdownSyncTimeoutMs: number;
  readonly node: { readonly name: string; readonly listen: ListenAddress | undefined };
  /** Metrics alone, without a secret. */
  readonly metricsListen: ListenAddress | undefined;
  readonly secret: string | undefined;
  /** Undefined for a node without others. */
  readonly cluster: ClusterConfig | undefined;
  readonly proxy: ProxyConfig | undefined;
  readonly exec: readonly ExecConfig[];
  readonly logging: { readonly level: string | undefined; readonly type: "text" | "json" | undefined };
}

/** A node among others. */
export interface ClusterConfig {
  /** URL at which the others reach this node's API. */
  readonly advertise: string;
  readonly tls: { readonly cert: string; readonly key: string; readonly ca?: string } | undefined;
  readonly lease: LeaseConfig;
}

/** Where the lease lies, and the times that go with it; meanings and defaults stand in the schema. */
interface LeaseConfig {
  readonly place: LeasePlace;
  readonly ttlMs: number;
  readonly takeoverTimeoutMs: number;
  readonly handoffTimeoutMs: number;
  readonly replicaTimeoutMs: number;
  readonly candidate: boolean;
  readonly promote: boolean;
}

export type LeasePlace =
  | { readonly type: "store"; readonly store: StoreConfig }
  | { readonly type: "file"; readonly path: string }
  | { readonly type: "static"; readonly primary: string }
  | {
      readonly type: "consul";
      readonly url: string;
      readonly key: string;
      readonly token: string | undefined;
      readonly lockDelayMs: number;
      readonly tls: LeaseTls | undefined;
    }
  | {
      readonly type: "etcd";
      /** Members of one etcd cluster. */
      readonly urls: readonly string[];
      readonly key: string;
      readonly username: string | undefined;
      readonly password: string | undefined;
      readonly tls: LeaseTls | undefined;
    };

/** PEM files for a server with a CA of its own, or that asks for a client's certificate. */
export interface LeaseTls {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface ListenAddress {
  /** Empty for all addresses of the machine. */
  readonly host: string;
  readonly port: number;
}

interface ExecConfig {
  readonly cmd: string;
  readonly on: "any" | "primary" | "replica";
  readonly wait: boolean;
}

/** When a write counts as done: committed here, on replicas that may take over, in the log. */
export type Durability = "local" | "replica" | "store";

export interface RouteConfig {
  readonly path: string;
  readonly mode: "pass" | "read" | "write" | undefined;
  readonly durability: Durability | undefined;
}

/** Where the application is: a TCP address or a Unix socket. */
export type AppAddress = ListenAddress | { readonly socketPath: string };

/** The front door; meanings and defaults stand in the schema. */
export interface ProxyConfig {
  readonly listen: ListenAddress;
  /** The URL at which other nodes' front doors reach this one; undefined for a lone node. */
  readonly advertise: string | undefined;
  readonly app: AppAddress;
  readonly durability: Durability;
  readonly durabilityTimeoutMs: number;
  readonly routes: readonly RouteConfig[];
  readonly readYourWrites: boolean;
  readonly holdReads: boolean;
  /** 0: no limit. */
  readonly maxLagMs: number;
  readonly forward: "proxy" | "fly-replay";
  readonly primaryTimeoutMs: number;
  readonly readTimeoutMs: number;
  readonly appTimeoutMs: number;
  readonly clientTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly connectionsMax: number;
  readonly headerBytesMax: number;
  /** Infinity: any. */
  readonly bodyBytesMax: number;
  readonly replayMemoryBytes: number;
  readonly replayDiskBytes: number;
  readonly replayDir: string;
  /** Addresses and networks, presets expanded. */
  readonly trustedProxies: readonly string[];
}

export type DbConfig = FileDb | DirectoryDb;

interface CommonDb {
  readonly store: StoreConfig;
  readonly syncIntervalMs: number;
  /** A replica follows only the store. */
  readonly storeOnly: boolean;
  /** `replicate` restores a missing database first; `run` always does. */
  readonly restoreIfMissing: boolean;
}

interface FileDb extends CommonDb {
  readonly kind: "file";
  readonly path: string;
}

export interface DirectoryDb extends CommonDb {
  readonly kind: "directory";
  readonly dir: string;
  readonly pattern: string;
  readonly recursive: boolean;
}

/** A store and how to get into it. Only `url` may be shown, and that through `redact`. */
export interface StoreConfig {
  readonly url: string;
  readonly settings: StoreSettings;
}

/** What a store may need beyond its URL; the names are Litestream's, in camel case. */
export interface StoreSettings {
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly sessionToken?: string;
  readonly region?: string;
  readonly endpoint?: string;
  readonly forcePathStyle?: boolean;
  readonly skipVerify?: boolean;
  readonly signPayload?: boolean;
  readonly storageClass?: string;
  readonly partSizeBytes?: number;
  readonly concurrency?: number;
  readonly sseCustomerKey?: string;
  readonly sseKmsKeyId?: string;
}

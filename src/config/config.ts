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
  readonly exec: readonly ExecConfig[];
  readonly logging: { readonly level: string | undefined; readonly type: "text" | "json" | undefined };
}

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

export interface ExecConfig {
  readonly cmd: string;
  readonly on: "any" | "primary" | "replica";
  readonly wait: boolean;
}

export type DbConfig = FileDb | DirectoryDb;

interface CommonDb {
  readonly store: StoreConfig;
  readonly syncIntervalMs: number;
  /** `replicate` restores a missing database first; `run` always does. */
  readonly restoreIfMissing: boolean;
}

export interface FileDb extends CommonDb {
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

import { readFileSync, realpathSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Config, DbConfig, DirectoryDb, ListenAddress, StoreConfig, StoreSettings } from "./config.ts";
import type { Environment } from "./expand.ts";
import { parseListen } from "./listen.ts";
import { resolveCluster } from "./resolve-cluster.ts";
import { resolveProxy } from "./resolve-proxy.ts";
import type { ConfigFile, StoreObject } from "./schema.ts";

/** A problem that shows only when values are put together; `path` leads to where it is in the file. */
export interface ResolveProblem {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** Fills in defaults and makes all spellings one; or says what doesn't fit together. */
export function resolveConfig(file: ConfigFile, name: string, env: Environment): Config | readonly ResolveProblem[] {
  const problems: ResolveProblem[] = [];
  const base = path.dirname(name);
  const dbs = file.dbs.flatMap((db, i) => resolveDb(db, ["dbs", i], { file, base, env, problems }) ?? []);
  findConflicts(dbs, problems);
  const address = (text: string | undefined, at: readonly PropertyKey[]): ListenAddress | undefined => {
    const parsed = text === undefined ? undefined : parseListen(text);
    if (text !== undefined && parsed === undefined)
      problems.push({ path: at, message: `"${text}" is no address such as 127.0.0.1:20202` });
    return parsed;
  };
  const listen = address(file.node.listen, ["node", "listen"]);
  const metricsListen = address(file.addr, ["addr"]);
  if (listen && !isLoopback(listen.host) && file.cluster.secret === undefined)
    problems.push({ path: ["node", "listen"], message: "cluster.secret is required unless node.listen is loopback" });
  const proxy =
    file.proxy &&
    resolveProxy(
      file.proxy,
      { base, advertise: file.node.advertise },
      (key, message) => void problems.push({ path: ["proxy", ...key], message }),
    );
  const storeAt = (url: string): StoreConfig | string => resolveStore({ url }, file, base, env);
  const cluster = resolveCluster(file, base, dbs, storeAt, (path, message) => void problems.push({ path, message }));
  for (const [i, { on }] of file.exec.entries())
    if (on === "replica" && cluster === undefined)
      problems.push({ path: ["exec", i, "on"], message: "a lone node is always the primary: this would never run" });
  if (problems.length > 0) return problems;
  return {
    file: name,
    dbs,
    snapshotIntervalMs: file.snapshot.interval,
    snapshotRetentionMs: file.snapshot.retention,
    levels: file.levels.map(({ interval }) => ({ intervalMs: interval })),
    l0RetentionMs: file["l0-retention"],
    shutdownSyncTimeoutMs: file["shutdown-sync-timeout"],
    node: { name: file.node.name ?? os.hostname(), listen },
    metricsListen,
    secret: file.cluster.secret,
    cluster,
    proxy,
    exec: file.exec,
    logging: { level: file.logging.level, type: file.logging.type },
  };
}

/** What a lone database from the command line is protected with: every default. */
export function configFor(db: string, storeUrl: string, env: Environment): Config | readonly ResolveProblem[] {
  const file: ConfigFile = {
    dbs: [{ path: db, store: storeUrl, pattern: "*.db", recursive: false, source: "primary" }],
    snapshot: { interval: 86_400_000, retention: 86_400_000 },
    levels: [{ interval: 30_000 }, { interval: 300_000 }, { interval: 3_600_000 }],
    "l0-retention": 300_000,
    "shutdown-sync-timeout": 30_000,
    node: {},
    cluster: {},
    exec: [],
    logging: {},
  };
  const resolved = resolveConfig(file, path.resolve("sluice.yml"), env);
  return Array.isArray(resolved) ? resolved : { ...(resolved as Config), file: undefined };
}

interface Context {
  readonly file: ConfigFile;
  readonly base: string;
  readonly env: Environment;
  readonly problems: ResolveProblem[];
}

function resolveDb(db: ConfigFile["dbs"][number], at: readonly PropertyKey[], context: Context): DbConfig | undefined {
  const { file, base, env, problems } = context;
  const spellings = [db.store, db.replica, db.replicas?.[0]].filter((value) => value !== undefined);
  const given = spellings[0];
  if (given === undefined || spellings.length > 1) {
    problems.push({ path: at, message: "a database needs one `store`" });
    return undefined;
  }
  if ((db.path === undefined) === (db.dir === undefined)) {
    problems.push({ path: at, message: "a database needs either `path` or `dir`" });
    return undefined;
  }
  const object: StoreObject = typeof given === "string" ? { url: given } : given;
  const store = resolveStore(object, file, base, env);
  if (typeof store === "string") {
    const key = ["store", "replica", "replicas"].find((name) => db[name as "store"] !== undefined)!;
    problems.push({ path: [...at, key], message: store });
    return undefined;
  }
  const common = {
    store,
    storeOnly: db.source === "store",
    syncIntervalMs: db["sync-interval"] ?? object["sync-interval"] ?? 1000,
    restoreIfMissing: db["restore-if-db-not-exists"] ?? false,
  };
  if (db.dir !== undefined)
    return {
      kind: "directory",
      dir: expandPath(db.dir, base, env),
      pattern: db.pattern,
      recursive: db.recursive,
      ...common,
    };
  return { kind: "file", path: expandPath(db.path!.replace(/^sqlite3?:\/\//, ""), base, env), ...common };
}

/** Litestream's object form as a URL and settings; a text says what is missing. */
function resolveStore(object: StoreObject, file: ConfigFile, base: string, env: Environment): StoreConfig | string {
  const merged = { ...defaultsOf(file), ...object };
  const settings = settingsOf(merged, base, env);
  if (typeof settings === "string") return settings;
  if (object.url !== undefined) return { url: absoluteUrl(object.url, base, env), settings };
  const type = object.type ?? (merged.bucket === undefined ? "file" : "s3");
  if (type === "file") {
    if (object.path === undefined) return "a store needs a `url` or a `path`";
    return { url: `file://${expandPath(object.path, base, env)}`, settings };
  }
  if (merged.bucket === undefined) return "an S3 store needs a `bucket` or a `url`";
  return { url: `s3://${merged.bucket}/${(object.path ?? "").replace(/^\/+/, "")}`, settings };
}

/** Settings at the top of the file are defaults for all stores, as in Litestream. */
function defaultsOf(file: ConfigFile): Partial<StoreObject> {
  const defaults: Record<string, unknown> = {};
  for (const key of Object.keys(file) as (keyof ConfigFile)[]) if (key in SETTING_NAMES) defaults[key] = file[key];
  return defaults;
}

/** What a key of the file is called in {@link StoreSettings}. */
export const SETTING_NAMES = {
  "access-key-id": "accessKeyId",
  "secret-access-key": "secretAccessKey",
  "session-token": "sessionToken",
  region: "region",
  endpoint: "endpoint",
  bucket: undefined,
  "force-path-style": "forcePathStyle",
  "skip-verify": "skipVerify",
  "sign-payload": "signPayload",
  "storage-class": "storageClass",
  "part-size": "partSizeBytes",
  concurrency: "concurrency",
  "sse-customer-key": "sseCustomerKey",
  "sse-customer-key-path": undefined,
  "sse-kms-key-id": "sseKmsKeyId",
} as const;

function settingsOf(object: StoreObject, base: string, env: Environment): StoreSettings | string {
  const settings: Record<string, unknown> = {};
  for (const [key, name] of Object.entries(SETTING_NAMES)) {
    const value = object[key as keyof StoreObject];
    if (name !== undefined && value !== undefined) settings[name] = value;
  }
  const keyFile = object["sse-customer-key-path"];
  try {
    if (keyFile !== undefined) settings["sseCustomerKey"] = readFileSync(expandPath(keyFile, base, env), "utf8").trim();
  } catch (error) {
    return `sse-customer-key-path can't be read: ${(error as Error).message}`;
  }
  settings["accessKeyId"] ??= env["LITESTREAM_ACCESS_KEY_ID"];
  settings["secretAccessKey"] ??= env["LITESTREAM_SECRET_ACCESS_KEY"];
  for (const key of ["accessKeyId", "secretAccessKey"]) if (settings[key] === undefined) delete settings[key];
  return settings;
}

/** `file://` URLs and plain paths may be relative to the configuration file. */
function absoluteUrl(url: string, base: string, env: Environment): string {
  if (url.includes("://")) return url;
  return `file://${expandPath(url, base, env)}`;
}

function expandPath(text: string, base: string, env: Environment): string {
  const home = text === "~" || text.startsWith("~/") ? path.join(env["HOME"] ?? os.homedir(), text.slice(1)) : text;
  return path.resolve(base, home);
}

/** One database protected twice, or two logs in one place, would each be two histories in one. */
function findConflicts(dbs: readonly DbConfig[], problems: ResolveProblem[]): void {
  for (const [i, db] of dbs.entries())
    for (const [j, other] of dbs.slice(0, i).entries()) {
      const path = ["dbs", i];
      const place = db.kind === "file" ? db.path : db.dir;
      if (overlap(db, other)) problems.push({ path, message: `${place} is protected by dbs[${j}] already` });
      if (shareLog(db, other))
        problems.push({ path, message: `dbs[${j}] uses the same store; every log needs a place of its own` });
    }
}

function overlap(a: DbConfig, b: DbConfig): boolean {
  if (a.kind === "file") return b.kind === "file" ? realPath(a.path) === realPath(b.path) : holds(b, a.path);
  if (b.kind === "file") return holds(a, b.path);
  // Whether two patterns can match one name is not worth deciding exactly: a pattern counts as one of its names.
  const patterns = path.matchesGlob(a.pattern, b.pattern) || path.matchesGlob(b.pattern, a.pattern);
  return patterns && (reaches(a, b.dir) || reaches(b, a.dir));
}

function holds(directory: DirectoryDb, file: string): boolean {
  return reaches(directory, path.dirname(file)) && path.matchesGlob(path.basename(file), directory.pattern);
}

function reaches({ dir, recursive }: DirectoryDb, folder: string): boolean {
  const [from, to] = [realPath(dir), realPath(folder)];
  return from === to || (recursive && to.startsWith(`${from}/`));
}

/** Behind symbolic links, as far as it's there. */
function realPath(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    const folder = path.dirname(file);
    return folder === file ? file : path.join(realPath(folder), path.basename(file));
  }
}

/** The logs of a directory's databases lie below its store. */
function shareLog(a: DbConfig, b: DbConfig): boolean {
  const [one, two] = [logPlace(a), logPlace(b)];
  if (one === two) return true;
  return (b.kind === "directory" && one.startsWith(`${two}/`)) || (a.kind === "directory" && two.startsWith(`${one}/`));
}

function logPlace({ store: { url, settings } }: DbConfig): string {
  const [location = "", query = ""] = url.split("?", 2);
  const endpoint = settings.endpoint ?? new URLSearchParams(query).get("endpoint") ?? "";
  return `${endpoint} ${location.replace(/\/+$/, "")}`;
}

export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host.startsWith("127.");
}

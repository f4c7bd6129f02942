import { isMap, shown, type Converted, type Map } from "./converted.ts";

/** Keys that mean the same in Sluice, in a replica and at the top. */
const SAME = new Set([
  "access-key-id",
  "secret-access-key",
  "region",
  "endpoint",
  "bucket",
  "path",
  "url",
  "type",
  "force-path-style",
  "skip-verify",
  "sign-payload",
  "storage-class",
  "part-size",
  "concurrency",
  "sse-customer-key",
  "sse-customer-key-path",
  "sse-kms-key-id",
  "sync-interval",
]);

const SAME_AT_TOP = new Set(["levels", "l0-retention", "exec", "shutdown-sync-timeout", "addr"]);
const SAME_IN_DB = new Set(["path", "dir", "pattern", "recursive", "restore-if-db-not-exists"]);

/** What Sluice does by itself or always, so that nothing is lost when the key goes. */
const NOT_NEEDED = new Set([
  "name",
  "monitor-interval",
  "checkpoint-interval",
  "min-checkpoint-page-count",
  "max-checkpoint-page-count",
  "truncate-page-n",
  "busy-timeout",
  "max-sync-wal-bytes",
  "l0-retention-check-interval",
  "shutdown-sync-interval",
  "verify-compaction",
  "auto-recover",
  "max-sync-ltx-files",
  "require-content-md5",
  "watch",
  "validation",
  "validation-interval",
  "socket",
]);

/** A litestream.yml of 0.5, or of 0.3, where retention and snapshots belonged to each replica. */
export function fromLitestream(source: Map): Converted {
  const remarks: string[] = [];
  const snapshot: Map = isMap(source["snapshot"]) ? { ...source["snapshot"] } : {};
  const dbs = (source["dbs"] as unknown[]).map((db, i) =>
    convertDb(isMap(db) ? db : {}, `dbs[${i}]`, snapshot, remarks),
  );
  const config: Map = { dbs };
  for (const [key, value] of Object.entries(source)) {
    if (key === "dbs" || key === "snapshot" || NOT_NEEDED.has(key)) continue;
    if (SAME.has(key) || SAME_AT_TOP.has(key)) config[key] = value;
    else if (key === "logging" && isMap(value)) config[key] = convertLogging(value);
    else remarks.push(`no counterpart: ${shown(key, value)}`);
  }
  if (Object.keys(snapshot).length > 0) config["snapshot"] = snapshot;
  return { config, remarks };
}

function convertLogging(logging: Map): Map {
  const { level, type } = logging;
  return {
    ...(level !== undefined && { level }),
    ...(type !== undefined && { type: type === "json" ? type : "text" }),
  };
}

function convertDb(db: Map, where: string, snapshot: Map, remarks: string[]): Map {
  const result: Map = {};
  const replicas = Array.isArray(db["replicas"]) ? (db["replicas"] as unknown[]) : [];
  const [replica, ...others] = db["replica"] === undefined ? replicas : [db["replica"], ...replicas];
  for (const [key, value] of Object.entries(db)) {
    if (key === "replica" || key === "replicas" || NOT_NEEDED.has(key)) continue;
    if (SAME_IN_DB.has(key)) result[key] = value;
    else if (key === "snapshot" && isMap(value)) merge(snapshot, value, `${where}.snapshot`, remarks);
    else remarks.push(`no counterpart: ${shown(`${where}.${key}`, value)}`);
  }
  if (replica !== undefined) result["store"] = convertReplica(replica, where, snapshot, remarks);
  for (const other of others) remarks.push(`one store for each database; left out: ${shown(where, other)}`);
  return result;
}

function convertReplica(replica: unknown, where: string, snapshot: Map, remarks: string[]): unknown {
  if (!isMap(replica)) return replica;
  const store: Map = {};
  for (const [key, value] of Object.entries(replica)) {
    if (SAME.has(key)) store[key] = value;
    else if (key === "retention") merge(snapshot, { retention: value }, where, remarks);
    else if (key === "snapshot-interval") merge(snapshot, { interval: value }, where, remarks);
    else if (!NOT_NEEDED.has(key)) remarks.push(`no counterpart: ${shown(`${where}.${key}`, value)}`);
  }
  const { type } = replica;
  if (type !== undefined && type !== "s3" && type !== "file")
    remarks.push(`${where}: stores of type ${JSON.stringify(type)} are not part of this version of Sluice`);
  const keys = Object.keys(store);
  return keys.length === 1 && keys[0] === "url" ? store["url"] : store;
}

/** Sluice has one snapshot setting for all databases: the first one counts. */
function merge(snapshot: Map, values: Map, where: string, remarks: string[]): void {
  for (const [key, value] of Object.entries(values)) {
    if (snapshot[key] === undefined) snapshot[key] = value;
    else if (snapshot[key] !== value)
      remarks.push(`one snapshot setting for all databases; left out: ${shown(`${where}.${key}`, value)}`);
  }
}

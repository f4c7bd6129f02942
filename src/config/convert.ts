import { readFileSync } from "node:fs";
import { Document, parse } from "yaml";
import { SluiceError } from "../errors/error.ts";

type Map = Record<string, unknown>;

/**
 * The text of a sluice.yml that does what a litestream.yml (0.3 or 0.5) or a litefs.yml did. What has no counterpart
 * stands in it as a comment. Throws SLU-1001 for a file that can't be read, SLU-1002 for one that is neither.
 */
export function convert(file: string): string {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new SluiceError("SLU-1001", `${file} can't be read: ${(cause as Error).message}`, { cause });
  }
  const source = (parse(text) ?? {}) as Map;
  if (isMap(source["fuse"]) || isMap(source["lease"]) || isMap(source["data"])) return render(fromLiteFs(source));
  if (Array.isArray(source["dbs"])) return render(fromLitestream(source));
  throw new SluiceError("SLU-1002", `${file} is neither a litestream.yml nor a litefs.yml`);
}

interface Converted {
  readonly config: Map;
  readonly remarks: readonly string[];
}

function render({ config, remarks }: Converted): string {
  const document = new Document(config);
  if (remarks.length > 0) document.commentBefore = remarks.map((remark) => ` ${remark}`).join("\n");
  return document.toString();
}

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

/** What Sluice does by itself, so that nothing is lost when the key goes. */
const NOT_NEEDED = new Set([
  "monitor-interval",
  "checkpoint-interval",
  "min-checkpoint-page-count",
  "max-checkpoint-page-count",
  "truncate-page-n",
  "busy-timeout",
  "max-sync-wal-bytes",
  "l0-retention-check-interval",
  "verify-compaction",
  "auto-recover",
  "max-sync-ltx-files",
  "require-content-md5",
  "watch",
  "validation-interval",
]);

function fromLitestream(source: Map): Converted {
  const remarks: string[] = [];
  const config: Map = {};
  const snapshot: Map = isMap(source["snapshot"]) ? { ...source["snapshot"] } : {};
  const dbs = (source["dbs"] as Map[]).map((db, i) => litestreamDb(db, `dbs[${i}]`, snapshot, remarks));
  config["dbs"] = dbs;
  for (const [key, value] of Object.entries(source)) {
    if (key === "dbs" || key === "snapshot") continue;
    if (SAME.has(key) || key === "levels" || key === "l0-retention" || key === "exec") config[key] = value;
    else if (key === "logging") config[key] = pick(value as Map, ["level", "type"]);
    else if (key === "shutdown-sync-timeout") config[key] = value;
    else if (key === "addr") config["node"] = { listen: value };
    else if (!NOT_NEEDED.has(key)) remarks.push(`no counterpart: ${key}: ${JSON.stringify(value)}`);
  }
  if (Object.keys(snapshot).length > 0) config["snapshot"] = snapshot;
  return { config, remarks };
}

function litestreamDb(db: Map, where: string, snapshot: Map, remarks: string[]): Map {
  const result: Map = {};
  for (const [key, value] of Object.entries(db)) {
    if (["path", "dir", "pattern", "recursive", "restore-if-db-not-exists"].includes(key)) result[key] = value;
    else if (key === "snapshot") Object.assign(snapshot, value);
    else if (key === "replica") result["store"] = litestreamReplica(value as Map, where, snapshot, remarks);
    else if (key === "replicas") {
      const [first, ...others] = value as Map[];
      if (first) result["store"] = litestreamReplica(first, where, snapshot, remarks);
      for (const other of others)
        remarks.push(`${where}: only one store for each database; left out: ${JSON.stringify(other)}`);
    } else if (!NOT_NEEDED.has(key)) remarks.push(`no counterpart: ${where}.${key}: ${JSON.stringify(value)}`);
  }
  return result;
}

function litestreamReplica(replica: Map | string, where: string, snapshot: Map, remarks: string[]): unknown {
  if (typeof replica === "string") return replica;
  const store: Map = {};
  for (const [key, value] of Object.entries(replica)) {
    if (SAME.has(key)) store[key] = value;
    // 0.3 had these for each replica.
    else if (key === "retention") snapshot["retention"] ??= value;
    else if (key === "snapshot-interval") snapshot["interval"] ??= value;
    else if (!NOT_NEEDED.has(key) && key !== "name")
      remarks.push(`no counterpart: ${where}.${key}: ${JSON.stringify(value)}`);
  }
  const keys = Object.keys(store);
  return keys.length === 1 && keys[0] === "url" ? store["url"] : store;
}

function fromLiteFs(source: Map): Converted {
  const remarks = [
    "LiteFS kept no backup in an object store: name one here.",
    "LiteFS mounted a file system; Sluice looks after the databases where they are.",
  ];
  const fuse = (source["fuse"] ?? {}) as Map;
  const dir = String(fuse["dir"] ?? "/litefs");
  const config: Map = { dbs: [{ dir, pattern: "*", store: `file://${dir}-store` }] };
  const exec = source["exec"];
  if (typeof exec === "string") config["exec"] = exec;
  else if (Array.isArray(exec)) {
    config["exec"] = (exec as Map[]).map((entry, i, all) => ({
      cmd: entry["cmd"],
      ...(entry["if-candidate"] === true && { on: "primary" }),
      // LiteFS waits for every command but the last.
      ...(i < all.length - 1 && { wait: true }),
    }));
  }
  for (const key of ["lease", "proxy", "http", "data", "strict-verify", "exit-on-error", "skip-sync", "log"])
    if (source[key] !== undefined) remarks.push(`not in this version: ${key}: ${JSON.stringify(source[key])}`);
  return { config, remarks };
}

function pick(map: Map, keys: readonly string[]): Map {
  return Object.fromEntries(Object.entries(map).filter(([key]) => keys.includes(key)));
}

function isMap(value: unknown): value is Map {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

import path from "node:path";
import type { Config, DbConfig, StoreSettings } from "../config/config.ts";
import { findConfig, loadConfig } from "../config/load.ts";
import { ask } from "../admin/client.ts";
import type { NodeStatus } from "../cluster/status.ts";
import { configFor } from "../config/resolve.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import type { ObjectStore } from "../store/store.ts";

/** A log in its store, and the database it belongs to where that is known. */
export interface Target {
  readonly store: ObjectStore;
  readonly prefix: string;
  readonly db: string | undefined;
}

export function readConfig(file: string | undefined): Config {
  return loadConfig(findConfig(file, process.env), process.env);
}

/** The configuration of one database and one store that stand on the command line. */
export function lone(db: string, store: string): Config {
  const url = store.includes("://") ? store : `file://${path.resolve(store)}`;
  const config = configFor(path.resolve(db), url, process.env);
  if ("dbs" in config) return config;
  throw new SluiceError("SLU-1002", config.map(({ message }) => message).join("\n"));
}

/**
 * What `DB|URL` on a command line names: a store's URL, a database of the configuration, or, where there's none, one that a
 * running Sluice looks after. Throws SLU-1001 and SLU-1003.
 */
export async function findTarget(given: string, file: string | undefined): Promise<Target> {
  if (given.includes("://")) return { store: await open(given), prefix: "", db: undefined };
  const db = path.resolve(given);
  const config = optionalConfig(file);
  if (config === undefined) return { store: await open(await runningStore(given, db)), prefix: "", db };
  for (const entry of config.dbs) if (prefixIn(entry, db) !== undefined) return { ...(await openLogOf(entry, db)), db };
  throw new SluiceError("SLU-1003", `${given} is not in the configuration`);
}

/** Undefined where none is named and none is in the usual places. */
export function optionalConfig(file: string | undefined): Config | undefined {
  try {
    return readConfig(file);
  } catch (error) {
    if (isSluiceError(error, "SLU-1001") && file === undefined) return undefined;
    throw error;
  }
}

/** The URL of the log of a database that a running process looks after. */
async function runningStore(given: string, db: string): Promise<string> {
  const { databases } = await ask<NodeStatus>(db, { method: "GET", path: "/v1/status" }).catch((cause: unknown) => {
    throw new SluiceError("SLU-1001", `no sluice.yml and no running Sluice says where the log of ${given} is`, {
      hint: "Name the store's URL in place of the database, or write a sluice.yml.",
      cause,
    });
  });
  const store = databases.find((one) => one.path === db)?.store;
  if (store !== undefined) return store;
  throw new SluiceError("SLU-1003", `${given} is not a database of the Sluice that runs here`);
}

/** The log of one database of a configuration's entry. */
export async function openLogOf(entry: DbConfig, db: string): Promise<{ store: ObjectStore; prefix: string }> {
  return { store: await open(entry.store.url, entry.store.settings), prefix: prefixIn(entry, db) ?? "" };
}

/** Stores load SQLite's locks: nothing for commands that don't use one. */
async function open(url: string, settings: StoreSettings = {}): Promise<ObjectStore> {
  const { openStore } = await import("../store/open.ts");
  return openStore(url, settings);
}

/** The folder of a database's log in its entry's store; undefined when the entry isn't about it. */
function prefixIn(entry: DbConfig, db: string): string | undefined {
  if (entry.kind === "file") return entry.path === db ? "" : undefined;
  const relative = path.relative(entry.dir, db);
  const inside = !relative.startsWith("..") && path.matchesGlob(path.basename(db), entry.pattern);
  return inside && (entry.recursive || !relative.includes("/")) ? relative : undefined;
}

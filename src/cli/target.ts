import path from "node:path";
import type { Config, DbConfig, StoreSettings } from "../config/config.ts";
import { findConfig, loadConfig } from "../config/load.ts";
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

/** What `DB|URL` on a command line names: a store's URL, or a database of the configuration. Throws SLU-1003. */
export async function findTarget(given: string, file: string | undefined): Promise<Target> {
  if (given.includes("://")) return { store: await open(given), prefix: "", db: undefined };
  const db = path.resolve(given);
  for (const entry of configWith(given, file).dbs)
    if (prefixIn(entry, db) !== undefined) return { ...(await openLogOf(entry, db)), db };
  throw new SluiceError("SLU-1003", `${given} is not in the configuration`);
}

/** The configuration in which a database is looked up; without any, its store must be named. */
function configWith(given: string, file: string | undefined): Config {
  try {
    return readConfig(file);
  } catch (error) {
    if (!isSluiceError(error, "SLU-1001") || file !== undefined) throw error;
    throw new SluiceError("SLU-1001", `${error.message}, so nothing says where the log of ${given} is`, {
      hint: "Name the store's URL in place of the database, or write a sluice.yml.",
      cause: error,
    });
  }
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

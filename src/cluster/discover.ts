import path from "node:path";
import type { ObjectStore } from "../store/store.ts";

/** What follows a database's name in the keys of its log, in both families of layout. */
const IN_LOG = /^(.+?)\/(?:ltx\/[0-9]\/[0-9a-f]{16}-[0-9a-f]{16}\.ltx|000[0-9]\/[0-9a-f]{16}-[0-9a-f]{16}\.ltx)$/;

/**
 * The databases of a directory that have a log in its store, as paths relative to the directory. Lists the whole store
 * once. Rejects as the store's `list` does.
 */
export async function databasesIn(store: ObjectStore, pattern: string, recursive: boolean): Promise<string[]> {
  const found = new Set<string>();
  for await (const { key } of store.list("")) {
    const name = IN_LOG.exec(key)?.[1];
    if (name === undefined || name.split("/").includes("..")) continue;
    if (!recursive && name.includes("/")) continue;
    if (path.matchesGlob(path.basename(name), pattern)) found.add(name);
  }
  return [...found];
}

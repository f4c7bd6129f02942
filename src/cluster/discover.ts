import type { ObjectStore } from "../store/store.ts";
import { isDatabasePath, type NamePattern } from "./database-names.ts";

/** What follows a database's name in the keys of its log, in both families of layout. */
const IN_LOG = /^(.+?)\/(?:ltx\/[0-9]\/[0-9a-f]{16}-[0-9a-f]{16}\.ltx|000[0-9]\/[0-9a-f]{16}-[0-9a-f]{16}\.ltx)$/;

/**
 * The databases of a directory that have a log in its store, as paths relative to the directory. Lists the whole store
 * once. Rejects as the store's `list` does.
 */
export async function databasesIn(store: ObjectStore, entry: NamePattern): Promise<string[]> {
  const found = new Set<string>();
  for await (const { key } of store.list("")) {
    const name = IN_LOG.exec(key)?.[1];
    if (name !== undefined && isDatabasePath(name, entry)) found.add(name);
  }
  return [...found];
}

import { mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { randomBytes } from "node:crypto";
import Sqlite from "better-sqlite3";
import { stateDirOf } from "../database/database.ts";
import { quarantineDirOf } from "../database/quarantine.ts";
import { markSeeded, seedState } from "../database/seed.ts";
import { peekState } from "../database/state.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { restore, type Restored } from "../log/restore.ts";
import type { ObjectStore } from "../store/store.ts";

export interface RestoreMissingOptions {
  readonly path: string;
  readonly store: ObjectStore;
  readonly prefix: string;
  readonly signal: AbortSignal;
  /** Told where batches are now that were in the deleted database and in no log. */
  readonly onQuarantined?: (where: string) => void;
}

/** Whether there is a database, or at least the beginning of one. */
export function isThere(file: string): boolean {
  return (statSync(file, { throwIfNoEntry: false })?.size ?? 0) > 0;
}

/** Changes with every commit, unless the clock stands still. */
export function stampOf(file: string): string {
  const stats = [file, `${file}-wal`].map((each) => statSync(each, { throwIfNoEntry: false, bigint: true }));
  return stats.map((each) => `${each?.ino} ${each?.size} ${each?.mtimeNs}`).join();
}

/**
 * Restores a database that isn't there, with the state from which this node goes on. Undefined when the log is empty:
 * the application may create it. Throws SLU-4113 when the store can't say, SLU-4106 when the log was ended on purpose, and
 * what `restore` throws otherwise.
 */
export async function restoreMissing(options: RestoreMissingOptions): Promise<Restored | undefined> {
  const { path: file, store, prefix, signal } = options;
  const stateDir = stateDirOf(file);
  // A file of 0 bytes holds nothing, but SQLite would delete a WAL beside it.
  rmSync(file, { force: true });
  mkdirSync(path.dirname(file), { recursive: true });
  const kept = keepUnsent(stateDir);
  if (kept !== undefined) options.onQuarantined?.(kept);
  try {
    const restored = await restore({
      store,
      prefix,
      path: file,
      signal,
      unlessEnded: true,
      onVerified: async (state) => {
        const { pageSums, checksum, txid } = state;
        if (txid === 0 || pageSums === undefined || checksum === undefined) return;
        await seedState(stateDir, {
          ...state,
          checksum,
          sums: pageSums,
          logId: state.logId ?? "",
          nodeId: newNodeId(),
        });
      },
    });
    await markSeeded(stateDir, file);
    return restored;
  } catch (error) {
    if (isSluiceError(error, "SLU-4501")) return undefined;
    if (!isSluiceError(error) || !error.code.startsWith("SLU-31")) throw error;
    throw new SluiceError(
      "SLU-4113",
      `${file} isn't there, and ${store.url} can't say what was in it: ${error.message}`,
      {
        cause: error,
      },
    );
  }
}

/** Random, and kept in the state: says which node's state it is. */
export function newNodeId(): string {
  return randomBytes(8).toString("hex");
}

/**
 * Batches of a deleted database that were never sent are in no log: they go to the quarantine, not away. Returns where
 * they are; undefined when the log has them all.
 */
function keepUnsent(stateDir: string): string | undefined {
  const ltx = path.join(stateDir, "ltx");
  if (!hasFiles(path.join(ltx, "0"))) return undefined;
  if (peekState(stateDir)?.frozen.length === 0) {
    rmSync(ltx, { recursive: true });
    return undefined;
  }
  const target = path.join(quarantineDirOf(stateDir), `deleted-${Date.now()}`);
  mkdirSync(path.dirname(target), { recursive: true, mode: 0o700 });
  renameSync(ltx, target);
  return target;
}

function hasFiles(dir: string): boolean {
  try {
    return readdirSync(dir).length > 0;
  } catch {
    return false;
  }
}

/**
 * `--adopt`: puts a database that has no place in the log, with its state, into the quarantine as a whole, so that
 * the log's can be restored. Returns where it is now.
 */
export function quarantineFile(file: string): string {
  mergeWal(file);
  const stateDir = stateDirOf(file);
  const target = path.join(quarantineDirOf(stateDir), new Date().toISOString().replaceAll(":", "-"));
  mkdirSync(target, { recursive: true, mode: 0o700 });
  for (const suffix of ["-wal", "-shm", "-journal", ""]) {
    const from = file + suffix;
    if (statSync(from, { throwIfNoEntry: false })) renameSync(from, path.join(target, path.basename(from)));
  }
  for (const name of ["state", "pages", "ltx"])
    if (statSync(path.join(stateDir, name), { throwIfNoEntry: false }))
      renameSync(path.join(stateDir, name), path.join(target, name));
  return target;
}

/** So that the file alone is the whole database, wherever a kill comes: the last close brings the WAL into it. */
function mergeWal(file: string): void {
  const connection = new Sqlite(file, { fileMustExist: true, timeout: 1000 });
  try {
    connection.pragma("wal_checkpoint(TRUNCATE)");
  } finally {
    connection.close();
  }
}

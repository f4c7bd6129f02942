import { readdirSync, statSync } from "node:fs";
import path from "node:path";
import type { DatabaseStatus, NodeStatus } from "../cluster/status.ts";
import type { DirectoryDb } from "../config/config.ts";
import { stateDirOf } from "../database/database.ts";
import { quarantineSize } from "../database/quarantined.ts";
import { peekState } from "../database/state.ts";
import { isSluiceError } from "../errors/error.ts";
import { LogLayout } from "../log/layout.ts";
import { listLog, LogListing } from "../log/listing.ts";
import { formatPosition } from "../ltx/position.ts";
import type { ObjectStore } from "../store/store.ts";
import { ask, nodesHere } from "./client.ts";
import { readOwner } from "./owner.ts";

/** A database that a status is wanted of, and its log where that is known. */
export interface Wanted {
  readonly path: string;
  readonly openLog: (() => Promise<{ readonly store: ObjectStore; readonly prefix: string }>) | undefined;
}

/** What a listing of the log says; asked for only where no process says more. */
interface LogSummary {
  readonly txid: number;
  readonly files: number;
  readonly sizeBytes: number;
  /** When the newest file was written, by the store's clock. */
  readonly writtenAt: string | undefined;
}

export interface ReportedDatabase extends DatabaseStatus {
  readonly inStore?: LogSummary;
}

export interface Report {
  /** The Sluice processes that look after the databases; none when Sluice isn't running. */
  readonly processes: readonly Omit<NodeStatus, "databases">[];
  readonly databases: readonly ReportedDatabase[];
}

/** How long a store may take to list a log before the report does without. */
const STORE_LIMIT_MS = 10_000;

/** What running processes say of the databases; for those that none looks after, what this disk and the store say. */
export async function report(wanted: readonly Wanted[]): Promise<Report> {
  const answers = new Map<number, NodeStatus>();
  const databases: ReportedDatabase[] = [];
  for (const one of wanted) {
    const pid = readOwner(one.path)?.pid;
    if (pid !== undefined && !answers.has(pid)) {
      const answer = await ask<NodeStatus>(one.path, { method: "GET", path: "/v1/status" });
      answers.set(pid, answer);
    }
    const known = pid === undefined ? undefined : answers.get(pid)?.databases.find(({ path }) => path === one.path);
    databases.push(known ?? (await atRest(one)));
  }
  return { processes: processesOf([...answers.values()]), databases };
}

/** What all of this user's processes on this machine say. */
export async function reportHere(): Promise<Report> {
  const nodes = await nodesHere();
  return { processes: processesOf(nodes), databases: nodes.flatMap(({ databases }) => databases) };
}

function processesOf(nodes: readonly NodeStatus[]): Report["processes"] {
  return nodes.map(({ databases: _databases, ...rest }) => rest);
}

/** The databases of a directory that have a state of Sluice's: those that are, or were, protected. */
export function databasesOf({ dir, pattern, recursive }: DirectoryDb): string[] {
  const found: string[] = [];
  for (const entry of readdirSync(dir, { recursive, withFileTypes: true })) {
    const name = /^\.(.+)-sluice$/.exec(entry.name)?.[1];
    if (name !== undefined && entry.isDirectory() && path.matchesGlob(name, pattern))
      found.push(path.join(entry.parentPath, name));
  }
  return found.sort();
}

async function atRest({ path: file, openLog }: Wanted): Promise<ReportedDatabase> {
  const state = peekState(stateDirOf(file));
  const log = openLog === undefined ? {} : await summarize(openLog);
  return {
    path: file,
    name: path.basename(file),
    role: state?.following === true ? "replica" : "primary",
    store: "",
    state: "closed",
    error: undefined,
    position: state && formatPosition(state.sealedPosition),
    sizeBytes: statSync(file, { throwIfNoEntry: false })?.size,
    walBytes: statSync(`${file}-wal`, { throwIfNoEntry: false })?.size,
    confirmed: state && {
      txid: state.confirmed.txid,
      position: formatPosition(state.confirmed.position),
      at: new Date(state.confirmed.timestampMs).toISOString(),
    },
    storeLagMs: undefined,
    frozen: state?.frozen.length,
    quarantined: quarantineSize(stateDirOf(file)),
    ...log,
  };
}

async function summarize(
  openLog: NonNullable<Wanted["openLog"]>,
): Promise<Partial<Pick<ReportedDatabase, "store" | "error" | "inStore">>> {
  try {
    const { store, prefix } = await openLog();
    try {
      const files = await listLog(store, new LogLayout(store.layout, prefix), {
        signal: AbortSignal.timeout(STORE_LIMIT_MS),
      });
      const newest = files.reduce((at, { modifiedMs }) => Math.max(at, modifiedMs), 0);
      return {
        store: prefix === "" ? store.url : `${store.url}/${prefix}`,
        inStore: {
          txid: new LogListing(files).head,
          files: files.length,
          sizeBytes: files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
          writtenAt: newest === 0 ? undefined : new Date(newest).toISOString(),
        },
      };
    } finally {
      await store.close();
    }
  } catch (error) {
    const known = isSluiceError(error);
    const message = error instanceof Error ? error.message : String(error);
    return { error: { code: known ? error.code : undefined, message, hint: known ? error.hint : "" } };
  }
}

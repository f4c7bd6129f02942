import { ftruncateSync, statSync } from "node:fs";
import Sqlite from "better-sqlite3";
import type { Quarantined } from "../database/quarantined.ts";
import { SluiceError } from "../errors/error.ts";
import { LogLayout } from "../log/layout.ts";
import { listLog } from "../log/listing.ts";
import { Reachable } from "../log/plan.ts";
import { listedHistory, readLogId } from "../log/restore-goal.ts";
import { Progress, type RestoreProgress } from "../log/restore-progress.ts";
import { fetchState } from "../log/restore.ts";
import type { RestoreTarget } from "../log/target.ts";
import { writeFully } from "../log/write-fully.ts";
import { lockPage } from "../ltx/header.ts";
import { formatPosition, NOTHING } from "../ltx/position.ts";
import type { ObjectStore } from "../store/store.ts";

/**
 * What quarantined pages are laid over:
 *
 * - `log`: the state of the log that both histories had, or the newest of it that is still there
 * - `now`: the database as it is now; right where its other pages have not changed since
 * - `nothing`: they are all pages there are
 */
export type Base =
  | { readonly kind: "log"; readonly txid: number }
  | { readonly kind: "now" }
  | { readonly kind: "nothing" };

export interface BaseSources {
  /** The database's log, where it's known. */
  readonly log?: { readonly store: ObjectStore; readonly prefix: string };
  /** The database as it is now; it need not be there. */
  readonly database: string;
  readonly onProgress?: (progress: RestoreProgress) => void;
  readonly signal?: AbortSignal;
}

/** Larger ones are not read into memory. */
const PICTURE_BYTES_MAX = 512 * 1024 * 1024;

/** The bases that come into question for an entry with LTX files, best first. */
export function basesOf(entry: Quarantined, sources: BaseSources): ("log" | "now" | "nothing")[] {
  const [first] = entry.files;
  if (first === undefined) return [];
  const { pageCount, pageSize } = first.header;
  const all = pageCount < lockPage(pageSize) ? pageCount : pageCount - 1;
  if (first.pages.length === all) return ["nothing"];
  const isInLog = sources.log !== undefined && first.header.minTxid > 1 && entry.common !== NOTHING;
  const isThere = (statSync(sources.database, { throwIfNoEntry: false })?.size ?? 0) > 0;
  return [...(isInLog ? (["log"] as const) : []), ...(isThere ? (["now"] as const) : [])];
}

/**
 * Writes a base into the temporary file of `target`. Throws SLU-1012 when the log's state is not the one that the entry
 * goes on from, and what a restore throws.
 */
export async function writeBase(
  kind: Base["kind"],
  entry: Quarantined,
  sources: BaseSources,
  target: RestoreTarget,
): Promise<Base> {
  ftruncateSync(target.fd, 0);
  if (kind === "log") return { kind, txid: await fetchCommon(entry, sources, target) };
  if (kind === "now") await copyNow(sources.database, target);
  return { kind };
}

async function fetchCommon(entry: Quarantined, sources: BaseSources, target: RestoreTarget): Promise<number> {
  const { log, signal, onProgress } = sources;
  if (log === undefined) throw new SluiceError("SLU-1012", `${entry.id}: nothing says where its log is`);
  const source = signal === undefined ? log : { ...log, signal };
  const txid = await nearestState(entry, log, signal);
  const state = await fetchState({ ...source, txid }, target, new Progress(onProgress));
  const known = entry.files.find(({ header }) => header.maxTxid === txid)?.position ?? entry.common;
  if (known !== undefined && state.position !== known) {
    throw new SluiceError(
      "SLU-1012",
      `${log.store.url}: the state after TXID ${txid.toString(16)} is ${formatPosition(state.position)}, and ${entry.id} goes on from ${formatPosition(known)}`,
    );
  }
  return txid;
}

/** The slot before the entry's first file; for several files any before the last one will do. */
async function nearestState(
  entry: Quarantined,
  { store, prefix }: { readonly store: ObjectStore; readonly prefix: string },
  signal: AbortSignal | undefined,
): Promise<number> {
  const first = entry.files[0]!.header.minTxid - 1;
  const last = entry.files.at(-1)!.header.maxTxid;
  const layout = new LogLayout(store.layout, prefix);
  const listed = await listLog(store, layout, signal === undefined ? {} : { signal });
  const files = listedHistory(listed, await readLogId(store, layout, signal));
  const txid = new Reachable(files).txids.find((state) => state >= first && state < last);
  if (txid !== undefined) return txid;
  throw new SluiceError(
    "SLU-1012",
    `${store.url}: the state after TXID ${first.toString(16)} is not in the log any more`,
  );
}

/** Without stopping anybody. A large one is copied by SQLite's backup, which changes a counter on its first page. */
async function copyNow(database: string, target: RestoreTarget): Promise<void> {
  let connection: Sqlite.Database | undefined;
  try {
    connection = new Sqlite(database, { readonly: true, fileMustExist: true, timeout: 5000 });
    const bytes = statSync(database).size + (statSync(`${database}-wal`, { throwIfNoEntry: false })?.size ?? 0);
    if (bytes > PICTURE_BYTES_MAX) await connection.backup(target.temporaryPath);
    else writeFully(target.fd, connection.serialize(), 0);
  } catch (error) {
    if (!(error instanceof Sqlite.SqliteError)) throw error;
    throw new SluiceError("SLU-1012", `${database}: ${error.code}: ${error.message}`, { cause: error });
  } finally {
    connection?.close();
  }
}

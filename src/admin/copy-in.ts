import { closeSync, openSync, readSync, statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import type { NodeStatus } from "../cluster/status.ts";
import { requireDatabase } from "../database/inspect.ts";
import { SluiceError } from "../errors/error.ts";
import { checkIntegrity, type IntegrityCheck } from "../log/integrity.ts";
import { ask } from "./client.ts";
import { type Copied, copyOut } from "./copy-out.ts";
import { readOwner } from "./owner.ts";

export interface ImportOptions {
  /** Also when tables of the database are not in the file. */
  readonly force?: boolean;
  /** Of the file, before anything is written. */
  readonly integrityCheck?: IntegrityCheck;
  /** How long to wait for a writer that holds the database. */
  readonly timeoutMs?: number;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
  readonly signal?: AbortSignal;
}

export interface Imported {
  readonly sizeBytes: number;
  /** There was no database before. */
  readonly isNew: boolean;
  /** How long writers had to wait. */
  readonly lockedMs: number;
}

/** Pages that are copied between two turns of the event loop. */
const STEP_PAGES = 2_000;
const RETRY_MS = 5;
const TIMEOUT_MS = 30_000;

/** What of a database other connections don't read again when it changes under them, so it must stay as it is. */
interface Layout {
  /** Bytes. */
  readonly pageSize: number;
  /** At the end of each page, for extensions (file format, section 1.3.4). */
  readonly reservedBytes: number;
  /** As `PRAGMA encoding`. */
  readonly encoding: string;
  /** As `PRAGMA auto_vacuum`: 0 none, 1 full, 2 incremental. */
  readonly autoVacuum: number;
}

const LAYOUT_NAMES: Readonly<Record<keyof Layout, string>> = {
  pageSize: "page size",
  reservedBytes: "reserved bytes a page",
  encoding: "text encoding",
  autoVacuum: "auto_vacuum",
};

/**
 * Puts the database in `file` in the place of the one at `db` as one commit (`sqlite3_backup`): readers in other processes
 * see the old state until it, and the new one from then on, without opening anything again; writers wait. To Sluice
 * it's a commit like any other. The file is only read. Killed on the way, the database is as it was.
 *
 * Throws SLU-2005 and SLU-2016 when `file` is no database, SLU-4507 when SQLite's check finds something in it, SLU-1015
 * when it can't take the place, SLU-1016 when a writer holds the database for `timeoutMs`, or it's a replica's.
 */
export async function copyIn(file: string, db: string, options: ImportOptions = {}): Promise<Imported> {
  const { integrityCheck = "quick", signal } = options;
  requireDatabase(file);
  if (isSameFile(file, db)) throw new SluiceError("SLU-1015", `${file} is ${db}`);
  await refuseOnReplica(db);
  if (integrityCheck !== "none") await checkIntegrity(file, integrityCheck, file);
  signal?.throwIfAborted();
  if ((statSync(db, { throwIfNoEntry: false })?.size ?? 0) === 0) return create(file, db, options);
  requireDatabase(db);
  requireFit(file, db, options.force ?? false);
  return replace(file, db, options);
}

/** Where there is no database there is nothing to be atomic with but the file's appearance. */
async function create(file: string, db: string, options: ImportOptions): Promise<Imported> {
  const { onProgress, signal } = options;
  const copied: Copied = await copyOut(file, db, {
    force: true,
    integrityCheck: "none",
    ...(onProgress && { onProgress }),
    ...(signal && { signal }),
  });
  return { sizeBytes: copied.sizeBytes, isNew: true, lockedMs: 0 };
}

function isSameFile(a: string, b: string): boolean {
  const [one, two] = [statSync(a), statSync(b, { throwIfNoEntry: false })];
  return one.ino === two?.ino && one.dev === two.dev;
}

async function refuseOnReplica(db: string): Promise<void> {
  if (readOwner(db) === undefined) return;
  const { databases } = await ask<NodeStatus>(db, { method: "GET", path: "/v1/status" });
  if (databases.find(({ path }) => path === db)?.role !== "replica") return;
  throw new SluiceError("SLU-1016", `${db} is a replica's: what is written here would be no commit`, {
    hint: "Import on the primary; `sluice status` says which node that is.",
  });
}

function requireFit(file: string, db: string, force: boolean): void {
  const [from, to] = [layoutOf(file), layoutOf(db)];
  for (const key of Object.keys(LAYOUT_NAMES) as (keyof Layout)[]) {
    if (from.layout[key] === to.layout[key]) continue;
    throw new SluiceError(
      "SLU-1015",
      `${file}: ${LAYOUT_NAMES[key]} ${from.layout[key]}, and ${db} has ${to.layout[key]}`,
    );
  }
  const missing = to.tables.filter((table) => !from.tables.includes(table));
  if (missing.length === 0 || force) return;
  throw new SluiceError("SLU-1015", `${file} doesn't have the tables ${missing.slice(0, 10).join(", ")} of ${db}`, {
    hint: "Is it the right file? --force imports it all the same; the tables are gone then.",
  });
}

function layoutOf(file: string): { readonly layout: Layout; readonly tables: readonly string[] } {
  const head = Buffer.alloc(100);
  const fd = openSync(file, "r");
  try {
    readSync(fd, head, 0, head.length, 0);
  } finally {
    closeSync(fd);
  }
  return withSqlite(
    () => reader(file),
    file,
    (connection) => ({
      layout: {
        pageSize: connection.pragma("page_size", { simple: true }) as number,
        reservedBytes: head[20]!,
        encoding: connection.pragma("encoding", { simple: true }) as string,
        autoVacuum: connection.pragma("auto_vacuum", { simple: true }) as number,
      },
      tables: connection.prepare("select name from sqlite_schema where type = 'table'").pluck().all() as string[],
    }),
  );
}

async function replace(file: string, db: string, options: ImportOptions): Promise<Imported> {
  const { timeoutMs = TIMEOUT_MS, signal } = options;
  const end = Date.now() + timeoutMs;
  const before = schemaOf(db);
  let source: Sqlite.Database | undefined;
  try {
    source = reader(file);
    // One read transaction around all steps: whoever writes to the file doesn't make the copy begin anew.
    source.exec("begin");
    source.prepare("select count(*) from sqlite_schema").get();
    for (;;) {
      signal?.throwIfAborted();
      const done = await copyOnce(source, db, options);
      if (done !== undefined && schemaOf(db) !== before) return done;
      if (Date.now() > end) throw new SluiceError("SLU-1016", `${db} was locked for ${timeoutMs} ms`);
      await sleep(RETRY_MS);
    }
  } catch (error) {
    if (!(error instanceof Sqlite.SqliteError)) throw error;
    throw new SluiceError("SLU-1016", `${db}: ${error.code}: ${error.message}`, { cause: error });
  } finally {
    source?.close();
  }
}

/**
 * Undefined when the database was locked. The backup takes its write lock with the first step, keeps it to the end, and
 * commits with the last; it tells "locked" by no pages. It also ends with "no pages left" where readers of a database
 * that has no WAL keep it from its commit: the caller looks whether there was one.
 */
async function copyOnce(source: Sqlite.Database, db: string, options: ImportOptions): Promise<Imported | undefined> {
  const { onProgress, signal } = options;
  const pageSize = source.pragma("page_size", { simple: true }) as number;
  const startedMs = performance.now();
  const { totalPages } = await source.backup(db, {
    progress: (progress) => {
      signal?.throwIfAborted();
      const done = progress.totalPages - progress.remainingPages;
      onProgress?.(done * pageSize, progress.totalPages * pageSize);
      return STEP_PAGES;
    },
  });
  if (totalPages === 0) return undefined;
  return { sizeBytes: totalPages * pageSize, isNew: false, lockedMs: performance.now() - startedMs };
}

/** A number that each copy raises by one (`sqlite3_backup_step`), so that other connections read the schema again. */
function schemaOf(db: string): number {
  const open = (): Sqlite.Database => new Sqlite(db, { readonly: true, fileMustExist: true, timeout: 5000 });
  return withSqlite(open, db, (connection) => connection.pragma("schema_version", { simple: true }) as number);
}

/** Not read-only as SQLite means it: such a connection would leave a WAL and a wal-index beside the file. */
function reader(file: string): Sqlite.Database {
  const connection = new Sqlite(file, { fileMustExist: true, timeout: 5000 });
  connection.pragma("query_only = on");
  return connection;
}

function withSqlite<T>(open: () => Sqlite.Database, file: string, work: (connection: Sqlite.Database) => T): T {
  let connection: Sqlite.Database | undefined;
  try {
    connection = open();
    return work(connection);
  } catch (error) {
    if (!(error instanceof Sqlite.SqliteError)) throw error;
    throw new SluiceError("SLU-1015", `${file}: ${error.code}: ${error.message}`, { cause: error });
  } finally {
    connection?.close();
  }
}

import { mkdtempSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import Sqlite from "better-sqlite3";
import type { Quarantined } from "../database/quarantined.ts";
import { RestoreTarget } from "../log/target.ts";
import { type BaseSources, writeBase } from "./quarantine-base.ts";
import { type Extracted, extractQuarantined } from "./quarantine-extract.ts";

/** What an entry has of one table or index. */
export interface ShownTable {
  /** As in `sqlite_schema`; of an index the table that it belongs to is `table`. */
  readonly name: string;
  readonly table: string;
  /** Of the entry's pages; undefined for a whole file. */
  readonly pages: number | undefined;
  /** Rows that the state before didn't have; undefined where that can't be compared. Of tables only. */
  readonly written: number | undefined;
  /** Rows that only the state before had. */
  readonly removed: number | undefined;
  /** Rows that the database as it is now doesn't have. */
  readonly missing: number | undefined;
}

export interface Shown {
  readonly extracted: Extracted;
  readonly tables: readonly ShownTable[];
  /** Pages that belong to no table: free ones, or where the structure can't be read. */
  readonly otherPages: number;
  /** Rows were compared with the database as it is now. */
  readonly comparedWithNow: boolean;
}

/**
 * Looks at what an entry holds: puts its database together in a scratch directory, which is removed again, asks SQLite
 * which table each page belongs to (`dbstat`), and counts the rows that differ. Works as long as SQLite does without a
 * turn for others: for commands. Throws as `extractQuarantined`.
 */
export async function showQuarantined(
  entry: Quarantined,
  sources: BaseSources,
  scratchDir = os.tmpdir(),
): Promise<Shown> {
  const dir = mkdtempSync(path.join(scratchDir, "sluice-quarantine-"));
  try {
    const own = path.join(dir, "own.db");
    const extracted = await extractQuarantined({ ...sources, entry, to: own });
    const before = await baseFile(entry, sources, extracted, path.join(dir, "before.db"));
    const now = (statSync(sources.database, { throwIfNoEntry: false })?.size ?? 0) > 0 ? sources.database : undefined;
    return { extracted, ...compare(entry, own, before, now) };
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The state that the pages were laid over, as a file of its own; undefined where there was none. */
async function baseFile(
  entry: Quarantined,
  sources: BaseSources,
  { base }: Extracted,
  file: string,
): Promise<string | undefined> {
  if (base?.kind !== "log") return undefined;
  const target = await RestoreTarget.create(file);
  try {
    await writeBase("log", entry, sources, target);
    await target.install();
  } finally {
    await target.discard();
  }
  return file;
}

function compare(
  entry: Quarantined,
  own: string,
  before: string | undefined,
  now: string | undefined,
): Omit<Shown, "extracted"> {
  const db = new Sqlite(own, { readonly: true, timeout: 5000 });
  try {
    if (before !== undefined) db.prepare("attach ? as before").run(before);
    const comparedWithNow = now !== undefined && attach(db, now);
    const pages = entry.files.length === 0 ? undefined : pagesByName(db, entry);
    const schema = attempt(
      () => db.prepare("select name, tbl_name, type from sqlite_schema where rootpage > 0").all() as SchemaRow[],
    );
    const names = [{ name: "sqlite_schema", tbl_name: "sqlite_schema", type: "table" }, ...(schema ?? [])];
    const tables = names
      .filter(({ name }) => pages === undefined || pages.has(name))
      .map(({ name, tbl_name, type }) => {
        const rows = (a: string, b: string): number | undefined =>
          type === "table" ? countDifference(db, name, a, b) : undefined;
        return {
          name,
          table: tbl_name,
          pages: pages?.get(name),
          written: before === undefined ? undefined : rows("main", "before"),
          removed: before === undefined ? undefined : rows("before", "main"),
          missing: comparedWithNow ? rows("main", "now") : undefined,
        };
      });
    const all = new Set(entry.files.flatMap((file) => [...file.pages])).size;
    const named = [...(pages?.values() ?? [])].reduce((sum, count) => sum + count, 0);
    return { tables, otherPages: all - named, comparedWithNow };
  } finally {
    db.close();
  }
}

interface SchemaRow {
  readonly name: string;
  readonly tbl_name: string;
  readonly type: string;
}

function attach(db: Sqlite.Database, file: string): boolean {
  return attempt(() => db.prepare("attach ? as now").run(file)) !== undefined;
}

/** How many of the entry's pages each table and index has. */
function pagesByName(db: Sqlite.Database, entry: Quarantined): Map<string, number> {
  const pages = new Set(entry.files.flatMap((file) => [...file.pages]));
  const counts = new Map<string, number>();
  attempt(() => {
    const all = db.prepare("select name, pageno from main.dbstat").iterate() as Iterable<{
      readonly name: string;
      readonly pageno: number;
    }>;
    for (const { name, pageno } of all) if (pages.has(pageno)) counts.set(name, (counts.get(name) ?? 0) + 1);
  });
  return counts;
}

/** Rows of a table in `a` that are not in `b`; all of them where `b` has no such table. */
function countDifference(db: Sqlite.Database, table: string, a: string, b: string): number | undefined {
  return attempt(() => {
    const name = `"${table.replaceAll('"', '""')}"`;
    if (!hasTable(db, table, a)) return 0;
    if (!hasTable(db, table, b)) return db.prepare(`select count(*) from ${a}.${name}`).pluck().get() as number;
    // Rows that are equal but for their rowid are two rows.
    const id = db.prepare("select wr from pragma_table_list(?) where schema = ?").pluck().get(table, a) === 0;
    const columns = id ? "rowid, *" : "*";
    const sql = `select count(*) from (select ${columns} from ${a}.${name} except select ${columns} from ${b}.${name})`;
    return db.prepare(sql).pluck().get() as number;
  });
}

function hasTable(db: Sqlite.Database, table: string, schema: string): boolean {
  return (
    table === "sqlite_schema" ||
    db.prepare(`select 1 from ${schema}.sqlite_schema where name = ?`).get(table) !== undefined
  );
}

/** Undefined where SQLite can't: a damaged page, other columns than before. */
function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (error instanceof Sqlite.SqliteError) return undefined;
    throw error;
  }
}

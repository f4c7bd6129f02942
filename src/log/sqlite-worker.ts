import Database from "better-sqlite3";
import { parentPort, workerData } from "node:worker_threads";

/** What SQLite is to do with a file, in a thread of its own: each can take minutes for a large database. */
export type SqliteTask =
  /** `PRAGMA quick_check` or `integrity_check`; the answer lists what it found, nothing when the file is sound. */
  | { readonly task: "quick_check" | "integrity_check"; readonly path: string }
  /** Merges a leftover WAL, or rolls back a leftover journal, so that the database is whole in its one file. */
  | { readonly task: "merge"; readonly path: string };

export type SqliteAnswer =
  | { readonly problems: readonly string[] }
  /** SQLite's result code ("SQLITE_NOTADB") and message. */
  | { readonly sqliteCode: string; readonly message: string };

/** What is reported of a damaged database at most. */
const PROBLEMS_MAX = 20;

function run(task: SqliteTask): SqliteAnswer {
  try {
    const db = new Database(task.path, { fileMustExist: true, timeout: 2000 });
    try {
      if (task.task === "merge") {
        // A read rolls a hot journal back, and in WAL mode recovers the WAL.
        db.prepare("SELECT count(*) FROM sqlite_schema").get();
        db.pragma("wal_checkpoint(TRUNCATE)");
        return { problems: [] };
      }
      // Nothing of the check may be written to the file; its own pages are read once, so a large cache is no use.
      db.pragma("query_only = on");
      const rows = db.prepare(`PRAGMA ${task.task}(${PROBLEMS_MAX})`).pluck().all() as string[];
      return { problems: rows.length === 1 && rows[0] === "ok" ? [] : rows };
    } finally {
      db.close();
    }
  } catch (error) {
    if (error instanceof Database.SqliteError) return { sqliteCode: error.code, message: error.message };
    throw error;
  }
}

parentPort?.postMessage(run(workerData as SqliteTask));

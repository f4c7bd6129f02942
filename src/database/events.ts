import type { Position } from "../ltx/position.ts";
import type { Passed } from "./passing.ts";
import type { Repair } from "./header-repair.ts";
import type { Recovery } from "./recover.ts";

/** What a database tells the node that has it open; for logs, metrics and decisions. */
export type DatabaseEvent =
  /** It was offered to a successor, and writers were held up for `heldMs`. */
  | { readonly type: "passed"; readonly outcome: Passed; readonly heldMs: number }
  /** How the database stood to its state at start; `pages` differ, `frames` were in the WAL. */
  | { readonly type: "recovered"; readonly how: Recovery["kind"]; readonly detail: string }
  /** What leaves the database's history was saved first; `pages` is undefined for batches. */
  | { readonly type: "quarantined"; readonly path: string; readonly pages: number | undefined }
  /** The WAL was merged into the database file and begins anew. */
  | { readonly type: "wal-restarted"; readonly position: Position }
  /** Very many frames can't be merged: a reader pins them (SLU-2011). False: it is over. */
  | { readonly type: "backlog"; readonly on: boolean; readonly frames: number }
  /** A killed application had left the wal-index header torn. */
  | { readonly type: "index-repaired"; readonly how: Repair }
  /** SQLite had left committed frames without checksums. */
  | { readonly type: "frames-healed" }
  /** Something failed and is tried again. */
  | { readonly type: "failed"; readonly error: Error }
  /** SLU-2006 or SLU-2007: nothing is captured any more. Close this database and open it anew. */
  | { readonly type: "lost"; readonly error: Error };

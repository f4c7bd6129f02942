import type { DatabaseEvent } from "../database/events.ts";
import type { SluiceError } from "../errors/error.ts";
import type { LogEvent } from "../log/context.ts";
import type { Position } from "../ltx/position.ts";
import type { DatabaseState } from "./status.ts";

/** What a `ProtectedDatabase` tells. */
export interface ProtectedEvents {
  state: [DatabaseState];
  database: [DatabaseEvent];
  log: [LogEvent];
  /** Commits were captured up to the position. */
  captured: [Position];
  /** A change of the primary's, or of the log's, was applied. */
  applied: [Position];
  restored: [{ readonly txid: number; readonly elapsedMs: number }];
  adopted: [string];
  /** It can't go on by itself: another writer has the log, or the log refuses this database. */
  refused: [SluiceError];
  /** Another node writes the log: this one must step down. */
  deposed: [SluiceError];
  /** On a replica: the log has everything up to the position. */
  placed: [Position];
  /** Something failed and is tried again. */
  failed: [Error];
}

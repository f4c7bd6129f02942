import type { Database } from "../database/database.ts";
import { type Clock, delay } from "../log/clock.ts";
import { logContext, type LogEvent } from "../log/context.ts";
import { ltxJobs } from "../log/ltx-jobs.ts";
import { LogWriter } from "../log/log-writer.ts";
import type { SluiceError } from "../errors/error.ts";
import { formatPosition, type Position } from "../ltx/position.ts";
import type { ProtectedOptions } from "./database-options.ts";
import { newNodeId } from "./restore-missing.ts";

/** Takes over the log of a database and writes it from then on; `onLost` when it's another writer's. */
export async function openWriter(
  options: ProtectedOptions,
  database: Database,
  on: {
    readonly log: (event: LogEvent) => void;
    readonly captured: (position: Position) => void;
    readonly ended: (error: SluiceError) => void;
  },
  signal: AbortSignal,
): Promise<LogWriter> {
  const { store, prefix, slots, syncIntervalMs, levels, snapshotIntervalMs, retention, acceptRollback } = options;
  const { clock, random, ltx = ltxJobs } = options;
  const writer = await LogWriter.open(
    {
      context: logContext(store, { prefix, onEvent: on.log, ...(clock && { clock }), ...(random && { random }) }),
      database,
      nodeId: database.logState?.nodeId || newNodeId(),
      ltx,
      slots,
      syncIntervalMs,
      levels,
      snapshotIntervalMs,
      retention,
      acceptRollback,
      onEnded: on.ended,
    },
    signal,
  );
  const shipped = database.onCaptured;
  database.onCaptured = (position) => {
    shipped(position);
    on.captured(position);
  };
  return writer;
}

/** Everything committed is in the log, and the last record names no member. */
export async function drain(database: Database, writer: LogWriter, clock: Clock, signal: AbortSignal): Promise<void> {
  database.nameMembers([]);
  await database.freeze();
  await writer.sync(signal);
  while (database.frozen.length > 0) await delay(clock, 1, signal);
}

/** A sentence about commits that are on this disk only; undefined when there are none. */
export function unsent({ path, isConfirmed, logState }: Database): string | undefined {
  if (isConfirmed) return undefined;
  const since = logState === undefined ? "of this database" : `after ${formatPosition(logState.confirmed.position)}`;
  return `${path}: commits ${since} are on this disk and not in the store`;
}

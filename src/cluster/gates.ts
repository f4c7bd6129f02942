import type { Database } from "../database/database.ts";
import { type Clock, delay } from "../log/clock.ts";

/** Between two tries; in each, the lock is asked for several times, because a busy writer lets go for microseconds. */
const RETRY_MS = 1;
const BURST = 64;

/** A transaction that did not end in time: its process can be killed. */
export interface StuckWriter {
  readonly path: string;
  /** 0 where it can't be told. */
  readonly pid: number;
}

/**
 * Closes the gate of a database (protocol section 7, Step-down 2): waits for the transaction that is under way, and from
 * `killAfterMs` on calls `onStuck` for its process, once a process. Resolves when the gate is closed; rejects when
 * `signal` is aborted first.
 */
export async function closeGate(
  database: Pick<Database, "path" | "closeGate" | "writerPid">,
  killAfterMs: number,
  onStuck: (writer: StuckWriter) => void,
  clock: Clock,
  signal?: AbortSignal,
): Promise<void> {
  const startedMs = clock.elapsedMs();
  const told = new Set<number>();
  for (;;) {
    for (let i = 0; i < BURST; i++) if (database.closeGate()) return;
    signal?.throwIfAborted();
    if (clock.elapsedMs() - startedMs >= killAfterMs) {
      const pid = database.writerPid;
      if (!told.has(pid)) onStuck({ path: database.path, pid });
      told.add(pid);
    }
    await delay(clock, RETRY_MS);
  }
}

import { setTimeout as sleep } from "node:timers/promises";
import { lockHolder, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import type { Database } from "../database/database.ts";

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
  database: Database,
  killAfterMs: number,
  onStuck: (writer: StuckWriter) => void,
  signal?: AbortSignal,
): Promise<void> {
  const startedMs = performance.now();
  const told = new Set<number>();
  for (;;) {
    for (let i = 0; i < BURST; i++) if (database.closeGate()) return;
    signal?.throwIfAborted();
    if (performance.now() - startedMs >= killAfterMs) {
      const [, shm] = database.descriptors;
      const pid = lockHolder(shm!, "shared", WAL_WRITE_LOCK)?.pid ?? 0;
      if (!told.has(pid)) onStuck({ path: database.path, pid });
      told.add(pid);
    }
    await sleep(RETRY_MS);
  }
}

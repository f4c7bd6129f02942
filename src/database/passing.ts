import { setImmediate as immediate, setTimeout as sleep } from "node:timers/promises";
import type { LiveWal } from "./live-wal.ts";

/**
 * What became of a database that a successor was to take: it has it, the database is still here as before, or a
 * transaction didn't end in time and nothing was given up.
 */
export type Passed = "taken" | "kept" | "busy";

/** Tries for the WRITE lock in one turn: a saturating writer leaves gaps of a few µs between its transactions. */
const BURST = 64;
const BUSY_MS = 2_000;
/** How long writers may be held up for a successor. */
const HOLD_MS = 50;
const LOOK_MS = 5;

/**
 * Gives the checkpoint lock of a database to another Sluice on this host, which already shares SHARED, DMS and the pin:
 * nobody can restart the WAL until one of the two is gone, and **who holds CKPT is the owner**. To be called from the
 * database's queue, when nothing sends its batches any more.
 *
 *     owner ─ WRITE taken, everything captured, CKPT released ─► offered ─ "taken" ─► not the owner: to be closed
 *       ▲                                                         │
 *       └── CKPT taken back: the successor is gone, or had not ───┘
 *           taken it within HOLD_MS
 *
 * Applications wait at most `HOLD_MS`, and as a rule a millisecond. Held up they can't commit, so none of them tries a
 * checkpoint while nobody has the lock; one that was asked for by hand would find everything captured. A successor
 * that stops between its lock and its word keeps both sides waiting: that is a stopped owner, and its end gives the
 * lock back.
 *
 * `offer` tells the successor that the lock is free; resolves with whether it has taken it. `heldMs`: how long writers
 * were held up.
 */
export async function passCheckpoint(
  wal: LiveWal,
  offer: () => Promise<boolean>,
): Promise<{ readonly outcome: Passed; readonly heldMs: number }> {
  const { locks } = wal;
  if (!(await takeWrite(wal))) return { outcome: "busy", heldMs: 0 };
  const heldSinceMs = performance.now();
  let heldMs: number;
  const word = { isTaken: false };
  let answered: Promise<void>;
  try {
    wal.captureNow();
    locks.releaseCheckpoint();
    answered = offer().then(
      (isTaken) => void (word.isTaken = isTaken),
      () => undefined,
    );
    await Promise.race([answered, sleep(HOLD_MS)]);
  } finally {
    locks.releaseWrite();
    heldMs = performance.now() - heldSinceMs;
  }
  while (!word.isTaken) {
    if (locks.take() === undefined) {
      // A successor that took it and died has said so before: its word is read within a turn of the loop.
      await immediate();
      await immediate();
      return { outcome: word.isTaken ? "taken" : "kept", heldMs };
    }
    await Promise.race([answered, sleep(LOOK_MS)]);
    if (!word.isTaken) await sleep(LOOK_MS);
  }
  return { outcome: "taken", heldMs };
}

async function takeWrite({ locks }: LiveWal): Promise<boolean> {
  const deadline = performance.now() + BUSY_MS;
  do {
    for (let i = 0; i < BURST; i++) if (locks.tryWrite()) return true;
    await sleep(1);
  } while (performance.now() < deadline);
  return false;
}

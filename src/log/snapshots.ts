import type { DatabaseSnapshot, LoggedDatabase } from "../database/contract.ts";
import { isSluiceError } from "../errors/error.ts";
import type { Position } from "../ltx/position.ts";
import { Backoff, UPKEEP_TRIES_MAX, type LogContext } from "./context.ts";
import { SNAPSHOT_LEVEL } from "./layout.ts";
import type { LogFile } from "./listing.ts";
import type { LtxWork } from "./ltx-work.ts";

export interface SnapshotsOptions {
  readonly context: LogContext;
  readonly database: LoggedDatabase;
  readonly ltx: LtxWork;
  /** Resolves when everything up to the position is in the log. */
  readonly waitFor: (position: Position, signal: AbortSignal) => Promise<void>;
  /** The name of the state after a slot that was confirmed in this life; undefined for older ones. */
  readonly confirmedPosition: (txid: number) => Position | undefined;
}

export interface SnapshotFile extends LogFile {
  readonly position: Position;
  readonly timestampMs: number;
}

/**
 * Writes the whole database into the log as `1-N` on level 9: the state at the cut of N, sent only after N is
 * confirmed, so that a deposed primary's database never gets there. Writers go on meanwhile; a picture that lasts too
 * long for them is given up by the database, and so is this.
 */
export class Snapshots {
  readonly #options: SnapshotsOptions;

  constructor(options: SnapshotsOptions) {
    this.#options = options;
  }

  /**
   * Returns the new file, or undefined when the picture could not be kept for long enough. Throws SLU-4109, and the
   * store's errors when it does not answer for long.
   */
  async write(signal: AbortSignal): Promise<SnapshotFile | undefined> {
    const { context, database, waitFor, confirmedPosition } = this.#options;
    const startedMs = context.clock.now();
    const snapshot = await database.snapshot();
    try {
      const both = AbortSignal.any([signal, snapshot.signal]);
      await waitFor(snapshot.position, both);
      const confirmed = database.logState?.confirmed;
      if (confirmed === undefined || confirmed.txid < snapshot.txid) return undefined;
      // A batch that waited for long may have been sealed anew with more in it: then the slot has another cut.
      if ((confirmedPosition(snapshot.txid) ?? snapshot.position) !== snapshot.position) return undefined;
      const sizeBytes = await this.#upload(snapshot, both);
      const { txid, position, timestampMs } = snapshot;
      const modifiedMs = context.clock.now();
      context.onEvent({ type: "snapshot", txid, sizeBytes, tookMs: modifiedMs - startedMs });
      const key = context.layout.key(SNAPSHOT_LEVEL, 1, txid);
      return { key, level: SNAPSHOT_LEVEL, minTxid: 1, maxTxid: txid, sizeBytes, modifiedMs, position, timestampMs };
    } catch (error) {
      const isGivenUp = snapshot.signal.aborted && !signal.aborted;
      if (isGivenUp && !isSluiceError(error, "SLU-4000")) return undefined;
      throw error;
    } finally {
      snapshot.release();
    }
  }

  /** Sends the file until the store has it; each try encodes it anew, from the same picture. Returns its size. */
  async #upload(snapshot: DatabaseSnapshot, signal: AbortSignal): Promise<number> {
    const { context, ltx } = this.#options;
    const key = context.layout.key(SNAPSHOT_LEVEL, 1, snapshot.txid);
    const backoff = new Backoff(context, `snapshot ${key}`, UPKEEP_TRIES_MAX);
    for (;;) {
      const counted = count(ltx.encodeSnapshot(snapshot));
      const answer = await context.store
        .put(key, counted.body, { condition: "absent", timestampMs: snapshot.timestampMs, signal })
        .catch((cause: unknown) => ({ outcome: "undecided" as const, cause }));
      if (answer.outcome === "written") return counted.sizeBytes();
      // One with this name is there: of the same state, since N is confirmed. Its size is as good as ours.
      if (answer.outcome === "refused") return counted.sizeBytes();
      await backoff.wait(answer.cause, signal);
    }
  }
}

function count(chunks: AsyncIterable<Uint8Array>): {
  readonly body: AsyncIterable<Uint8Array>;
  readonly sizeBytes: () => number;
} {
  let sizeBytes = 0;
  const body = (async function* () {
    for await (const chunk of chunks) {
      sizeBytes += chunk.length;
      yield chunk;
    }
  })();
  return { body, sizeBytes: () => sizeBytes };
}

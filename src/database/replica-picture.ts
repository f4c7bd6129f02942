import { setTimeout as sleep } from "node:timers/promises";
import { SluiceError } from "../errors/error.ts";
import type { Followed } from "./followed.ts";
import type { LiveWal } from "./live-wal.ts";
import type { ResyncSource } from "./replication.ts";
import { resyncSource } from "./resync-source.ts";

/** How long backfills wait for a picture. */
const PICTURE_MS = 30_000;
/** How long a change may take to be captured after it was shown. */
const SETTLE_MS = 1_000;

/**
 * A consistent picture of a replica's database at its present position: while it's there nothing is backfilled. Ends
 * when `ended` is aborted, or its time is over. Throws SLU-2012 where the state has no name, or no record was placed.
 */
export async function pictureOf(wal: LiveWal, followed: Followed, ended: AbortSignal): Promise<ResyncSource> {
  const untilMs = performance.now() + SETTLE_MS;
  while (!followed.isSettled && performance.now() < untilMs) await sleep(1);
  const { record, position, sums } = followed;
  if (!followed.isSettled || !followed.isKnown || record === undefined || ended.aborted) {
    throw new SluiceError("SLU-2012", `${wal.files.path}: its state has no name just now`);
  }
  const view = wal.view(wal.capture.frame, sums.count);
  const given = new AbortController();
  const timer = setTimeout(() => given.abort(), PICTURE_MS);
  const signal = AbortSignal.any([given.signal, ended]);
  const resume = wal.pause();
  const release = (): void => {
    clearTimeout(timer);
    resume();
  };
  signal.addEventListener("abort", release, { once: true });
  const snapshot = {
    position,
    checksum: sums.checksum,
    pageSize: wal.pageSize,
    pageCount: sums.count,
    signal,
    read: async (firstPage: number, into: Uint8Array) => {
      signal.throwIfAborted();
      await view.read(firstPage, into);
      // What was read after the end may be of a later state.
      signal.throwIfAborted();
    },
    release,
  };
  return resyncSource(snapshot, sums.words.slice(), record);
}

import { SNAPSHOT_LEVEL } from "./layout.ts";
import type { LogFile, LogListing } from "./listing.ts";

export interface RetentionLimits {
  /** Level-0 objects younger than this stay, for restores to any second and for readers that follow. */
  readonly l0RetentionMs: number;
  /** The log can be restored to any time that is at most this long ago. */
  readonly snapshotRetentionMs: number;
}

export const DEFAULT_RETENTION: RetentionLimits = {
  l0RetentionMs: 5 * 60_000,
  snapshotRetentionMs: 24 * 60 * 60_000,
};

/**
 * A file justifies deletions only when it's at least this old: then an object that a late PUT creates in a slot that
 * was deleted is younger than the cover by the store's clock, also when that counts whole seconds, and can be told.
 */
const COVER_AGE_MS = 10_000;

/** What the header of a level-0 object says about deleting it. */
export interface RecordFate {
  /** The record with which an epoch began: it stays for ever, so that its slot can't be written again. */
  readonly isTakeover: boolean;
}

export interface RetentionPlan {
  readonly deletable: readonly LogFile[];
  /** Level-0 objects that may go, but whose header nobody has read; newest first. */
  readonly unread: readonly LogFile[];
}

/**
 * What may be deleted (protocol section 7). Every deletion is justified by a listed file of a higher level that covers
 * it, or by a newer snapshot, so that deleters with different pictures of the log never delete each other's reasons:
 *
 * - level 0: covered by a higher level, older than `l0RetentionMs`, not the newest; its header was read and is no
 *   takeover record's (slot 1 excepted: nobody was before it);
 * - levels 1 to 8: they end before the oldest snapshot that is kept; the newest of each level stays, because it says
 *   how far the level is;
 * - what makes one of the states that somebody's quarantine builds on stays on every level;
 * - snapshots: a newer one is already older than `snapshotRetentionMs`, so every time in that span is still reached.
 */
export function planRetention(
  listing: LogListing,
  fateOf: (file: LogFile) => RecordFate | undefined,
  limits: RetentionLimits,
  nowMs: number,
  kept: ReadonlySet<string> = new Set(),
): RetentionPlan {
  const deletable: LogFile[] = [];
  const unread: LogFile[] = [];
  for (const file of listing.level(0).slice(0, -1)) {
    const fate = fateOf(file);
    if (kept.has(file.key)) continue;
    const isFence = fate?.isTakeover === true && file.maxTxid !== 1;
    if (isFence || nowMs - file.modifiedMs < limits.l0RetentionMs) continue;
    const cover = listing.cover(file.minTxid, file.maxTxid, 0);
    if (cover === undefined || nowMs - cover.modifiedMs < COVER_AGE_MS) continue;
    (fate === undefined ? unread : deletable).push(file);
  }
  const snapshots = listing.level(SNAPSHOT_LEVEL);
  const oldestKept = Math.max(
    0,
    snapshots.findLastIndex((file) => nowMs - file.modifiedMs >= limits.snapshotRetentionMs),
  );
  deletable.push(...snapshots.slice(0, oldestKept).filter((file) => !kept.has(file.key)));
  const floor = snapshots[oldestKept];
  if (floor !== undefined && nowMs - floor.modifiedMs >= limits.snapshotRetentionMs) {
    for (let level = 1; level < SNAPSHOT_LEVEL; level++) {
      deletable.push(
        ...listing
          .level(level)
          .slice(0, -1)
          .filter((file) => file.maxTxid < floor.maxTxid && !kept.has(file.key)),
      );
    }
  }
  return { deletable, unread: unread.toReversed() };
}

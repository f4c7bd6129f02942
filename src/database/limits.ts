/** When the WAL is merged and restarted (protocol section 4), and how long opening tries. */
export interface DatabaseLimits {
  /** Frames that are captured and not yet in the database file, from which on a backfill starts. */
  readonly backfillFrames: number;
  /** The same, from which on there is an alarm: a reader pins them, and every read gets slower. */
  readonly alarmFrames: number;
  /** Length of the WAL from which on it is restarted when that disturbs nobody. */
  readonly restartBytes: number;
  /** Length from which on a restart waits for the write lock. */
  readonly hardBytes: number;
  /** How long opening waits for locks that others hold. */
  readonly openMs: number;
  /** How long a snapshot may keep backfills waiting. */
  readonly snapshotMs: number;
  /** By how much the WAL may grow under a snapshot. */
  readonly snapshotBytes: number;
}

const MIB = 1024 * 1024;

export const defaultLimits: DatabaseLimits = {
  backfillFrames: 1_000,
  alarmFrames: 64_000,
  restartBytes: 64 * MIB,
  hardBytes: 256 * MIB,
  openMs: 10_000,
  snapshotMs: 10 * 60_000,
  snapshotBytes: 256 * MIB,
};

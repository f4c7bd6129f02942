import { SNAPSHOT_LEVEL } from "./layout.ts";
import type { LogFile, LogListing } from "./listing.ts";

/** A compaction level: level `n` is the n-th of the configuration's list, from 1 on. */
export interface Level {
  readonly intervalMs: number;
}

/** Litestream's defaults. */
export const DEFAULT_LEVELS: readonly Level[] = [
  { intervalMs: 30_000 },
  { intervalMs: 5 * 60_000 },
  { intervalMs: 60 * 60_000 },
];

/** One file to be made: the records `minTxid` … `maxTxid`, from sources in order, each going on where the last ended. */
export interface Compaction {
  readonly level: number;
  readonly minTxid: number;
  readonly maxTxid: number;
  readonly sources: readonly LogFile[];
}

/** What a level may take in. */
export type Intake =
  /** Sources in order, each beginning at or before the slot after the one before. */
  | { readonly kind: "sources"; readonly sources: readonly LogFile[] }
  /** The level below goes on behind a hole that neither it nor a snapshot bridges. */
  | { readonly kind: "hole"; readonly afterTxid: number };

/**
 * What the level below `level` has above what `level` has (protocol section 7: "a source is any file with Max above
 * what the level has"). Where the files right after that are gone, or the level is still empty, it begins behind the
 * newest snapshot instead: everything older is reached through that. `skippedTxid`: so it does where files up to there
 * are damaged.
 */
export function intake(listing: LogListing, level: number, skippedTxid = 0): Intake {
  const have = Math.max(listing.maxTxid(level), skippedTxid);
  const below = listing.level(level - 1);
  if (have > 0) {
    const sources = chain(below, have);
    if (sources !== undefined) return { kind: "sources", sources };
  }
  const snapshot = listing.maxTxid(SNAPSHOT_LEVEL);
  const sources = chain(below, Math.max(have, snapshot));
  return sources === undefined ? { kind: "hole", afterTxid: Math.max(have, snapshot) } : { kind: "sources", sources };
}

/**
 * The files to be made now. Cuts lie between records of different windows of the level's interval, by the time in the
 * records, so that whoever compacts, and whenever, makes the same files; a window is compacted when it's over.
 * `timeOf` gives the header time of a source (ms), which never decreases along the log.
 */
export function planLevel(
  level: number,
  intervalMs: number,
  sources: readonly LogFile[],
  timeOf: (file: LogFile) => number,
  nowMs: number,
): Compaction[] {
  const plans: Compaction[] = [];
  for (let start = 0; start < sources.length;) {
    const endMs = windowEnd(timeOf(sources[start]!), intervalMs);
    if (endMs > nowMs) break;
    let end = start + 1;
    while (end < sources.length && timeOf(sources[end]!) < endMs) end++;
    const run = sources.slice(start, end);
    plans.push({ level, minTxid: run[0]!.minTxid, maxTxid: run.at(-1)!.maxTxid, sources: run });
    start = end;
  }
  return plans;
}

/** End of the window of wall-clock multiples of `intervalMs` that holds `timeMs`; exclusive. */
export function windowEnd(timeMs: number, intervalMs: number): number {
  return Math.floor(timeMs / intervalMs) * intervalMs + intervalMs;
}

/**
 * Files that lead from the state of `afterTxid` to the end of the level, shortest first where they overlap; undefined
 * when there's a hole on the way. `files` are in order of their ends.
 */
function chain(files: readonly LogFile[], afterTxid: number): LogFile[] | undefined {
  const found: LogFile[] = [];
  let at = afterTxid;
  for (let i = firstAbove(files, afterTxid); i < files.length; i++) {
    const file = files[i]!;
    if (file.maxTxid <= at) continue;
    if (file.minTxid <= at + 1) {
      found.push(file);
      at = file.maxTxid;
      continue;
    }
    // A longer one may still begin early enough, and covers this.
    if (!files.slice(i + 1).some((other) => other.minTxid <= at + 1)) return undefined;
  }
  return found;
}

function firstAbove(files: readonly LogFile[], txid: number): number {
  let low = 0;
  let high = files.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (files[middle]!.maxTxid <= txid) low = middle + 1;
    else high = middle;
  }
  return low;
}

import { SluiceError } from "../errors/error.ts";
import type { ObjectInfo } from "../store/store.ts";

/** An object of a Litestream 0.3 backup: `generations/<16 hex>/snapshots|wal/…lz4`. */
export interface OldObject {
  readonly key: string;
  readonly generation: string;
  /** Number of the WAL file since the generation began. */
  readonly index: number;
  /** Where the segment begins in that WAL; -1 for a snapshot. */
  readonly offset: number;
  readonly sizeBytes: number;
  /** Of a file the modification time, as Litestream reads it, which stays when a backup is copied with its times. */
  readonly modifiedMs: number;
}

/** What to restore from a 0.3 backup: a snapshot, then each WAL from its first segment on. */
export interface OldPlan {
  readonly generation: string;
  readonly snapshot: OldObject;
  /** Segments in order, one list for each WAL index; the offsets within one are checked when it's read. */
  readonly wals: readonly (readonly OldObject[])[];
  readonly sizeBytes: number;
  /** When the last object of the plan was written. */
  readonly timestampMs: number;
}

const SNAPSHOT = /(?:^|\/)generations\/([0-9a-f]{16})\/snapshots\/([0-9a-f]{8})\.snapshot\.lz4$/;
const SEGMENT = /(?:^|\/)generations\/([0-9a-f]{16})\/wal\/([0-9a-f]{8})_([0-9a-f]{8,16})\.wal\.lz4$/;

/** What a key names, or undefined for anything that Litestream 0.3 doesn't write. */
export function parseOldObject(info: ObjectInfo): OldObject | undefined {
  const { key, sizeBytes, statedMs: modifiedMs = info.modifiedMs } = info;
  const match = SNAPSHOT.exec(key) ?? SEGMENT.exec(key);
  if (match === null) return undefined;
  const [, generation, index, offset] = match;
  return {
    key,
    generation: generation!,
    index: parseInt(index!, 16),
    offset: offset === undefined ? -1 : parseInt(offset, 16),
    sizeBytes,
    modifiedMs,
  };
}

/**
 * Chooses generation, snapshot and segments for the newest state, or for the newest one written until `timestampMs`.
 * A generation is one uninterrupted life of Litestream beside the database; the one written to last that holds the
 * time is the right one. Times are those of the objects, as Litestream 0.3 has no others.
 *
 * Throws SLU-4501 without any snapshot, SLU-4503 when the time is older than all, SLU-4512 for a missing segment.
 */
export function planOld(objects: readonly OldObject[], timestampMs: number | undefined, url: string): OldPlan {
  const until = timestampMs ?? Infinity;
  let best: { snapshot: OldObject; updatedMs: number } | undefined;
  for (const [, members] of Map.groupBy(objects, (o) => o.generation)) {
    const snapshot = members
      .filter((o) => o.offset < 0 && o.modifiedMs <= until)
      .toSorted((a, b) => a.index - b.index)
      .at(-1);
    if (snapshot === undefined) continue;
    const updatedMs = Math.max(...members.filter((o) => o.modifiedMs <= until).map((o) => o.modifiedMs));
    if (best === undefined || updatedMs > best.updatedMs) best = { snapshot, updatedMs };
  }
  if (best === undefined) throw nothing(objects, timestampMs, url);

  const { snapshot } = best;
  const segments = objects
    .filter((o) => o.generation === snapshot.generation && o.offset >= 0 && o.index >= snapshot.index)
    .toSorted((a, b) => a.index - b.index || a.offset - b.offset);
  const wals: OldObject[][] = [];
  let sizeBytes = snapshot.sizeBytes;
  let lastMs = snapshot.modifiedMs;
  for (const segment of segments) {
    if (segment.modifiedMs > until) break;
    if (segment.offset === 0) {
      if (segment.index !== snapshot.index + wals.length) throw missing(url, segment);
      wals.push([]);
    } else if (segment.index !== snapshot.index + wals.length - 1) throw missing(url, segment);
    wals.at(-1)!.push(segment);
    sizeBytes += segment.sizeBytes;
    lastMs = Math.max(lastMs, segment.modifiedMs);
  }
  return { generation: snapshot.generation, snapshot, wals, sizeBytes, timestampMs: lastMs };
}

function nothing(objects: readonly OldObject[], timestampMs: number | undefined, url: string): SluiceError {
  const snapshots = objects.filter((o) => o.offset < 0);
  if (timestampMs === undefined || snapshots.length === 0) {
    return new SluiceError("SLU-4501", `${url}: there is no snapshot here`);
  }
  const oldest = Math.min(...snapshots.map((o) => o.modifiedMs));
  return new SluiceError("SLU-4503", `${url}: no snapshot is as old as ${new Date(timestampMs).toISOString()}`, {
    hint: `The oldest is of ${new Date(oldest).toISOString()}.`,
  });
}

function missing(url: string, segment: OldObject): SluiceError {
  return new SluiceError("SLU-4512", `${url}: WAL segments before ${segment.key} are missing`);
}

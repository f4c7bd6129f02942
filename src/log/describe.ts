import { isSluiceError } from "../errors/error.ts";
import { isTakeover } from "../ltx/record.ts";
import type { Position } from "../ltx/position.ts";
import type { ObjectStore } from "../store/store.ts";
import { LogLayout } from "./layout.ts";
import { listLevel, listLog, type LogFile } from "./listing.ts";
import { readLtxHeader } from "./ltx-file.ts";
import { Slots } from "./slots.ts";

/** Headers that are read at once. */
const READS = 16;

/** One LTX file of a log as `sluice ltx` shows it. */
export interface DescribedFile extends LogFile {
  /** Time in the header, ms since 1970. */
  readonly timestampMs: number;
  readonly pageSize: number;
  /** Pages in the database after it. */
  readonly pageCount: number;
  /** What Sluice says in the header; undefined in a file of Litestream. */
  readonly record: DescribedRecord | undefined;
}

interface DescribedRecord {
  readonly position: Position;
  readonly epoch: number;
  /** The record with which its epoch began. */
  readonly takeover: boolean;
}

/**
 * The LTX files of a log, or of one level, in order of levels and TXIDs, with what their headers say: one small read
 * each. A file that is gone by then (compaction) is left out. Rejects as the store does, and with SLU-5001.
 */
export async function describeLog(
  source: { readonly store: ObjectStore; readonly prefix: string },
  options: { readonly level?: number; readonly signal?: AbortSignal } = {},
): Promise<DescribedFile[]> {
  const { store, prefix } = source;
  const { level, signal = new AbortController().signal } = options;
  const layout = new LogLayout(store.layout, prefix);
  const files = await (level === undefined
    ? listLog(store, layout, { signal })
    : listLevel(store, layout, level, signal));
  const slots = new Slots(READS);
  const described = await Promise.all(
    files.map(async (file) => {
      await slots.acquire(signal);
      try {
        return await describe(store, file, signal);
      } finally {
        slots.release();
      }
    }),
  );
  return described.filter((file) => file !== undefined);
}

async function describe(store: ObjectStore, file: LogFile, signal: AbortSignal): Promise<DescribedFile | undefined> {
  try {
    const { timestampMs, pageSize, pageCount, record } = await readLtxHeader(store, file, signal);
    return {
      ...file,
      timestampMs,
      pageSize,
      pageCount,
      record: record && {
        position: record.position,
        epoch: record.epoch,
        takeover: file.level === 0 && isTakeover(file.maxTxid, record),
      },
    };
  } catch (error) {
    if (isSluiceError(error, "SLU-3404")) return undefined;
    throw error;
  }
}

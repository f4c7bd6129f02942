import { isSluiceError, SluiceError } from "../errors/error.ts";
import { readLtxHeader } from "./ltx-file.ts";
import type { ObjectStore } from "../store/store.ts";
import type { LogLayout } from "./layout.ts";
import { listLog, type LogFile } from "./listing.ts";
import { planNewest, planTimestamp, planTxid, withoutStrays, type Plan } from "./plan.ts";
import { readObject } from "./read-object.ts";

/** Which state: the newest without either, else the one after a slot, or the newest at or before a time. */
export interface RestoreGoal {
  readonly txid?: number;
  readonly timestampMs?: number;
  /** Throws SLU-4106 where `sluice forget` has ended the log. */
  readonly unlessEnded?: boolean;
}

export interface ChosenState {
  readonly plan: Plan;
  /** Of the log's `sluice.json`; undefined where there is none, as in Litestream's. */
  readonly logId: string | undefined;
}

/**
 * Lists the log and plans. A gap may be a listing that was made while files moved up: it's looked at twice.
 * Throws as the planner and the store do.
 */
export async function chooseState(
  store: ObjectStore,
  layout: LogLayout,
  goal: RestoreGoal & { readonly signal?: AbortSignal },
): Promise<ChosenState> {
  try {
    return await choose(store, layout, goal);
  } catch (error) {
    if (!isSluiceError(error, "SLU-4504")) throw error;
    return await choose(store, layout, goal);
  }
}

async function choose(
  store: ObjectStore,
  layout: LogLayout,
  goal: RestoreGoal & { readonly signal?: AbortSignal },
): Promise<ChosenState> {
  const { txid, timestampMs, signal } = goal;
  const listed = await listLog(store, layout, signal === undefined ? {} : { signal });
  const identity = await readLogId(store, layout, signal);
  if (goal.unlessEnded === true && identity?.ended !== undefined)
    throw new SluiceError("SLU-4106", `${store.url}: the log was ended on ${identity.ended}`);
  const files = listedHistory(listed, identity);
  const logId = identity?.logId;
  if (txid !== undefined) return { plan: planTxid(files, txid, store.url), logId };
  if (timestampMs === undefined) return { plan: planNewest(files, store.url), logId };
  const timeOf = async (file: LogFile): Promise<number> => (await readLtxHeader(store, file, signal)).timestampMs;
  return { plan: await planTimestamp(files, timestampMs, timeOf, store.url), logId };
}

/** Without strays in the part of the log that Sluice wrote. */
export function listedHistory(files: readonly LogFile[], identity: LogId | undefined): readonly LogFile[] {
  if (identity === undefined) return files;
  const ours = withoutStrays(files);
  if (identity.base === 0 || ours.length === files.length) return ours;
  const kept = new Set(ours);
  return files.filter((file) => file.maxTxid <= identity.base || kept.has(file));
}

export interface LogId {
  readonly logId: string;
  /** The last slot that Litestream wrote, in a log that Sluice has continued. */
  readonly base: number;
  /** When `sluice forget` ended the log. */
  readonly ended?: string;
}

const IDENTITY_MAX_BYTES = 64 * 1024;

/** What a restore needs of `sluice.json`; one that makes no sense doesn't keep anybody from their data. */
export async function readLogId(
  store: ObjectStore,
  layout: LogLayout,
  signal?: AbortSignal,
): Promise<LogId | undefined> {
  try {
    const bytes = await readObject(store, layout.identityKey, IDENTITY_MAX_BYTES, signal);
    const { logId, base, ended } = JSON.parse(Buffer.from(bytes).toString("utf8")) as Partial<LogId>;
    if (typeof logId !== "string") return undefined;
    return {
      logId,
      base: typeof base === "number" ? base : 0,
      ...(typeof ended === "string" && { ended }),
    };
  } catch (error) {
    if (isSluiceError(error, "SLU-3404") || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

import { randomBytes } from "node:crypto";
import type { FrozenBatch, LoggedDatabase, LogState } from "../database/contract.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { formatPosition, NOTHING, position as positionOf, type Position } from "../ltx/position.ts";
import { append } from "./append.ts";
import { Backoff, throwIfStopped, untilAnswered, type LogContext } from "./context.ts";
import { ensureIdentity, readIdentity, type LogIdentity } from "./identity.ts";
import { formatTxid } from "./layout.ts";
import { listLog, LogListing, type LogFile } from "./listing.ts";
import { readRecord, type RecordInfo } from "./record-access.ts";
import { passed, rejoin } from "./rejoin.ts";

export interface TakeoverOptions {
  readonly context: LogContext;
  readonly database: LoggedDatabase;
  /** Random and kept by this node; part of the state from the first record on. */
  readonly nodeId: string;
  /** Go on behind the old number although the store has less than it had confirmed. */
  readonly acceptRollback?: boolean;
  readonly signal: AbortSignal;
  /** 64 random bits, never 0: drawn for each attempt. Default: from the system's generator. */
  readonly drawWriter?: () => bigint;
}

/** A begun epoch: the database may be written, and what it commits may be appended. */
export interface Epoch {
  readonly logId: string;
  /** The slot of the takeover record. */
  readonly epoch: number;
  /** The whole log, its newest record included. */
  readonly listing: LogListing;
  /** First slot that no file covers: a snapshot has to bridge it at once. */
  readonly gap: number | undefined;
}

interface Survey {
  readonly identity: LogIdentity;
  readonly listing: LogListing;
  /** The log ends before what the state has confirmed, and the user has accepted that. */
  readonly rolledBack: boolean;
}

/**
 * Begins an epoch of one database (protocol section 7, Takeover; section 10, Rejoin), for a node whose lease is
 * `none` or `static`: one that was passed by another writer stops, instead of following it.
 *
 *     survey: list the log, read its identity; refuse, start it, or go on
 *       ▼
 *     settle: batches of an earlier life are sent, unchanged and in order ── refused ─► SLU-4101
 *       ▼
 *     compare: the log ends where the state says ── further ─► SLU-4101; not by Sluice ─► SLU-4103
 *       ▼
 *     claim: freeze the takeover record for the next slot, append it ── lost ─► survey
 *       ▼
 *     verify: nothing else covers the slot or lies above it ── otherwise ─► survey
 *       ▼
 *     begin
 *
 * Killed anywhere: the frozen record is still there and is settled first in the next life. The record may also land
 * later, when nobody waits for it any more: that is an epoch without a commit, which this database can be placed on.
 */
export async function takeOver(options: TakeoverOptions): Promise<Epoch> {
  const { context, signal } = options;
  const gone = new Backoff(context, "read the log");
  for (;;) {
    throwIfStopped(context, signal);
    try {
      const epoch = await attempt(options);
      if (epoch !== undefined) return epoch;
    } catch (error) {
      // What was listed is in a file of a higher level now.
      if (!isSluiceError(error, "SLU-3404")) throw error;
      await gone.wait(error, signal);
    }
  }
}

/** Undefined when the log has to be looked at anew; throws SLU-3404 when it changed while it was looked at. */
async function attempt(options: TakeoverOptions): Promise<Epoch | undefined> {
  const { context, database } = options;
  const { identity, listing, rolledBack } = await survey(options);
  if (!(await settle(options, listing))) return undefined;
  const state = boundState(database);
  const head = Math.max(listing.head, state.confirmed.txid);
  const timestampMs = await compare(options, identity, listing, state);
  const writer = (options.drawWriter ?? drawWriter)();
  const batch = await database.freezeTakeover({
    txid: head + 1,
    writer,
    minTimestampMs: Math.max(timestampMs, state.confirmed.timestampMs),
    full: head === 0 || rolledBack,
  });
  if (!(await claim(options, batch, listing))) return undefined;
  await database.begin(batch.txid, writer);
  context.onEvent({ type: "taken-over", txid: batch.txid, position: batch.position });
  return { logId: identity.logId, epoch: batch.txid, listing, gap: listing.firstGap() };
}

/** How a record that was just appended stands in the listing. */
export function ownRecord(context: LogContext, batch: FrozenBatch): LogFile {
  const { txid, sizeBytes } = batch;
  const key = context.layout.slotKey(txid);
  return { key, level: 0, minTxid: txid, maxTxid: txid, sizeBytes, modifiedMs: context.clock.now() };
}

/** Looks at the store, decides whether this node may write there, and binds the database to the log. */
async function survey(options: TakeoverOptions): Promise<Survey> {
  const { context, database, nodeId, signal } = options;
  let identity = await readIdentity(context, signal);
  const listing = await untilAnswered(
    context,
    "list the log",
    signal,
    async () => new LogListing(await listLog(context.store, context.layout, { signal })),
  );
  const state = database.logState;
  const standing = rejoin({
    url: context.url,
    path: database.path,
    state,
    identity,
    head: listing.head,
    holdsConfirmed: identity === undefined && (await holdsConfirmed(options, listing, state)),
    acceptRollback: options.acceptRollback === true,
  });
  if (standing.step === "identify") {
    const { logId, base } = standing;
    identity = await ensureIdentity(context, { base, ...(logId !== undefined && { logId }) }, signal);
    if (logId !== undefined && identity.logId !== logId) {
      throw new SluiceError("SLU-4105", `${context.url} has just become another log, ${identity.logId}`);
    }
  }
  identity ??= await ensureIdentity(context, {}, signal);
  if (state?.logId !== identity.logId) await database.bindLog({ logId: identity.logId, nodeId });
  const { txid = 0 } = database.logState?.confirmed ?? {};
  return { identity, listing, rolledBack: listing.head < txid };
}

/**
 * Sends what an earlier life has sealed. False when its takeover record did not make it: look again.
 * Throws SLU-4101 when another writer has the slot.
 */
async function settle(options: TakeoverOptions, listing: LogListing): Promise<boolean> {
  const { context, database, signal } = options;
  for (let batch = database.frozen[0]; batch !== undefined; batch = database.frozen[0]) {
    if (batch.epoch === batch.txid) {
      if (!(await claim(options, batch, listing))) return false;
      continue;
    }
    // The slot after an own record is free, own, or a takeover record, which is never deleted: `written` is true.
    if ((await append(context, batch, signal)) === "lost") {
      const how = `has another writer's record in TXID ${formatTxid(batch.txid)}, sealed here but not confirmed`;
      throw passed({ url: context.url, path: database.path }, boundState(database), how);
    }
    await database.confirm(batch.txid);
    listing.add(ownRecord(context, batch));
  }
  return true;
}

/**
 * The log must end with the record that this database has confirmed last. Returns the time of that record.
 * Throws SLU-4101 and SLU-4103.
 */
async function compare(
  options: TakeoverOptions,
  identity: LogIdentity,
  listing: LogListing,
  state: LogState,
): Promise<number> {
  const { context, database, signal } = options;
  const { txid, position, timestampMs } = state.confirmed;
  // Empty, or rolled back on the user's word; or the listing is older than what was settled after it.
  if (listing.head === 0 || listing.head < txid) return timestampMs;
  const record = await readHead(context, listing, signal);
  const last = formatTxid(record.maxTxid);
  if (record.epoch === 0 && record.maxTxid > identity.base) {
    throw new SluiceError("SLU-4103", `${context.url}: TXID ${last} was not written by Sluice`);
  }
  const where = { url: context.url, path: database.path };
  if (record.maxTxid > txid) throw passed(where, state, `goes on to TXID ${last}`);
  if (nameOf(record) !== position) {
    throw passed(where, state, `has position ${formatPosition(nameOf(record))} in TXID ${last}`);
  }
  return record.timestampMs;
}

/**
 * Appends a takeover record and makes sure that it counts. False when it does not: its pages are in the open batch
 * again, and the log has to be looked at anew.
 */
async function claim(options: TakeoverOptions, batch: FrozenBatch, listing: LogListing): Promise<boolean> {
  const { context, database, signal } = options;
  if ((await append(context, batch, signal)) === "lost") {
    await database.abandonTakeover(batch.txid);
    return false;
  }
  const others = await untilAnswered(context, "verify the takeover", signal, () =>
    whatElse(context, batch.txid, signal),
  );
  const { own, files } = others;
  if (own === undefined) {
    // Somebody has deleted it already.
    await database.abandonTakeover(batch.txid);
    return false;
  }
  if (files.length === 0) {
    await database.confirm(batch.txid);
    listing.add(ownRecord(context, batch));
    return true;
  }
  // A file that covers the slot and is older than the object in it: retention had emptied the slot, and the store's
  // `written` meant nothing. Without one the record is in the log, and others already build on it: it must stay.
  const recycled = files.some((file) => covers(file, batch.txid) && file.modifiedMs < own.modifiedMs);
  if (!recycled) {
    await database.confirm(batch.txid);
    return false;
  }
  await untilAnswered(context, "withdraw the takeover", signal, () =>
    context.store.delete([context.layout.slotKey(batch.txid)], { signal }),
  );
  await database.abandonTakeover(batch.txid);
  return false;
}

/** The object in slot `txid`, and every other file that covers the slot or lies above it; level 0 first, upwards. */
async function whatElse(
  context: LogContext,
  txid: number,
  signal: AbortSignal,
): Promise<{ readonly own: LogFile | undefined; readonly files: LogFile[] }> {
  const files = await listLog(context.store, context.layout, { fromTxid: txid, signal });
  const key = context.layout.slotKey(txid);
  return {
    own: files.find((file) => file.key === key),
    files: files.filter((file) => file.key !== key && file.maxTxid >= txid),
  };
}

function covers(file: LogFile, txid: number): boolean {
  return file.minTxid <= txid && file.maxTxid >= txid;
}

/** Whether the record that the state has confirmed last is in the log, by name and time. */
async function holdsConfirmed(
  options: TakeoverOptions,
  listing: LogListing,
  state: LogState | undefined,
): Promise<boolean> {
  const { context, signal } = options;
  if (state === undefined || state.confirmed.txid === 0) return false;
  const { txid, position, timestampMs } = state.confirmed;
  for (let level = 0; level <= 9; level++) {
    const file = listing.level(level).find((other) => other.maxTxid === txid);
    if (file === undefined) continue;
    const record = await untilAnswered(context, "read a record", signal, () => readRecord(context, file, signal));
    if (record.position === position && record.timestampMs === timestampMs) return true;
  }
  return false;
}

/** The header of the last record; the lowest level has it as it was written. */
async function readHead(context: LogContext, listing: LogListing, signal: AbortSignal): Promise<RecordInfo> {
  const { head } = listing;
  for (let level = 0; level <= 9; level++) {
    const file = listing.level(level).at(-1);
    if (file?.maxTxid !== head) continue;
    return untilAnswered(context, "read the last record", signal, () => readRecord(context, file, signal));
  }
  throw new SluiceError("SLU-4000", `${context.url}: no file ends at its head ${formatTxid(head)}`);
}

/** A Litestream log that ends at n is at position (0, n). */
function nameOf(record: RecordInfo): Position {
  return record.epoch === 0 ? positionOf(0, record.maxTxid) : record.position;
}

function boundState(database: LoggedDatabase): LogState {
  const state = database.logState;
  if (state === undefined) throw new SluiceError("SLU-4000", `${database.path}: bound to a log, but without state`);
  return state;
}

/** 64 random bits, never 0. */
export function drawWriter(): bigint {
  for (;;) {
    const writer = randomBytes(8).readBigUInt64BE();
    if (writer !== NOTHING) return writer;
  }
}

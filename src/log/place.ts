import { closeSync, openSync, read } from "node:fs";
import { rm } from "node:fs/promises";
import { promisify } from "node:util";
import path from "node:path";
import type { PageChunk, RecordName, ReplicaDatabase } from "../database/replication.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import type { LogState } from "../database/contract.ts";
import { LtxDecoder } from "../ltx/decoder.ts";
import { epochOf, type Position } from "../ltx/position.ts";
import { untilAnswered, type LogContext } from "./context.ts";
import { NO_LOG_ID, readIdentity } from "./identity.ts";
import { formatTxid } from "./layout.ts";
import { listLog, type LogFile } from "./listing.ts";
import { openLtxFile, type FileHead } from "./ltx-file.ts";
import { planOnward, withoutStrays } from "./plan.ts";
import { readRange } from "./read-object.ts";
import { readRecord, type RecordInfo } from "./record-access.ts";
import { restore } from "./restore.ts";

const readAsync = promisify(read);

/** What is read of an object, or handed on as pages, at once. */
const CHUNK_BYTES = 1024 * 1024;
/** How often placing plans anew when objects that it had planned were gone before it read them. */
const PLANS_MAX = 5;

/** What placing needs of a replica: its own database, and where scratch files may lie. */
export interface Placeable extends ReplicaDatabase {
  readonly stateDir: string;
  readonly path: string;
  readonly logState: LogState | undefined;
}

/** The log that each of these contexts was seen to lead to. */
const seen = new WeakMap<LogContext, string>();

/**
 * Brings a replica to the end of its log (protocol section 7, Placing), over higher levels where level 0 has been
 * emptied. What it has on top of its last record stays where the history goes on from it, and goes to the quarantine
 * where the history left it out. Returns whether anything changed.
 *
 * Throws SLU-4105 when the replica belongs to another log, SLU-4513 when the log doesn't go on from where the replica is
 * and SLU-4103 for records that Sluice did not write; waits for a store that can't be reached until `signal` is aborted.
 */
export async function placeLog(context: LogContext, replica: Placeable, signal: AbortSignal): Promise<boolean> {
  await assertOwn(context, replica, signal);
  for (let attempt = 1; ; attempt++) {
    try {
      return await placeOnce(context, replica, signal);
    } catch (error) {
      if (!isSluiceError(error, "SLU-3404") || attempt === PLANS_MAX) throw error;
    }
  }
}

/** Numbers and positions of another log mean nothing here, and its content would take the place of this one's. */
async function assertOwn(context: LogContext, replica: Placeable, signal: AbortSignal): Promise<void> {
  const own = replica.logState?.logId ?? NO_LOG_ID;
  if (own === NO_LOG_ID || seen.get(context) === own) return;
  const identity = await untilAnswered(context, "read the log's identity", signal, () => readIdentity(context, signal));
  if (identity === undefined) return;
  if (identity.logId !== own) {
    throw new SluiceError("SLU-4105", `${replica.path} belongs to log ${own}, ${context.url} is log ${identity.logId}`);
  }
  seen.set(context, own);
}

async function placeOnce(context: LogContext, replica: Placeable, signal: AbortSignal): Promise<boolean> {
  if (replica.position === undefined || replica.record === undefined) return resyncFromLog(context, replica, signal);
  const from = replica.record.txid;
  // Level 0 alone shows what is new, unless it was emptied meanwhile.
  const recent = await list(context, signal, from + 1);
  if (recent.every((file) => file.maxTxid <= from)) return false;
  const files = recent.some((file) => file.minTxid === from + 1) ? recent : await list(context, signal);
  const plan = planOnward(withoutStrays(files), from, context.url);
  for (const file of plan?.files ?? []) {
    // A resync leads past what was planned.
    if (file.maxTxid > replica.record.txid) await placeFile(context, replica, file, files, signal);
  }
  return plan !== undefined;
}

function list(context: LogContext, signal: AbortSignal, fromTxid?: number): Promise<LogFile[]> {
  return untilAnswered(context, "list the log", signal, () =>
    listLog(context.store, context.layout, { signal, ...(fromTxid !== undefined && { fromTxid }) }),
  );
}

async function placeFile(
  context: LogContext,
  replica: Placeable,
  file: LogFile,
  files: readonly LogFile[],
  signal: AbortSignal,
): Promise<void> {
  const opened = await openLtxFile(context.store, file, { signal });
  const { header } = opened;
  const record = recordOf(context, file, header);
  const position = replica.position!;
  if (await isHeld(context, replica, record, files, signal)) return replica.sealed(record);
  if (!(await goesOn(context, replica, record, files, signal))) {
    await resyncFromLog(context, replica, signal);
    return;
  }
  const { checksum } = header.record!;
  const { pageCount } = header;
  if (opened.pages.length === 0) return replica.sealed(record);
  const change = await replica.change({
    before: position,
    position: record.position,
    pageCount,
    checksum,
    pages: opened.pages.length,
  });
  try {
    const chunks = new Chunks(header.pageSize, (chunk) => change.pages(chunk));
    const decoder = new LtxDecoder(file.key, { page: (pgno, content) => chunks.add(pgno, content) });
    if (opened.whole !== undefined) decoder.push(opened.whole);
    for (let offset = 0; opened.whole === undefined && offset < file.sizeBytes; offset += CHUNK_BYTES) {
      decoder.push(await readRange(context.store, file.key, { offset, length: CHUNK_BYTES }, signal));
    }
    decoder.end();
    chunks.flush();
    await change.commit();
  } catch (error) {
    if (!isSluiceError(error, "SLU-2019")) throw error;
    context.onEvent({ type: "alarm", error });
    change.abort();
    await resyncFromLog(context, replica, signal);
    return;
  } finally {
    change.abort();
  }
  await replica.sealed(record);
}

function recordOf(context: LogContext, file: LogFile, header: FileHead): RecordName {
  if (header.record === undefined) {
    throw new SluiceError("SLU-4103", `${context.url}: TXID ${formatTxid(file.maxTxid)} was not written by Sluice`);
  }
  const { epoch, position } = header.record;
  return { txid: file.maxTxid, epoch, position, timestampMs: header.timestampMs };
}

/** Rules 1 and 2: the replica has what the record holds. */
async function isHeld(
  context: LogContext,
  replica: Placeable,
  record: RecordName,
  files: readonly LogFile[],
  signal: AbortSignal,
): Promise<boolean> {
  const position = replica.position!;
  if (record.position === replica.record!.position) return true;
  if (record.position > position || epochOf(record.position) !== epochOf(position)) return false;
  return goesOn(context, replica, record, files, signal);
}

/**
 * Whether the record's history holds the replica's state: always without commits on top of the last record; otherwise
 * unless the epoch of these commits has ended before the last of them, which takeover records say: one that comes, or
 * the one that is the last record.
 */
async function goesOn(
  context: LogContext,
  replica: Placeable,
  record: RecordName,
  files: readonly LogFile[],
  signal: AbortSignal,
): Promise<boolean> {
  const position = replica.position!;
  if (position === replica.record!.position || record.epoch === epochOf(position)) return true;
  const end = await endOf(context, epochOf(position), replica.record!.txid, files, signal);
  if (end !== undefined && epochOf(end) === epochOf(position)) return position <= end;
  // No more is said of that epoch: the takeover that ended it may be placed already. It left out what is on top.
  return replica.record!.epoch <= epochOf(position);
}

/** The largest position of an epoch that the first takeover after slot `txid` names; undefined when there was none. */
async function endOf(
  context: LogContext,
  epoch: number,
  txid: number,
  files: readonly LogFile[],
  signal: AbortSignal,
): Promise<Position | undefined> {
  const records = files.filter((file) => file.level === 0 && file.maxTxid > txid);
  for (const file of records.toSorted((a, b) => a.maxTxid - b.maxTxid)) {
    const record = await untilAnswered(context, "read a record", signal, () => readRecord(context, file, signal));
    if (record.epoch > epoch && record.epoch === record.maxTxid) return record.position;
  }
  return undefined;
}

/** The last record of the log, in slot `txid`. Level 0 has it as it was written: the newest one is never deleted. */
export async function lastRecord(
  context: LogContext,
  txid: number,
  signal: AbortSignal,
): Promise<RecordInfo | undefined> {
  const file = (await list(context, signal, txid)).find(({ level, maxTxid }) => level === 0 && maxTxid === txid);
  if (file === undefined) return undefined;
  return untilAnswered(context, "read the last record", signal, () => readRecord(context, file, signal));
}

/** Where an epoch ended, as the log says; undefined when it goes on, or the log doesn't know it. */
export async function endOfEpoch(
  context: LogContext,
  epoch: number,
  signal: AbortSignal,
): Promise<Position | undefined> {
  const files = await list(context, signal, epoch + 1);
  const end = await endOf(context, epoch, epoch, files, signal);
  return end !== undefined && epochOf(end) === epoch ? end : undefined;
}

/**
 * The log's newest state is restored to a scratch file, and the replica is made that by difference. What differs of
 * its own goes to the quarantine if it had commits on top of the log.
 */
async function resyncFromLog(context: LogContext, replica: Placeable, signal: AbortSignal): Promise<boolean> {
  const scratch = path.join(replica.stateDir, "resync.db");
  const { store, layout } = context;
  // What was left of one that was killed is no database that anybody has.
  await rm(scratch, { force: true });
  const state = await restore({
    store,
    prefix: layout.prefix,
    path: scratch,
    force: true,
    integrityCheck: "none",
    signal,
  });
  const { pageSums, checksum, pageCount, pageSize, txid, epoch, position, timestampMs } = state;
  if (pageSums === undefined || checksum === undefined || pageSize !== replica.pageSize) {
    throw new SluiceError("SLU-4105", `${context.url}: its newest state can't become ${replica.path}'s`);
  }
  const pages = differingPages(replica.sums, pageSums, pageCount);
  const before = replica.position ?? 0n;
  const quarantine = replica.position !== undefined && replica.position !== replica.record?.position;
  // A change needs a page; the first is in every database.
  const numbers = pages.length === 0 ? Uint32Array.of(1) : pages;
  const change = await replica.resync(
    { before, position, pageCount, checksum, pages: numbers.length },
    { txid, epoch, position, timestampMs },
    { quarantine },
  );
  const fd = openSync(scratch, "r");
  try {
    const most = Math.max(1, Math.floor(CHUNK_BYTES / pageSize));
    for (let at = 0; at < numbers.length; at += most) {
      const some = numbers.subarray(at, at + most);
      const content = Buffer.alloc(some.length * pageSize);
      for (let i = 0; i < some.length; i++) {
        await readAsync(fd, content, i * pageSize, pageSize, (some[i]! - 1) * pageSize);
      }
      change.pages({ numbers: some, content });
    }
    await change.commit();
  } finally {
    change.abort();
    closeSync(fd);
    await rm(scratch, { force: true });
  }
  return true;
}

/** Pages of `wanted` (two words a page) that `own` has otherwise or not at all. */
export function differingPages(own: Int32Array, wanted: Int32Array, pageCount: number): Uint32Array {
  const pages: number[] = [];
  for (let i = 0; i < pageCount; i++) {
    const same = own[2 * i] === wanted[2 * i] && own[2 * i + 1] === wanted[2 * i + 1] && 2 * i < own.length;
    if (!same) pages.push(i + 1);
  }
  return Uint32Array.from(pages);
}

/** Collects single pages into chunks. */
class Chunks {
  readonly #pageSize: number;
  readonly #take: (chunk: PageChunk) => void;
  readonly #numbers: Uint32Array;
  readonly #content: Uint8Array;
  #count = 0;

  constructor(pageSize: number, take: (chunk: PageChunk) => void) {
    const most = Math.max(1, Math.floor(CHUNK_BYTES / pageSize));
    this.#pageSize = pageSize;
    this.#take = take;
    this.#numbers = new Uint32Array(most);
    this.#content = new Uint8Array(most * pageSize);
  }

  add(page: number, content: Uint8Array): void {
    this.#numbers[this.#count] = page;
    this.#content.set(content, this.#count * this.#pageSize);
    if (++this.#count === this.#numbers.length) this.flush();
  }

  flush(): void {
    const count = this.#count;
    this.#count = 0;
    if (count === 0) return;
    this.#take({
      numbers: this.#numbers.subarray(0, count),
      content: this.#content.subarray(0, count * this.#pageSize),
    });
  }
}

import { existsSync, readSync } from "node:fs";
import { open, realpath, stat, unlink, type FileHandle } from "node:fs/promises";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { PageSum, sumValue } from "../ltx/page-sum.ts";
import { lockPageOf, parseDatabaseHeader } from "../sqlite/database-header.ts";
import { Assembler, type Assembly } from "./assemble.ts";
import { sleep, systemClock, type Clock } from "./clock.ts";
import { applyAtomically, lockShared, type PageChanges } from "./follow-apply.ts";
import { hasStamp, headerStamp, stampHeader, unstampHeader } from "./follow-header.ts";
import {
  firstState,
  readFollowRecord,
  writeFollowRecord,
  writeTxidFile,
  type FollowedState,
  type FollowRecord,
} from "./follow-state.ts";
import { runSqlite } from "./integrity.ts";
import { formatTxid, LogLayout } from "./layout.ts";
import { listLog } from "./listing.ts";
import { planOnward, type Plan } from "./plan.ts";
import { listedHistory, readLogId } from "./restore-goal.ts";
import { Progress } from "./restore-progress.ts";
import { fetchState, verifyFile, type RestoreOptions } from "./restore.ts";
import { RestoreTarget, writeError } from "./target.ts";
import { writeFully } from "./write-fully.ts";

export interface FollowOptions extends Omit<RestoreOptions, "txid" | "timestampMs"> {
  /** How often the store is asked. Default 1000. */
  readonly intervalMs?: number;
  readonly clock?: Clock;
  /** Called after the first restore (or when it's found again) and after each update. */
  readonly onState?: (state: { readonly txid: number }) => void;
  /** Called with what kept the file from being brought up to date just now; it's tried again. */
  readonly onProblem?: (error: unknown) => void;
}

/** A listing of the whole log, which sees also what level 0 alone doesn't show, at least every so many polls. */
const WHOLE_LISTING_POLLS = 60;
/** How often in a row the same kind of trouble with the log may come up before following ends with it. */
const TROUBLES_MAX = 5;
const BACKOFF_MAX_MS = 30_000;
/** How long an update waits for readers that are in the middle of something; then it's put off to the next poll. */
const READERS_WAIT_MS = 2000;
/** How often, 100 ms apart, the file's lock is tried before a start is given up. */
const START_TRIES_MAX = 100;
const NEVER = new AbortController().signal;
const SCAN_BYTES = 1024 * 1024;

/**
 * Restores a database and keeps the file up to date until `signal` is aborted.
 *
 *     start     no file, or `force`: restore, then following. A file with a record beside it: resume
 *     resume    a hot journal is rolled back; change counter and checksum must be those of the record's current or
 *               next state: following, from there. Anything else: SLU-4514
 *     following poll level 0 behind the own TXID (one LIST). New files, or the poll that looks at all levels: plan
 *               onward, over higher levels where level 0 has been emptied; decode into a scratch file; apply as one
 *               SQLite transaction; following
 *     trouble   the store can't be reached, the disk is full, readers don't let go, a file has vanished: following,
 *               with growing pauses. A gap or damage that stays: ends with its error. A foreign writer: at once
 *
 * The file is in rollback-journal mode and may be read by any SQLite; it must not be written. Each update is seen whole
 * or not at all, also when this process is killed in it.
 */
export async function follow(options: FollowOptions): Promise<void> {
  const { signal, clock = systemClock, intervalMs = 1000, onProblem } = options;
  const stop = signal ?? new AbortController().signal;
  const follower = await startFollowing(options);
  options.onState?.({ txid: follower.txid });
  let troubles = 0;
  for (;;) {
    const pauseMs = Math.min(BACKOFF_MAX_MS, intervalMs * 2 ** troubles);
    await sleep(clock, Math.max(intervalMs, pauseMs), stop);
    if (stop.aborted) return;
    try {
      if (await follower.poll()) options.onState?.({ txid: follower.txid });
      troubles = 0;
    } catch (error) {
      if (stop.aborted) return;
      troubles++;
      if (!passes(error) || (staysForGood(error) && troubles >= TROUBLES_MAX)) throw error;
      onProblem?.(error);
    }
  }
}

function passes(error: unknown): boolean {
  return isSluiceError(error) && error.code !== "SLU-4514";
}

/** Trouble in the log itself; that of store and disk is waited out. */
function staysForGood(error: unknown): boolean {
  return isSluiceError(error) && (error.code.startsWith("SLU-5") || /^SLU-45(08|09|13)$/.test(error.code));
}

async function startFollowing(given: FollowOptions): Promise<Follower> {
  // What is kept beside the file is beside the file itself, not beside a link to it.
  const path = await realpath(given.path).catch(() => given.path);
  const options = { ...given, path };
  const { force = false } = options;
  if (force || !existsSync(path)) return restoreFirst(options);
  const record = await readFollowRecord(path);
  if (record === undefined) {
    throw new SluiceError("SLU-4505", `${path} exists, and is not a file that was followed before`);
  }
  for (let tries = 0; ; tries++) {
    await rollBack(path);
    const file = await open(path, "r");
    try {
      // Under SQLite's lock: a reader may just be rolling back.
      if (lockShared(file.fd) && !existsSync(`${path}-journal`)) {
        return new Follower(options, record.logId, await findState(path, file, record));
      }
    } finally {
      await file.close();
    }
    if (tries === START_TRIES_MAX) throw new SluiceError("SLU-4514", `${path}: another process keeps it locked`);
    await sleep(options.clock ?? systemClock, 100, options.signal ?? NEVER);
  }
}

/** The first restore: like any other, but the file says rollback journal, and the record is there before it is. */
async function restoreFirst(options: FollowOptions): Promise<Follower> {
  const { path, force = false, integrityCheck = "quick" } = options;
  const progress = new Progress(options.onProgress);
  const target = await RestoreTarget.create(path, { force });
  try {
    const { txid, checksum, pageSize, logId } = await fetchState(options, target, progress);
    if (checksum === undefined) {
      throw new SluiceError("SLU-4513", `${options.store.url}: a backup of Litestream 0.3 can't be followed`, {
        hint: "Restore it without --follow.",
      });
    }
    await verifyFile(target, integrityCheck, progress);
    const page1 = Buffer.alloc(pageSize);
    readSync(target.fd, page1, 0, pageSize, 0);
    const state = firstState(txid, checksum, page1);
    stampHeader(page1, state.counter);
    writeFully(target.fd, page1, 0);
    await target.sync();
    await writeFollowRecord(target.path, { logId, current: state, next: undefined });
    progress.enter("install");
    await target.install();
    await writeTxidFile(target.path, formatTxid(txid));
    return new Follower({ ...options, path: target.path }, logId, state);
  } finally {
    await target.discard();
  }
}

/** Lets SQLite roll back what an update that was killed has left. */
async function rollBack(path: string): Promise<void> {
  if (!existsSync(`${path}-journal`)) return;
  const answer = await runSqlite({ task: "merge", path });
  if ("sqliteCode" in answer) {
    throw new SluiceError("SLU-4514", `${path} can't be rolled back: ${answer.sqliteCode}: ${answer.message}`);
  }
  // One that was created and never begun is not hot, and SQLite leaves it.
  if ((await stat(`${path}-journal`).catch(() => undefined))?.size === 0) await unlink(`${path}-journal`);
}

/** Which state of the record the file is in. Throws SLU-4514 when it's in neither. */
async function findState(path: string, file: FileHandle, record: FollowRecord): Promise<FollowedState> {
  const head = Buffer.alloc(100);
  await file.read(head, 0, head.length, 0);
  const pageSize = parseDatabaseHeader(head)?.pageSize;
  const state = [record.current, record.next].find((s) => s !== undefined && hasStamp(head, s.counter));
  if (pageSize === undefined || state === undefined) {
    const counters = [record.current, record.next].filter((s) => s !== undefined).map((s) => s.counter);
    const found = `formats ${head[18]}, ${head[19]}, change counter ${head.readUInt32BE(24)}`;
    throw new SluiceError("SLU-4514", `${path}: page 1 has ${found}; the last update left ${counters.join(" or ")}`);
  }
  if ((await checksumOf(file, pageSize, state.stamp)) !== state.checksum) {
    throw new SluiceError("SLU-4514", `${path}: the content is not as the last update left it`);
  }
  return state;
}

async function checksumOf(file: FileHandle, pageSize: number, stamp: Uint8Array): Promise<bigint> {
  const buffer = Buffer.allocUnsafe(Math.max(pageSize, SCAN_BYTES));
  const lockPage = lockPageOf(pageSize);
  const sum = new PageSum(pageSize);
  let lo = 0;
  let hi = 0;
  for (let page = 1; ;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, (page - 1) * pageSize);
    if (bytesRead < pageSize) return sumValue(lo, hi);
    if (page === 1) unstampHeader(buffer, stamp);
    for (let at = 0; at + pageSize <= bytesRead; at += pageSize, page++) {
      if (page === lockPage) continue;
      sum.of(page, buffer, at, at + pageSize);
      lo ^= sum.lo;
      hi ^= sum.hi;
    }
  }
}

/** One followed file and the state it's in. */
class Follower {
  readonly #options: FollowOptions;
  readonly #layout: LogLayout;
  readonly #logId: string | undefined;
  #state: FollowedState;
  #polls = 0;

  constructor(options: FollowOptions, logId: string | undefined, state: FollowedState) {
    this.#options = options;
    this.#layout = new LogLayout(options.store.layout, options.prefix);
    this.#logId = logId;
    this.#state = state;
  }

  get txid(): number {
    return this.#state.txid;
  }

  /** Looks for new files and applies them; true when the file has changed. Rejects with what was in the way. */
  async poll(): Promise<boolean> {
    const { store, path } = this.#options;
    await rollBack(path);
    const whole = this.#polls++ % WHOLE_LISTING_POLLS === 0;
    if (!whole && !(await this.#hasNewRecords())) return false;
    const identity = await readLogId(store, this.#layout, this.#signal);
    if (identity?.logId !== this.#logId && this.#logId !== undefined) {
      throw new SluiceError("SLU-4513", `${store.url} holds another log than the one that ${path} was restored from`);
    }
    const files = await listLog(store, this.#layout, { signal: this.#signal });
    const plan = planOnward(listedHistory(files, identity), this.#state.txid, store.url);
    return plan !== undefined && (await this.#apply(plan));
  }

  get #signal(): AbortSignal {
    return this.#options.signal ?? NEVER;
  }

  async #hasNewRecords(): Promise<boolean> {
    const { store } = this.#options;
    const startAfter = this.#layout.slotKey(this.#state.txid);
    const found = store.list(this.#layout.levelPrefix(0), { startAfter, signal: this.#signal });
    for await (const object of found) {
      if (this.#layout.parse(object.key) !== undefined) return true;
    }
    return false;
  }

  /** Decodes the files of a plan into a scratch file beside, and brings the difference into the followed one. */
  async #apply(plan: Plan): Promise<boolean> {
    const { store, path } = this.#options;
    const scratch = await RestoreTarget.create(path, { force: true });
    const assembler = new Assembler({ store, fd: scratch.fd, signal: this.#signal, onBytes: () => {} });
    try {
      const room = () => scratch.ensureRoom(2 * plan.sizeBytes);
      const assembly = await assembler.assemble(plan, room, { basePages: Math.ceil((await stat(path)).size / 512) });
      return await this.#applyAssembly(plan, assembly, scratch.fd);
    } catch (error) {
      throw writeError(path, error);
    } finally {
      await assembler.close();
      await scratch.discard();
    }
  }

  async #applyAssembly(plan: Plan, assembly: Assembly, scratchFd: number): Promise<boolean> {
    const { path, store } = this.#options;
    const { pageSize, pageCount, head } = assembly;
    const before = this.#state;
    const file = await open(path, "r");
    try {
      await ensureGrowth(path, plan, assembly);
      const checksum = new ChecksumChange(before, pageSize);
      let next: FollowedState | undefined;
      const changes: PageChanges = {
        pageSize,
        pageCount,
        pages: withFirst(assembly.pages),
        read: async (page, into) => {
          if (assembly.pages.has(page)) {
            readSync(scratchFd, into, 0, pageSize, (page - 1) * pageSize);
            return;
          }
          // Only page 1 is always part of an update: the content stays, its counter moves.
          await file.read(into, 0, pageSize, 0);
          unstampHeader(into, before.stamp);
        },
      };
      const applied = await applyAtomically(path, changes, {
        counter: before.counter,
        readersWaitMs: READERS_WAIT_MS,
        onPage: (page, old, now) => checksum.change(page, old, now),
        beforeCommit: async () => {
          if (head.record !== undefined && head.record.checksum !== checksum.value) {
            throw new SluiceError("SLU-4508", `${store.url}: the update to TXID ${formatTxid(plan.txid)} does not fit`);
          }
          const { stamp } = checksum;
          next = { txid: plan.txid, checksum: checksum.value, stamp, counter: before.counter + 1 };
          await writeFollowRecord(path, { logId: this.#logId, current: before, next });
        },
      });
      if (!applied || next === undefined) return false;
      this.#state = next;
      await writeFollowRecord(path, { logId: this.#logId, current: next, next: undefined });
      await writeTxidFile(path, formatTxid(next.txid));
      return true;
    } finally {
      await file.close();
    }
  }
}

/** Pages past the old end must all be there: what the file would have in their place is anybody's guess. */
async function ensureGrowth(path: string, plan: Plan, { pages, pageCount, pageSize }: Assembly): Promise<void> {
  const oldCount = Math.floor((await stat(path)).size / pageSize);
  const lockPage = lockPageOf(pageSize);
  for (let page = oldCount + 1; page <= pageCount; page++) {
    if (page === lockPage || pages.has(page)) continue;
    throw new SluiceError("SLU-4509", `page ${page} is in none of the files up to TXID ${formatTxid(plan.txid)}`);
  }
}

function* withFirst(pages: Iterable<number>): Generator<number> {
  yield 1;
  for (const page of pages) if (page !== 1) yield page;
}

/** How the database's checksum changes with the pages of one update; page 1 counts as the source has it. */
class ChecksumChange {
  /** The source's bytes of the new page 1. */
  stamp: Uint8Array;
  readonly #sum: PageSum;
  readonly #oldStamp: Uint8Array;
  #lo: number;
  #hi: number;

  constructor(state: FollowedState, pageSize: number) {
    this.#sum = new PageSum(pageSize);
    this.#oldStamp = state.stamp;
    this.stamp = state.stamp;
    this.#lo = Number(BigInt.asIntN(32, state.checksum));
    this.#hi = Number(BigInt.asIntN(32, state.checksum >> 32n));
  }

  get value(): bigint {
    return sumValue(this.#lo, this.#hi);
  }

  change(page: number, before: Uint8Array | undefined, after: Uint8Array | undefined): void {
    if (page === 1) {
      // A copy: `slice` of a Buffer would be the page itself, which goes to the journal next.
      const old = Uint8Array.from(before!);
      unstampHeader(old, this.#oldStamp);
      this.#add(page, old);
      this.stamp = headerStamp(after!);
    } else if (before !== undefined) this.#add(page, before);
    if (after !== undefined) this.#add(page, after);
  }

  #add(page: number, content: Uint8Array): void {
    const { lo, hi } = this.#sum.of(page, content, 0, content.length);
    this.#lo ^= lo;
    this.#hi ^= hi;
  }
}

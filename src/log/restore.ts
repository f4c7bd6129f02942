import { isSluiceError, SluiceError } from "../errors/error.ts";
import { NOTHING, position as positionOf, type Position } from "../ltx/position.ts";
import type { ObjectStore } from "../store/store.ts";
import { Assembler, type Assembly } from "./assemble.ts";
import { checkIntegrity, type IntegrityCheck } from "./integrity.ts";
import { formatTxid, LogLayout } from "./layout.ts";
import { listOld, restoreOld } from "./litestream03.ts";
import { chooseState, type RestoreGoal } from "./restore-goal.ts";
import { Progress, type RestoreProgress } from "./restore-progress.ts";
import { RestoreTarget, writeError } from "./target.ts";
import type { Plan } from "./plan.ts";

/** How often a restore plans anew when objects that it had planned were gone before it read them. */
const PLANS_MAX = 5;

export interface RestoreOptions extends RestoreGoal {
  readonly store: ObjectStore;
  /** The log's folder in the store, without slashes at its ends. */
  readonly prefix: string;
  /** Where the database goes. */
  readonly path: string;
  /** Replace a database that is there, after the new one has been verified. */
  readonly force?: boolean;
  /** Default `quick`. */
  readonly integrityCheck?: IntegrityCheck;
  readonly onProgress?: (progress: RestoreProgress) => void;
  /** Told of compressed bytes that stay decoded for the next restore to `path`, when this one is broken off. */
  readonly onKept?: (bytes: number) => void;
  /** Called when the file is verified and before it's put in place: what a node must remember of it comes first. */
  readonly onVerified?: (state: RestoredState) => Promise<void>;
  readonly signal?: AbortSignal;
}

/** The state that a restored file is in: what a node persists to go on from it without a new snapshot. */
export interface RestoredState {
  /** The slot after which the state is; 0 for a backup of Litestream 0.3, which has none. */
  readonly txid: number;
  /** `(0, txid)` for a log that Litestream wrote. */
  readonly position: Position;
  /** Of the writer of the last record; 0 for Litestream. */
  readonly epoch: number;
  /** The attempt that wrote it (protocol section 7), where Sluice did. */
  readonly writer: bigint | undefined;
  /** Time of the last record, ms since 1970. */
  readonly timestampMs: number;
  /**
   * Of the database (protocol section 6), computed from its pages; equal to the record's where that has one.
   * Undefined for 0.3.
   */
  readonly checksum: bigint | undefined;
  /** Of `sluice.json`; undefined for Litestream's logs. */
  readonly logId: string | undefined;
  readonly pageSize: number;
  readonly pageCount: number;
  /** The sum of every page, as the page table of a node holds them (`Assembly.sums`); undefined for 0.3. */
  readonly pageSums: Assembly["sums"] | undefined;
}

export interface Restored extends RestoredState {
  readonly path: string;
  readonly sizeBytes: number;
  /** What was fetched. */
  readonly files: number;
  readonly fetchedBytes: number;
  /** What an earlier restore to this place had fetched, and this one had not to. */
  readonly keptBytes: number;
  readonly elapsedMs: number;
  /** How long SQLite's check took; undefined for `none`. */
  readonly checkMs: number | undefined;
}

/**
 * Restores a database from the log at `prefix` to `path`: plans over a listing, fetches and decodes in parallel into
 * a temporary file, verifies it (checksum of every LTX file, the database's checksum where the last record has one,
 * SQLite's own check), makes it durable, and puts it in place.
 *
 * Throws the codes SLU-4501 to SLU-4512 and SLU-4516, those of the store and of LTX files; the target is then as it
 * was. Aborting `signal` before it's put in place does the same.
 *
 * When it's killed, aborted, or the store goes, what was decoded of large files stays beside the target, and the next
 * restore there goes on with it (`RestoreJournal`).
 */
export async function restore(options: RestoreOptions): Promise<Restored> {
  const startedMs = Date.now();
  const { path, force = false, integrityCheck = "quick", signal } = options;
  const progress = new Progress(options.onProgress);
  const target = await RestoreTarget.create(path, { force, resume: true });
  try {
    const state = await fetchState(options, target, progress);
    signal?.throwIfAborted();
    const checkMs = await verifyFile(target, integrityCheck, progress);
    signal?.throwIfAborted();
    await options.onVerified?.(state);
    progress.enter("install");
    await target.install();
    return {
      ...state,
      path: target.path,
      sizeBytes: state.pageCount * state.pageSize,
      files: progress.files,
      fetchedBytes: progress.bytesDone - progress.keptBytes,
      keptBytes: progress.keptBytes,
      elapsedMs: Date.now() - startedMs,
      checkMs,
    };
  } catch (error) {
    const isBrokenOff = signal?.aborted === true || (isSluiceError(error) && error.code.startsWith("SLU-3"));
    const keptBytes = isBrokenOff ? target.leave() : 0;
    if (keptBytes > 0) options.onKept?.(keptBytes);
    throw writeError(target.path, error);
  } finally {
    await target.discard();
  }
}

/** The plan that `restore` would follow, without fetching more than a few headers. */
export async function planRestore(options: RestoreGoal & RestoreSource): Promise<Plan> {
  const layout = new LogLayout(options.store.layout, options.prefix);
  return (await chooseState(options.store, layout, options)).plan;
}

export interface RestoreSource {
  readonly store: ObjectStore;
  readonly prefix: string;
  readonly signal?: AbortSignal;
}

/**
 * Fetches a state into the temporary file of `target`, checks its checksums, and plans anew when files that it needs
 * were compacted away meanwhile: what was fetched stays where the new plan leads to the same state.
 */
export async function fetchState(
  options: RestoreGoal & RestoreSource,
  target: RestoreTarget,
  progress: Progress,
): Promise<RestoredState> {
  const { store, prefix, signal } = options;
  const layout = new LogLayout(store.layout, prefix);
  const { journal } = target;
  const assembler = new Assembler({
    store,
    fd: target.fd,
    ...(signal !== undefined && { signal }),
    onBytes: (bytes, kept) => progress.add(bytes, kept),
    ...(journal !== undefined && { journal }),
  });
  try {
    for (let attempt = 1; ; attempt++) {
      progress.enter("plan");
      const chosen = await chooseState(store, layout, options).catch((error: Error) => error);
      if (chosen instanceof Error) return await fetchOldState(chosen, options, target, progress);
      progress.begin(chosen.plan.files.length, assembler.missingBytes(chosen.plan));
      try {
        const assembly = await assembler.assemble(chosen.plan, (bytes) => target.ensureRoom(bytes));
        return stateOf(assembly, chosen.plan, chosen.logId, options);
      } catch (error) {
        if (journal?.wasUsed === true && isDamage(error)) {
          // What an earlier restore left may be to blame.
          journal.clear();
          assembler.forget();
          progress.undoKept();
          continue;
        }
        if (!isSluiceError(error, "SLU-3404")) throw error;
        if (attempt === PLANS_MAX) {
          throw new SluiceError("SLU-4510", `${store.url}: files were deleted during each of ${attempt} attempts`, {
            cause: error,
          });
        }
      }
    }
  } finally {
    await assembler.close();
  }
}

/**
 * The state out of a backup of Litestream 0.3, where `problem` says that the log of Litestream 0.5 or Sluice has none,
 * or doesn't reach back that far; rethrows it when there's no such backup either.
 */
async function fetchOldState(
  problem: Error,
  options: RestoreGoal & RestoreSource,
  target: RestoreTarget,
  progress: Progress,
): Promise<RestoredState> {
  const mayBeOld = isSluiceError(problem, "SLU-4501") || isSluiceError(problem, "SLU-4503");
  const objects = mayBeOld && options.txid === undefined ? await listOld(options) : [];
  if (objects.length === 0) throw problem;
  target.reset();
  const { plan, pageSize, pageCount } = await restoreOld(objects, options, target, progress);
  return {
    txid: 0,
    position: NOTHING,
    epoch: 0,
    writer: undefined,
    timestampMs: plan.timestampMs,
    checksum: undefined,
    logId: undefined,
    pageSize,
    pageCount,
    pageSums: undefined,
  };
}

/** Checksums that are wrong, or pages that are nowhere. */
function isDamage(error: unknown): boolean {
  return isSluiceError(error) && ["SLU-4508", "SLU-4509", "SLU-5001", "SLU-5002"].includes(error.code);
}

function stateOf(assembly: Assembly, plan: Plan, logId: string | undefined, source: RestoreSource): RestoredState {
  const { head, checksum } = assembly;
  const { record } = head;
  if (record !== undefined && record.checksum !== checksum) {
    throw new SluiceError(
      "SLU-4508",
      `${source.store.url}: after TXID ${formatTxid(plan.txid)} the database should have the checksum ${hex(record.checksum)}, and has ${hex(checksum)}`,
    );
  }
  return {
    txid: plan.txid,
    position: record?.position ?? positionOf(0, plan.txid),
    epoch: record?.epoch ?? 0,
    writer: record?.writer,
    timestampMs: head.timestampMs,
    checksum,
    logId,
    pageSize: assembly.pageSize,
    pageCount: assembly.pageCount,
    pageSums: assembly.sums,
  };
}

/** Makes the file durable while SQLite looks at it; returns how long that took. */
export async function verifyFile(
  target: RestoreTarget,
  check: IntegrityCheck,
  progress: Progress,
): Promise<number | undefined> {
  progress.enter("check");
  const startedMs = Date.now();
  const results = await Promise.allSettled([
    target.sync(),
    check === "none" ? undefined : checkIntegrity(target.temporaryPath, check, target.path),
  ]);
  for (const result of results) if (result.status === "rejected") throw result.reason;
  return check === "none" ? undefined : Date.now() - startedMs;
}

function hex(checksum: bigint): string {
  return checksum.toString(16).padStart(16, "0");
}

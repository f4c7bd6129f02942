import { fstatSync } from "node:fs";
import { SluiceError } from "../errors/error.ts";
import { applyForward } from "./apply-forward.ts";
import { AppliedJournal } from "./applied-journal.ts";
import { Batches } from "./batches.ts";
import { bootId } from "./boot.ts";
import type { WalPlace } from "./capture.ts";
import { ChangedPages } from "./changed-pages.ts";
import type { DatabaseEvent } from "./events.ts";
import { checkFrozen } from "./frozen-files.ts";
import { isSameMark } from "./files.ts";
import { Followed } from "./followed.ts";
import { type DatabaseLimits, defaultLimits } from "./limits.ts";
import { LiveWal } from "./live-wal.ts";
import { OpenBatch } from "./open-batch.ts";
import { openFiles, type OpenedFiles, type Predecessor } from "./opening.ts";
import { Owner } from "./owner.ts";
import { PageSums } from "./page-sums.ts";
import { quarantinePages } from "./quarantine.ts";
import { type Recovery, recover, sumsOf } from "./recover.ts";
import { seqOf } from "../ltx/position.ts";
import { type PersistedState, StateFile } from "./state.ts";
import { loadSums } from "./sums-file.ts";
import { WorkQueue } from "./work-queue.ts";

export interface DatabaseOptions {
  /** Whether applications may write from the start, before anything of them is sealed. Default: "open". */
  readonly gate?: "open" | "closed";
  readonly limits?: Partial<DatabaseLimits>;
  /** Must return at once and not throw. */
  readonly onEvent?: (event: DatabaseEvent) => void;
  readonly signal?: AbortSignal;
  /** Who looks after the database until now, and is asked for it. */
  readonly predecessor?: Predecessor | undefined;
}

/** A database that is opened and captured, with what a `Database` or a `Replica` is made of. */
export interface Started {
  readonly wal: LiveWal;
  /** Of the role in which it was left. */
  readonly books: Batches | Followed;
  readonly file: StateFile;
  readonly queue: WorkQueue;
  readonly owner: Owner;
  readonly limits: DatabaseLimits;
  readonly onEvent: (event: DatabaseEvent) => void;
  /** The last frame that is in a sealed batch. */
  readonly durable: number;
}

/**
 * Opens the files and finds out how the database stands to its persisted state. `gate` closed: from then on no
 * application can write. After an error nothing is held.
 */
export async function start(
  file: string,
  stateDir: string,
  options: DatabaseOptions,
  gate: "open" | "closed",
): Promise<Started> {
  const limits = { ...defaultLimits, ...options.limits };
  const onEvent = options.onEvent ?? ((): void => undefined);
  for (let attempt = 0; ; attempt++) {
    const opened = await openFiles(file, limits.openMs, gate, options.signal, options.predecessor);
    let stateFile: StateFile | undefined;
    let lost: readonly number[];
    try {
      stateFile = new StateFile(stateDir);
      await checkFrozen(stateFile);
      const result = await startOpened(opened, stateFile, limits, onEvent);
      if (!("slots" in result)) return result;
      lost = result.slots;
    } catch (error) {
      opened.files.close();
      stateFile?.close();
      throw error;
    }
    opened.files.close();
    stateFile.close();
    if (attempt > 0) throw new SluiceError("SLU-2000", `${file}: commits that were put back are lost again`);
    await applyForward(file, stateDir, lost);
  }
}

/** Also `slots`: local batches that a power loss has taken out of the database, and that must be put back first. */
async function startOpened(
  opened: OpenedFiles,
  file: StateFile,
  limits: DatabaseLimits,
  onEvent: (event: DatabaseEvent) => void,
): Promise<Started | { readonly slots: readonly number[] }> {
  const { state } = file;
  if (state !== undefined && state.pageSize !== 0 && state.pageSize !== opened.pageSize) {
    const { path } = opened.files;
    throw new SluiceError("SLU-2015", `${path} has pages of ${opened.pageSize} bytes, its log of ${state.pageSize}`);
  }
  if (state?.following === true) return startFollowed(opened, file, state, limits, onEvent);
  const untouched = state?.clean !== undefined && isSameMark(state.clean, opened.files.mark);
  const open = new OpenBatch(state?.sealedSize ?? 0);
  const queue = new WorkQueue();
  let continues = false;
  let commits = 0;
  const owner = new Owner(queue, onEvent, {
    commit: (frames, first, last, before, after) => {
      open.commit(frames, first, last, before, after);
      commits++;
      if (!isSealedPlace(state, wal.capture.place)) return;
      continues = true;
      commits = 0;
      open.forget(after);
    },
  });
  const size = Math.floor(fstatSync(opened.files.db).size / opened.pageSize);
  const wal: LiveWal = new LiveWal(opened, size, owner, limits);
  await wal.captureAll();
  const { frame } = wal.capture;
  const boot = bootId();
  const view = wal.view(frame, wal.capture.size);
  const { salt1, salt2 } = wal.capture.place;
  const endLost = !continues && state?.place?.salt1 === salt1 && state.place.salt2 === salt2;
  const recovery = await recover({ stateDir: file.dir, state, continues, endLost, untouched, bootId: boot, view });
  onEvent({ type: "recovered", how: recovery.kind, detail: describe(recovery, commits) });
  if (recovery.kind === "behind") {
    if (recovery.unknown.length > 0 && state !== undefined) {
      const names = {
        common: state.sealedPosition,
        own: state.sealedPosition,
        checksum: recovery.checksum,
        txid: state.sealedTxid + 1,
        epoch: state.epoch,
      };
      // All that differ, not the unknown alone: what was found can then be put together again.
      const path = await quarantinePages(file.dir, names, view, recovery.pages);
      onEvent({ type: "quarantined", path, pages: recovery.pages.length });
    }
    // Killed in the middle of it, the database is a mixture, and its WAL is no witness any more.
    if (state !== undefined) await file.write({ ...state, puttingBack: true });
    return { slots: recovery.slots };
  }
  let durable = 0;
  if (recovery.kind === "in-step" && continues) durable = state?.place?.frame ?? 0;
  if (recovery.kind === "in-step" && !continues && !untouched) {
    durable = frame;
    commits = 0;
    open.forget(wal.capture.size);
  }
  if (recovery.kind === "changed") {
    open.forget(state?.sealedSize ?? 0);
    open.differs(recovery.pages, wal.capture.size);
  }
  if (recovery.kind === "unknown") {
    open.forget(wal.capture.size);
    open.everything();
  }
  open.open();
  // From here on a difference is no power loss of an earlier boot. What replicas had got of that boot's epoch may be gone.
  if (state !== undefined && state.bootId !== boot)
    await file.write({ ...state, bootId: boot, writer: 0n, puttingBack: false });
  const sums = recovery.kind === "unknown" ? new PageSums() : recovery.sums;
  const isUncounted = recovery.kind !== "in-step";
  const batches = new Batches({ file, wal, open, sums, commits, isUncounted, bootId: boot });
  return { wal, books: batches, file, queue, owner, limits, onEvent, durable };
}

/**
 * A database that followed a primary when it was left. Its pages say which of the states in the journal it is; after a
 * clean stop nothing needs to be read.
 */
async function startFollowed(
  opened: OpenedFiles,
  file: StateFile,
  state: PersistedState,
  limits: DatabaseLimits,
  onEvent: (event: DatabaseEvent) => void,
): Promise<Started> {
  const saved =
    state.clean !== undefined && isSameMark(state.clean, opened.files.mark) ? await loadSums(file.dir) : undefined;
  const queue = new WorkQueue();
  const owner = new Owner(queue, onEvent, { commit: () => undefined });
  const size = Math.floor(fstatSync(opened.files.db).size / opened.pageSize);
  const wal = new LiveWal(opened, size, owner, limits);
  await wal.captureAll();
  const { frame } = wal.capture;
  const isClean = saved !== undefined && saved.sums.count === size && frame === 0;
  const sums = isClean ? saved.sums : await sumsOf(wal.view(frame, wal.capture.size));
  const journal = new AppliedJournal(file.dir);
  const applied = journal.find(sums.checksum, sums.count);
  const { confirmed, epoch } = state;
  const record = confirmed.txid === 0 ? undefined : { ...confirmed, epoch };
  const changed = new ChangedPages();
  if (applied !== undefined && applied.position !== record?.position) changed.everything(seqOf(applied.position));
  const detail =
    applied === undefined ? "its pages are none of the states that it has had" : "a state of its primary's";
  onEvent({ type: "recovered", how: applied === undefined ? "unknown" : "in-step", detail });
  const position = applied?.position;
  const books = new Followed({ file, wal, journal, sums, changed, position, record });
  return { wal, books, file, queue, owner, limits, onEvent, durable: frame };
}

function isSealedPlace(state: PersistedState | undefined, place: WalPlace): boolean {
  const sealed = state?.place;
  return (
    sealed !== undefined &&
    sealed.frame === place.frame &&
    sealed.salt1 === place.salt1 &&
    sealed.salt2 === place.salt2 &&
    sealed.sum1 === place.sum1 &&
    sealed.sum2 === place.sum2
  );
}

function describe(recovery: Recovery, commits: number): string {
  if (recovery.kind === "in-step") return `${commits} commits since the last batch`;
  if (recovery.kind === "changed") return `${recovery.pages.length} pages changed without Sluice`;
  if (recovery.kind === "behind") return `${recovery.slots.length} batches are put back after a power loss`;
  return recovery.reason;
}

import { fstatSync, readFileSync } from "node:fs";
import { SluiceError } from "../errors/error.ts";
import { applyForward, quarantinePages } from "./apply-forward.ts";
import { Batches } from "./batches.ts";
import type { WalPlace } from "./capture.ts";
import type { DatabaseEvent } from "./events.ts";
import { checkFrozen } from "./frozen-files.ts";
import { isSameMark } from "./files.ts";
import { type DatabaseLimits, defaultLimits } from "./limits.ts";
import { LiveWal } from "./live-wal.ts";
import { OpenBatch } from "./open-batch.ts";
import { openFiles, type OpenedFiles } from "./opening.ts";
import { Owner } from "./owner.ts";
import { PageSums } from "./page-sums.ts";
import { type Recovery, recover } from "./recover.ts";
import { type PersistedState, StateFile } from "./state.ts";
import { WorkQueue } from "./work-queue.ts";

export interface DatabaseOptions {
  readonly limits?: Partial<DatabaseLimits>;
  /** Must return at once and not throw. */
  readonly onEvent?: (event: DatabaseEvent) => void;
  readonly signal?: AbortSignal;
}

/** A database that is opened and captured, with what a `Database` is made of. */
export interface Started {
  readonly wal: LiveWal;
  readonly batches: Batches;
  readonly file: StateFile;
  readonly queue: WorkQueue;
  readonly owner: Owner;
  readonly limits: DatabaseLimits;
  readonly onEvent: (event: DatabaseEvent) => void;
  /** The last frame that is in a sealed batch. */
  readonly durable: number;
}

/** Opens the files and finds out how the database stands to its persisted state. After an error nothing is held. */
export async function start(file: string, stateDir: string, options: DatabaseOptions): Promise<Started> {
  const limits = { ...defaultLimits, ...options.limits };
  const onEvent = options.onEvent ?? ((): void => undefined);
  for (let attempt = 0; ; attempt++) {
    const opened = await openFiles(file, limits.openMs, options.signal);
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
  const bootId = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const view = wal.view(frame, wal.capture.size);
  const { salt1, salt2 } = wal.capture.place;
  const endLost = !continues && state?.place?.salt1 === salt1 && state.place.salt2 === salt2;
  const recovery = await recover({ stateDir: file.dir, state, continues, endLost, untouched, bootId, view });
  onEvent({ type: "recovered", how: recovery.kind, detail: describe(recovery, commits) });
  if (recovery.kind === "behind") {
    if (recovery.unknown.length > 0 && state !== undefined) {
      const path = await quarantinePages(file.dir, state, view, recovery.unknown);
      onEvent({ type: "quarantined", path, pages: recovery.unknown.length });
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
  // From here on a difference is no power loss of an earlier boot.
  if (state !== undefined && state.bootId !== bootId) await file.write({ ...state, bootId, puttingBack: false });
  const sums = recovery.kind === "unknown" ? new PageSums() : recovery.sums;
  const isUncounted = recovery.kind !== "in-step";
  const batches = new Batches({ file, wal, open, sums, commits, isUncounted, bootId });
  return { wal, batches, file, queue, owner, limits, onEvent, durable };
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

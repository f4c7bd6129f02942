import { unlink } from "node:fs/promises";
import { SluiceError } from "../errors/error.ts";
import { lockPage } from "../ltx/header.ts";
import { PageSum } from "../ltx/page-sum.ts";
import { epochOf, NOTHING, position as positionOf, type Position, seqOf } from "../ltx/position.ts";
import type { WalPlace } from "./capture.ts";
import type { FrozenBatch, LogState } from "./contract.ts";
import type { FileMark } from "./files.ts";
import type { FrameList } from "./frame-list.ts";
import type { LiveWal } from "./live-wal.ts";
import { localSlots, readLocal } from "./local-batches.ts";
import { type BatchCut, type OpenBatch, pagesOf } from "./open-batch.ts";
import type { Books } from "./owner.ts";
import type { PageSums } from "./page-sums.ts";
import { adopt, seal as sealCut, type Sealed, sealedPath, type SealName, sealNow, type SealSource } from "./seal.ts";
import { emptyState, type PersistedState, type StateFile } from "./state.ts";
import { saveSums } from "./sums-file.ts";

/** Confirmed batches stay on disk until the table of page sums, 8 bytes a page, is saved: not before this many, … */
const KEEP_LOCAL = 32;
/** … nor before they are several times as large as the table, so that saving it costs little of what sealing costs; */
const KEEP_TABLES = 4;
/** but at the latest when there are so many of them, … */
const MOST_LOCAL = 1024;
/** … or when the next start would have to read so much more than the table. */
const MOST_TABLES = 64;
const MOST_EXTRA_BYTES = 4 * 1024 * 1024;
/** Batches that may wait for the store. */
const MOST_FROZEN = 24;
/** Names that are left out where it is not known how many commits an earlier life has named. */
const NAME_GAP = 1 << 20;

/**
 * What of a database is named, sealed, sent and confirmed (protocol section 7): the open batch, the frozen ones, the
 * persisted state. Methods that return promises are called one after the other, from the database's queue.
 *
 * - **waiting**: from the start. Commits are named in the epoch of an earlier life; nothing is sealed.
 * - **claiming**: from `freezeTakeover`. Commits are captured, but not named yet, and nothing is sealed. `abandon` leads
 *   back; so does another `freezeTakeover`, after a claim that was confirmed and yet began nothing. After a restart
 *   the state says that a claim is not decided.
 * - **begun**: from `begin`, in one epoch. Commits are named in it; batches are sealed. `rest` leads back to *waiting*.
 */
export class Batches implements Books {
  readonly #file: StateFile;
  readonly #wal: LiveWal;
  readonly #open: OpenBatch;
  readonly #sums: PageSums;
  readonly #source: SealSource;
  readonly #bootId: string;
  #state: PersistedState;
  #position: Position;
  #begun = false;
  #claiming: boolean;
  /** Commits that were captured while claiming. */
  #unnamed = 0;
  /** The state before a takeover record was frozen in this life, and the frame up to which that record goes. */
  #beforeClaim: PersistedState | undefined;
  #claimedFrame = 0;
  /** What the next record names, and what the last confirmed one does. */
  #members: readonly number[] = [];
  #confirmedMembers: readonly number[] = [];
  #savedTxid = 0;
  #unsavedBytes = 0;
  onFrozen: (batch: FrozenBatch) => void = () => undefined;

  /**
   * `sums`: of the sealed state. `commits`: how many of them were captured since. `isUncounted`: it differs from the
   * sealed state by commits that nobody has counted.
   */
  constructor(parts: {
    readonly file: StateFile;
    readonly wal: LiveWal;
    readonly open: OpenBatch;
    readonly sums: PageSums;
    readonly commits: number;
    readonly isUncounted: boolean;
    readonly bootId: string;
    /** Default: what is on disk, and the position that follows from it. */
    readonly state?: PersistedState;
    readonly position?: Position;
  }) {
    this.#file = parts.file;
    this.#wal = parts.wal;
    this.#open = parts.open;
    this.#sums = parts.sums;
    this.#bootId = parts.bootId;
    this.#state = parts.state ?? parts.file.state ?? emptyState;
    this.#position = parts.position ?? this.#state.sealedPosition;
    const commits = parts.isUncounted ? NAME_GAP : parts.commits;
    this.#claiming = this.#state.takeover !== undefined;
    if (this.#claiming) this.#unnamed = commits;
    else this.#position = nameAfter(this.#position, this.#state.epoch, commits);
    const { files, frames, pageSize } = parts.wal;
    this.#source = { files, frames, pageSize, sums: parts.sums };
  }

  get position(): Position {
    return this.#position;
  }

  get frozen(): readonly FrozenBatch[] {
    return this.#state.frozen;
  }

  get logState(): LogState | undefined {
    if (this.#file.state === undefined) return undefined;
    const { logId, nodeId, confirmed } = this.#state;
    return { logId, nodeId, confirmed };
  }

  get state(): PersistedState {
    return this.#state;
  }

  /** Of the last sealed state; not to be changed. */
  get sums(): PageSums {
    return this.#sums;
  }

  /** Everything captured is in a sealed batch. */
  get isSealed(): boolean {
    return this.#open.isEmpty && !this.#claiming;
  }

  /** Nothing that was captured is missing in the log. */
  get isConfirmed(): boolean {
    const { confirmed, frozen } = this.#state;
    const isAll = this.#open.isEmpty && this.#unnamed === 0 && this.#position === confirmed.position;
    return isAll && frozen.every(({ position }) => position === confirmed.position);
  }

  get canSeal(): boolean {
    return this.#begun && !this.#claiming;
  }

  /** Batches that wait to be confirmed. */
  get unsent(): number {
    return this.#state.frozen.length;
  }

  /** Whether a batch more may wait; past that the last one takes in what comes. */
  get hasRoom(): boolean {
    return this.#state.frozen.length < MOST_FROZEN;
  }

  get canSealNow(): boolean {
    return this.canSeal && this.hasRoom;
  }

  commit(frames: FrameList, first: number, last: number, before: number, after: number): void {
    this.#open.commit(frames, first, last, before, after);
    if (this.#claiming) this.#unnamed++;
    else this.#position = nameAfter(this.#position, this.#state.epoch, 1);
  }

  restarted(): void {
    this.#open.restarted();
  }

  async seal(): Promise<void> {
    await this.freeze();
  }

  /** Who may take over behind the records from now on; see `SealName.members`. */
  nameMembers(members: readonly number[]): void {
    this.#members = members;
  }

  /** The members of the last confirmed record of this life, and those of each batch that is under way. */
  get named(): readonly (readonly number[])[] {
    return [this.#confirmedMembers, ...this.#state.frozen.map(({ members }) => members ?? [])];
  }

  async bindLog(log: { readonly logId: string; readonly nodeId: string }): Promise<void> {
    const { logId } = this.#state;
    const isKept = logId === "" || logId === log.logId;
    if (isKept) return this.#write({ ...this.#state, ...log });
    await this.#write({ ...emptyState, ...log });
    this.#begun = false;
    this.#open.everything();
    this.#position = NOTHING;
    this.#unnamed = 0;
    for (const txid of localSlots(this.#file.dir)) await removeFile(sealedPath(this.#file.dir, txid));
  }

  async confirm(txid: number): Promise<void> {
    const [batch, ...rest] = this.#state.frozen;
    if (batch?.txid !== txid) throw internal(`confirms slot ${txid}, but ${batch?.txid ?? "none"} is the next`);
    const { position, timestampMs } = batch;
    this.#confirmedMembers = batch.members ?? [];
    const decided = this.#state.takeover === txid;
    await this.#write({
      ...this.#state,
      confirmed: { txid, position, timestampMs },
      frozen: rest,
      takeover: decided ? undefined : this.#state.takeover,
    });
    if (decided) this.#wal.sealed(this.#claimedFrame);
    this.#unsavedBytes += batch.sizeBytes;
    if (this.#isTidyDue(txid)) await this.tidy();
  }

  #isTidyDue(txid: number): boolean {
    const tableBytes = 8 * this.#sums.count;
    if (this.#unsavedBytes >= MOST_TABLES * tableBytes + MOST_EXTRA_BYTES) return true;
    const slots = txid - this.#savedTxid;
    return slots >= MOST_LOCAL || (slots >= KEEP_LOCAL && this.#unsavedBytes >= KEEP_TABLES * tableBytes);
  }

  async freezeTakeover(options: {
    readonly txid: number;
    readonly writer: bigint;
    readonly minTimestampMs: number;
    readonly full?: boolean;
  }): Promise<FrozenBatch> {
    const { txid, writer, minTimestampMs } = options;
    if (this.#state.frozen.length > 0) throw internal("a takeover behind other batches");
    if (this.#file.state === undefined) throw internal("a takeover of a database that is bound to no log");
    // What came behind a claim that was confirmed and did not begin an epoch.
    this.#nameRest();
    if (options.full === true || txid === 1) this.#open.everything();
    // The content that a log begins with is named (0, 1).
    if (this.#position === NOTHING) this.#position = positionOf(0, 1);
    this.#members = [];
    const name = this.#name(txid, txid, writer, minTimestampMs);
    // Backfills wait until it is decided: if it is lost, its frames are in the open batch again.
    const before = this.#state;
    this.#claiming = true;
    let batch;
    try {
      batch = await this.#seal(name, true);
    } catch (error) {
      this.#nameRest();
      throw error;
    }
    this.#beforeClaim = before;
    this.onFrozen(batch);
    return batch;
  }

  async abandon(txid: number): Promise<void> {
    const [batch, ...rest] = this.#state.frozen;
    if (batch?.txid !== txid || this.#state.takeover !== txid)
      throw internal(`abandons slot ${txid}, which is no claim`);
    const pages: number[] = [];
    await readLocal(this.#file.dir, txid, { page: (pgno) => void pages.push(pgno) });
    // Without what was known before the claim the next start compares with nothing, and takes all pages for changed.
    const before = this.#beforeClaim ?? { ...this.#state, sealedTxid: txid - 1, place: undefined };
    await this.#write({ ...before, frozen: rest, takeover: undefined });
    this.#open.differs(pages, this.#open.size);
    this.#nameRest();
  }

  /** Commits that were captured behind a claim get their names, in the epoch that was begun last. */
  #nameRest(): void {
    this.#claiming = false;
    this.#beforeClaim = undefined;
    this.#position = nameAfter(this.#position, this.#state.epoch, this.#unnamed);
    this.#unnamed = 0;
  }

  async begin(epoch: number, writer: bigint): Promise<void> {
    if (this.#state.takeover !== undefined) throw internal("begins an epoch while a claim is not decided");
    await this.#write({ ...this.#state, epoch, writer });
    this.#nameRest();
    this.#begun = true;
  }

  /** Nothing is sealed until an epoch is begun again. */
  rest(): void {
    this.#begun = false;
  }

  /** Seals the open batch; undefined when it's empty, unless the last record names members and no more are wanted. */
  async freeze(): Promise<FrozenBatch | undefined> {
    this.#assertCanSeal();
    if (this.#open.isEmpty && !this.#mustUnname) {
      this.#wal.sealed(this.#wal.capture.frame);
      return undefined;
    }
    const grown = await this.#reopenLast();
    const batch = await this.#seal(
      grown === undefined ? this.#nextName() : { ...this.#nextName(), txid: grown },
      false,
    );
    this.onFrozen(batch);
    return batch;
  }

  get #mustUnname(): boolean {
    return this.#members.length === 0 && this.named.at(-1)!.length > 0;
  }

  /**
   * While the store is away batches must not become more and more: the pages of the last one, which nobody is sending
   * yet, are in the open batch again, and its slot is sealed anew. A kill between the new file and the state that
   * tells of it is found at the next start by the file's header (`grownBatch`).
   */
  async #reopenLast(): Promise<number | undefined> {
    const last = this.#state.frozen.at(-1);
    if (this.hasRoom || last === undefined || last.epoch !== this.#state.epoch) return undefined;
    const pages: number[] = [];
    await readLocal(this.#file.dir, last.txid, { page: (pgno) => void pages.push(pgno) });
    this.#open.differs(pages, this.#open.size);
    return last.txid;
  }

  /** The same at once, under the WRITE lock. */
  sealNow(): void {
    this.#assertCanSeal();
    if (!this.hasRoom) throw internal("seals at once, and too many batches wait");
    if (this.#open.isEmpty) return;
    const name = this.#nextName();
    const { place } = this.#wal.capture;
    const cut = this.#open.cut();
    let batch;
    try {
      const sealed = sealNow(this.#source, cut, name, this.#file.dir);
      const state = this.#after(sealed, name, place, false);
      this.#file.writeNow(state);
      this.#state = state;
      this.#adopt(sealed);
      batch = sealed.batch;
    } catch (error) {
      this.#open.failed();
      throw error;
    }
    this.onFrozen(batch);
  }

  /**
   * Saves the table of page sums and deletes local files that nobody needs: confirmed, in the table, and in a WAL or
   * database file that is on disk.
   */
  async tidy(): Promise<void> {
    const { sealedTxid, confirmed, takeover } = this.#state;
    // Only the table of the sealed state is at hand; a claim that may be abandoned is not in it for ever.
    if (takeover !== undefined || sealedTxid === 0) return;
    await this.#wal.sync();
    await saveSums(this.#file.dir, sealedTxid, this.#sums);
    this.#savedTxid = sealedTxid;
    this.#unsavedBytes = 0;
    for (const txid of localSlots(this.#file.dir)) {
      if (txid <= confirmed.txid) await removeFile(sealedPath(this.#file.dir, txid));
    }
  }

  /** After a clean close: `mark` identifies the file, which holds exactly the sealed state. */
  async closed(mark: FileMark): Promise<void> {
    if (!this.#open.isEmpty || this.#file.state === undefined) return;
    await saveSums(this.#file.dir, this.#state.sealedTxid, this.#sums);
    await this.#write({ ...this.#state, place: undefined, clean: mark });
  }

  /**
   * What is not in the log, and the sums of the database as it is; these books end with it. Nobody writes meanwhile.
   */
  async unconfirmed(): Promise<{ readonly pages: ReadonlySet<number>; readonly sums: PageSums }> {
    this.#nameRest();
    const pages = new Set<number>();
    for (const { txid } of this.#state.frozen) {
      await readLocal(this.#file.dir, txid, { page: (pgno) => void pages.add(pgno) });
    }
    const { frames, pageSize } = this.#source;
    const cut = this.#open.cut();
    const view = this.#wal.view(cut.lastFrame, cut.size);
    const newest = frames.newest(frames.base + 1, Math.max(frames.base, cut.lastFrame), cut.size);
    const open = pagesOf(cut, newest, lockPage(pageSize));
    const content = Buffer.alloc(pageSize);
    const sum = new PageSum(pageSize);
    this.#sums.resize(cut.size);
    for (const page of open) {
      await view.read(page, content);
      sum.of(page, content, 0, pageSize);
      this.#sums.set(page, sum.lo, sum.hi);
      pages.add(page);
    }
    return { pages, sums: this.#sums };
  }

  #assertCanSeal(): void {
    if (!this.canSeal) throw internal("seals a batch without an epoch");
  }

  #nextName(): SealName {
    const { sealedTxid, epoch, writer } = this.#state;
    return this.#name(sealedTxid + 1, epoch, writer, 0);
  }

  #name(txid: number, epoch: number, writer: bigint, minTimestampMs: number): SealName {
    const timestampMs = Math.max(minTimestampMs, this.#state.sealedTimestampMs, Date.now());
    return { txid, epoch, writer, timestampMs, position: this.#position, members: this.#members };
  }

  async #seal(name: SealName, claim: boolean): Promise<FrozenBatch> {
    const { place } = this.#wal.capture;
    const cut: BatchCut = this.#open.cut();
    try {
      const sealed = await sealCut(this.#source, cut, name, this.#file.dir);
      await this.#write(this.#after(sealed, name, place, claim));
      this.#adopt(sealed);
      if (claim) this.#claimedFrame = cut.lastFrame;
      else this.#wal.sealed(cut.lastFrame);
      return sealed.batch;
    } catch (error) {
      this.#open.failed();
      throw error;
    }
  }

  /** The state when `sealed` counts. */
  #after(sealed: Sealed, name: SealName, place: WalPlace, claim: boolean): PersistedState {
    return {
      ...this.#state,
      sealedTxid: name.txid,
      sealedPosition: name.position,
      sealedTimestampMs: name.timestampMs,
      pageSize: this.#wal.pageSize,
      sealedSize: sealed.size,
      sealedChecksum: sealed.batch.checksum,
      place: place.frame === 0 ? undefined : place,
      frozen: [...this.#state.frozen.filter((batch) => batch.txid < name.txid), sealed.batch],
      takeover: claim ? name.txid : undefined,
      bootId: this.#bootId,
      clean: undefined,
      following: false,
    };
  }

  #adopt(sealed: Sealed): void {
    adopt(this.#sums, sealed);
    this.#open.sealed();
  }

  async #write(state: PersistedState): Promise<void> {
    await this.#file.write(state);
    this.#state = state;
  }
}

/** The name `count` commits after `position`, in `epoch`. */
function nameAfter(position: Position, epoch: number, count: number): Position {
  // What was there before the log began is named when the log begins.
  if (count === 0 || position === NOTHING) return position;
  const seq = epochOf(position) === epoch ? seqOf(position) : 0;
  return positionOf(epoch, seq + count);
}

async function removeFile(path: string): Promise<void> {
  await unlink(path).catch(() => undefined);
}

function internal(what: string): SluiceError {
  return new SluiceError("SLU-2000", what);
}

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { SluiceError } from "../../../src/errors/error.ts";
import type { DatabaseSnapshot, FrozenBatch, LoggedDatabase, LogState } from "../../../src/database/contract.ts";
import { epochOf, NOTHING, position as positionOf, seqOf, type Position } from "../../../src/ltx/position.ts";
import { PageSum, sumValue } from "../../../src/ltx/page-sum.ts";
import { recordHeader } from "../../../src/ltx/record.ts";
import type { Clock } from "../../../src/log/clock.ts";
import type { Random } from "./clock.ts";
import { encode, type Pages } from "./ltx.ts";

export const PAGE_SIZE = 512;

/** What of a database survives its Sluice. Values are replaced, never changed, so a copy is a clone of the disk. */
export interface SimDisk {
  dir: string;
  pages: Pages;
  /** Commits that nobody has captured yet, oldest first. */
  wal: readonly Pages[];
  /** Pages changed since the last sealed batch. */
  open: ReadonlySet<number>;
  position: Position;
  /** In which commits are named, also those that only the next life captures: the last one that was begun. */
  epoch: number;
  logState: LogState | undefined;
  frozen: readonly (FrozenBatch & { readonly pages: ReadonlySet<number> })[];
  /** There is no room for another batch. */
  isFull: boolean;
}

export function newDisk(dir: string): SimDisk {
  mkdirSync(dir, { recursive: true });
  const pages: Pages = new Map([[1, new Uint8Array(PAGE_SIZE).fill(1)]]);
  return {
    dir,
    pages,
    wal: [],
    open: new Set(),
    position: NOTHING,
    epoch: 0,
    logState: undefined,
    frozen: [],
    isFull: false,
  };
}

/** A copy of the disk on another machine. */
export function cloneDisk(disk: SimDisk, dir: string): SimDisk {
  mkdirSync(dir, { recursive: true });
  const frozen = disk.frozen.map((batch) => {
    const target = path.join(dir, path.basename(batch.path));
    copyFileSync(batch.path, target);
    return { ...batch, path: target };
  });
  return { ...disk, dir, frozen };
}

/**
 * A database as the log sees it, as plainly as it can be: commits replace small pages, batches are sets of pages, and
 * sealed batches are real LTX files. Every step that touches the disk takes a moment, before and after, in which its
 * Sluice may be killed.
 */
export class SimDatabase implements LoggedDatabase {
  readonly pageSize = PAGE_SIZE;
  readonly disk: SimDisk;
  /** Who may take over behind the next records. */
  protected members: readonly number[] = [];
  onFrozen: (batch: FrozenBatch) => void = () => undefined;
  onCaptured: (position: Position) => void = () => undefined;
  /** Told of every name that is given to a state. */
  readonly #onNamed: (position: Position, pages: Pages) => void;
  readonly #clock: Clock & { readonly isAlive: boolean };
  readonly #random: Random;
  #epoch: number | undefined;
  #writer = 0n;
  #isClaiming = false;
  #queue: Promise<unknown> = Promise.resolve();
  protected readonly snapshots = new Set<AbortController>();

  constructor(
    disk: SimDisk,
    clock: Clock & { readonly isAlive: boolean },
    random: Random,
    onNamed: (position: Position, pages: Pages) => void,
  ) {
    this.disk = disk;
    this.#clock = clock;
    this.#random = random;
    this.#onNamed = onNamed;
    // What an earlier life had not captured is captured now, in the epoch of that life.
    if (disk.position !== NOTHING) this.#capture();
  }

  get path(): string {
    return path.join(this.disk.dir, "app.db");
  }

  get stateDir(): string {
    return this.disk.dir;
  }

  get position(): Position {
    return this.disk.position;
  }

  get logState(): LogState | undefined {
    return this.disk.logState;
  }

  get frozen(): readonly FrozenBatch[] {
    return this.disk.frozen;
  }

  /** The application commits new contents of some pages. Only where its gate is open. */
  commit(pages: Pages): void {
    this.disk.wal = [...this.disk.wal, pages];
  }

  get isOpen(): boolean {
    return this.#epoch !== undefined && this.#clock.isAlive;
  }

  captureNow(): Position {
    if (!this.#clock.isAlive || this.#isClaiming) return this.disk.position;
    this.#capture();
    return this.disk.position;
  }

  bindLog({ logId, nodeId }: { readonly logId: string; readonly nodeId: string }): Promise<void> {
    return this.step(() => {
      const { disk } = this;
      const isKept = disk.logState?.logId === "" || disk.logState?.logId === logId;
      const confirmed = isKept ? disk.logState!.confirmed : { txid: 0, position: NOTHING, timestampMs: 0 };
      if (!isKept) {
        disk.frozen = [];
        disk.position = NOTHING;
        disk.open = new Set(disk.pages.keys());
      }
      disk.logState = { logId, nodeId, confirmed };
    });
  }

  confirm(txid: number): Promise<void> {
    return this.step(() => {
      const { disk } = this;
      const [batch, ...rest] = disk.frozen;
      if (batch?.txid !== txid) throw new SluiceError("SLU-2000", `confirms ${txid}, not ${batch?.txid}`);
      const { position, timestampMs } = batch;
      disk.logState = { ...disk.logState!, confirmed: { txid, position, timestampMs } };
      disk.frozen = rest;
    });
  }

  freezeTakeover(options: {
    readonly txid: number;
    readonly writer: bigint;
    readonly minTimestampMs: number;
    readonly full?: boolean;
  }): Promise<FrozenBatch> {
    return this.step(() => {
      const { disk } = this;
      if (disk.frozen.length > 0) throw new SluiceError("SLU-2000", "a takeover behind other batches");
      this.#capture();
      if (disk.position === NOTHING) {
        disk.position = positionOf(0, 1);
        this.#onNamed(disk.position, disk.pages);
      }
      if (options.full === true) disk.open = new Set(disk.pages.keys());
      this.members = [];
      const batch = this.#freeze(options.txid, options.txid, options.writer, options.minTimestampMs);
      this.#isClaiming = true;
      return batch;
    });
  }

  abandonTakeover(txid: number): Promise<void> {
    return this.step(() => {
      const { disk } = this;
      const [batch] = disk.frozen;
      if (batch?.txid !== txid) throw new SluiceError("SLU-2000", `abandons ${txid}, not ${batch?.txid}`);
      disk.open = new Set([...disk.open, ...batch.pages]);
      disk.frozen = [];
      this.#isClaiming = false;
    });
  }

  begin(epoch: number, writer: bigint): Promise<void> {
    return this.step(() => {
      this.#epoch = epoch;
      this.disk.epoch = epoch;
      this.#writer = writer;
      this.#isClaiming = false;
      if (this.disk.wal.length > 0) this.#capture();
    });
  }

  freeze(): Promise<FrozenBatch | undefined> {
    return this.step(() => this.#seal());
  }

  snapshot(): Promise<DatabaseSnapshot> {
    return this.step(() => {
      const { disk } = this;
      this.#seal();
      const last = disk.frozen.at(-1);
      const { txid, position, timestampMs } = last ?? disk.logState!.confirmed;
      const { pages } = disk;
      const abort = new AbortController();
      this.snapshots.add(abort);
      return {
        txid,
        epoch: this.#epoch!,
        writer: this.#writer,
        position,
        checksum: checksumOf(pages),
        timestampMs,
        pageSize: PAGE_SIZE,
        pageCount: pages.size,
        signal: abort.signal,
        read: async (firstPage, into) => {
          for (let at = 0; at < into.length; at += PAGE_SIZE) into.set(pages.get(firstPage + at / PAGE_SIZE)!, at);
        },
        release: () => void this.snapshots.delete(abort),
      };
    });
  }

  /** The last batch that waits takes in what was committed since, as a database does that has too many of them. */
  reseal(): void {
    const { disk } = this;
    const last = disk.frozen.at(-1);
    if (last === undefined || disk.frozen.length < 2) throw new Error("nothing that is not being sent");
    this.#capture();
    disk.open = new Set([...disk.open, ...last.pages]);
    disk.frozen = disk.frozen.slice(0, -1);
    this.#freeze(last.txid, last.epoch, this.#writer, last.timestampMs);
  }

  /** What no real database does: the oldest sealed batch takes in what was committed since. Returns its bytes. */
  regrow(): Uint8Array | undefined {
    const { disk } = this;
    const [batch, ...rest] = disk.frozen;
    if (batch === undefined || batch.epoch === batch.txid || rest.length > 0) return undefined;
    this.#capture();
    disk.open = new Set([...disk.open, ...batch.pages]);
    disk.frozen = [];
    const { path: target, sizeBytes } = batch;
    const grown = this.#freeze(batch.txid, batch.epoch, this.#writer, batch.timestampMs);
    disk.frozen = [{ ...grown, pages: batch.pages, path: target, sizeBytes }];
    return readFileSync(grown.path);
  }

  /** The bounds of all pictures are passed. */
  giveUpSnapshots(): void {
    for (const abort of this.snapshots) abort.abort(new Error("too long"));
  }

  /** A record is due although nothing was committed. */
  protected get mustSeal(): boolean {
    return false;
  }

  #seal(): FrozenBatch | undefined {
    const { disk } = this;
    if (this.#epoch === undefined || this.#isClaiming) throw new SluiceError("SLU-2000", "freezes without an epoch");
    if (disk.open.size === 0 && !this.mustSeal) return undefined;
    const txid = (disk.frozen.at(-1)?.txid ?? disk.logState!.confirmed.txid) + 1;
    return this.#freeze(txid, this.#epoch, this.#writer, disk.logState!.confirmed.timestampMs);
  }

  #freeze(txid: number, epoch: number, writer: bigint, minTimestampMs: number): FrozenBatch {
    const { disk, members } = this;
    if (disk.isFull) throw new SluiceError("SLU-2008", `${this.path}: no room`);
    const timestampMs = Math.max(minTimestampMs, disk.frozen.at(-1)?.timestampMs ?? 0, this.#clock.now());
    const checksum = checksumOf(disk.pages);
    const file = { pageSize: PAGE_SIZE, pageCount: disk.pages.size, minTxid: txid, maxTxid: txid, timestampMs };
    const header = recordHeader(file, { position: disk.position, checksum, epoch, writer, members });
    const pages: Pages = new Map([...disk.open].map((pgno) => [pgno, disk.pages.get(pgno)!]));
    const bytes = encode(header, pages);
    const target = path.join(disk.dir, `${txid}-${epoch}.ltx`);
    writeFileSync(target, bytes);
    const batch = {
      txid,
      epoch,
      position: disk.position,
      checksum,
      timestampMs,
      members,
      path: target,
      sizeBytes: bytes.length,
      pages: disk.open,
    };
    disk.frozen = [...disk.frozen, batch];
    disk.open = new Set();
    this.onFrozen(batch);
    return batch;
  }

  #capture(): void {
    const { disk } = this;
    if (disk.wal.length === 0 || disk.position === NOTHING) return;
    for (const commit of disk.wal) {
      disk.pages = new Map([...disk.pages, ...commit]);
      disk.open = new Set([...disk.open, ...commit.keys()]);
      const { epoch } = disk;
      const seq = epochOf(disk.position) === epoch ? seqOf(disk.position) + 1 : 1;
      disk.position = positionOf(epoch, seq);
      this.#onNamed(disk.position, disk.pages);
    }
    disk.wal = [];
    this.onCaptured(disk.position);
  }

  /** One after the other, each with a moment before and after it; a dead database never answers. */
  protected step<T>(run: () => T): Promise<T> {
    const result = this.#queue.then(async () => {
      await this.#moment();
      const value = run();
      await this.#moment();
      return value;
    });
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #moment(): Promise<void> {
    return new Promise((resolve) => void this.#clock.schedule(this.#random.below(5), resolve));
  }
}

const pageSum = new PageSum(PAGE_SIZE);

/** The checksum of a database (protocol section 6). */
export function checksumOf(pages: Pages): bigint {
  let lo = 0;
  let hi = 0;
  for (const [pgno, page] of pages) {
    pageSum.of(pgno, page, 0, PAGE_SIZE);
    lo ^= pageSum.lo;
    hi ^= pageSum.hi;
  }
  return sumValue(lo, hi);
}

import type { Database } from "../../../src/database/database.ts";
import type { FrozenBatch } from "../../../src/database/contract.ts";
import type { ResyncSource } from "../../../src/database/replication.ts";
import { SluiceError } from "../../../src/errors/error.ts";
import type { Position } from "../../../src/ltx/position.ts";
import type { LifeClock, Random } from "../../log/sim/clock.ts";
import { SimDatabase } from "../../log/sim/database.ts";
import type { Pages } from "../../log/sim/ltx.ts";
import { SimFeed } from "./feed.ts";
import type { Machine } from "./machine.ts";
import { pictureOf } from "./picture.ts";

type Members = readonly (readonly number[])[];

/** What the cluster asks of a primary's database beside what the log asks. */
type Led = Pick<
  Database,
  | "openGate"
  | "closeGate"
  | "isGateClosed"
  | "writerPid"
  | "nameMembers"
  | "namedMembers"
  | "feed"
  | "resyncSource"
  | "isConfirmed"
  | "pageCount"
  | "descriptors"
>;

/** A database on a primary, with its gate, its members and its feed. */
export class SimPrimary extends SimDatabase implements Omit<Led, "feed"> {
  readonly machine: Machine;
  readonly descriptors = [];
  readonly #hooks: { named: (position: Position, pages: Pages) => void };
  readonly #onNamed: (position: Position, pages: Pages) => void;
  #confirmedMembers: readonly number[] = [];
  #feed: SimFeed | undefined;
  #isClosed = false;

  constructor(machine: Machine, clock: LifeClock, random: Random, onNamed: (position: Position, pages: Pages) => void) {
    const hooks = { named: onNamed };
    super(machine.disk, clock, random, (position, pages) => hooks.named(position, pages));
    this.#hooks = hooks;
    this.#onNamed = onNamed;
    this.machine = machine;
  }

  override get path(): string {
    return this.machine.file;
  }

  get pageCount(): number {
    return this.disk.pages.size;
  }

  get isConfirmed(): boolean {
    const { open, wal, frozen } = this.disk;
    return open.size === 0 && wal.length === 0 && frozen.length === 0;
  }

  override captureNow(): Position {
    if (this.#isClosed) throw new SluiceError("SLU-2013", `${this.path} is closed`);
    const before = this.position;
    const position = super.captureNow();
    if (position !== before) this.#feed?.moved();
    return position;
  }

  override async freezeTakeover(options: Parameters<SimDatabase["freezeTakeover"]>[0]): Promise<FrozenBatch> {
    const batch = await super.freezeTakeover(options);
    this.machine.disk.following = undefined;
    return batch;
  }

  override async begin(epoch: number, writer: bigint): Promise<void> {
    await super.begin(epoch, writer);
    this.machine.disk.writer = { tag: writer, boot: this.machine.boot };
  }

  override async confirm(txid: number): Promise<void> {
    const members = this.disk.frozen[0]?.members ?? [];
    await super.confirm(txid);
    this.#confirmedMembers = members;
  }

  nameMembers(members: readonly number[]): void {
    this.members = members;
  }

  get namedMembers(): Members {
    return [this.#confirmedMembers, ...this.disk.frozen.map(({ members }) => members)];
  }

  protected override get mustSeal(): boolean {
    return this.members.length === 0 && this.namedMembers.at(-1)!.length > 0;
  }

  feed(): SimFeed {
    if (this.#feed !== undefined) return this.#feed;
    if (this.disk.open.size > 0) throw new SluiceError("SLU-2000", "a feed behind commits that aren't sealed");
    const feed = new SimFeed(this.position, this.disk.pages);
    this.#feed = feed;
    this.#hooks.named = (position, pages) => {
      this.#onNamed(position, pages);
      feed.named(position, pages);
    };
    return feed;
  }

  resyncSource(): Promise<ResyncSource> {
    return this.step(() => {
      this.captureNow();
      const { logState, epoch, position, pages } = this.disk;
      const bound = new AbortController();
      this.snapshots.add(bound);
      const source = pictureOf(position, pages, { ...logState!.confirmed, epoch }, bound.signal);
      return { ...source, release: () => void this.snapshots.delete(bound) };
    });
  }

  /** The WAL begins anew. */
  restartWal(): void {
    this.captureNow();
    this.#feed?.restart();
  }

  openGate(): void {
    this.machine.openGate();
  }

  closeGate(): boolean {
    return this.machine.closeGate();
  }

  get isGateClosed(): boolean {
    return !this.machine.isOpen;
  }

  get writerPid(): number {
    return this.machine.isWriting ? 1 : 0;
  }

  /** The role ends; everything committed is captured. */
  async end(): Promise<void> {
    await this.step(() => super.captureNow());
    this.#isClosed = true;
    this.giveUpSnapshots();
  }
}

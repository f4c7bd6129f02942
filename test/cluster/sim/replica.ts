import { ChangedPages } from "../../../src/database/changed-pages.ts";
import type { LogState } from "../../../src/database/contract.ts";
import type { ChangeHead, IncomingChange, RecordName, ResyncSource } from "../../../src/database/replication.ts";
import type { Replica } from "../../../src/database/replica.ts";
import { SluiceError } from "../../../src/errors/error.ts";
import { epochOf, formatPosition, type Position, seqOf } from "../../../src/ltx/position.ts";
import type { LifeClock, Random } from "../../log/sim/clock.ts";
import { checksumOf, PAGE_SIZE } from "../../log/sim/database.ts";
import type { Pages } from "../../log/sim/ltx.ts";
import type { Machine } from "./machine.ts";
import { pictureOf, sumsOf } from "./picture.ts";

/** What a replica knows beside its pages; in memory, so a kill loses it. */
export interface Books {
  record: RecordName | undefined;
  readonly changed: ChangedPages;
}

/** The books after a kill: which pages are on top of the record isn't known any more. */
export function booksAfterKill({ disk }: Machine): Books {
  const confirmed = disk.following!;
  const record = confirmed.txid === 0 ? undefined : { ...confirmed, epoch: disk.epoch };
  const changed = new ChangedPages();
  if (disk.position !== record?.position) changed.everything(seqOf(disk.position));
  return { record, changed };
}

/** Told when commits leave a node's history. */
export type OnLeft = (from: Position, to: Position, isQuarantined: boolean) => void;

/** A database on a replica. Every change takes a moment in which its Sluice may be killed; it shows whole or not at all. */
export class SimReplica implements Omit<Replica, "handOver" | "close"> {
  readonly pageSize = PAGE_SIZE;
  readonly descriptors = [];
  readonly machine: Machine;
  readonly books: Books;
  onApplied: (position: Position) => void = () => undefined;
  onPlaced: (record: RecordName) => void = () => undefined;
  readonly #clock: LifeClock;
  readonly #random: Random;
  readonly #onLeft: OnLeft;
  readonly #ending = new AbortController();
  #isChanging = false;

  constructor(machine: Machine, books: Books, clock: LifeClock, random: Random, onLeft: OnLeft) {
    this.machine = machine;
    this.books = books;
    this.#clock = clock;
    this.#random = random;
    this.#onLeft = onLeft;
    machine.disk.following ??= machine.disk.logState?.confirmed;
  }

  get path(): string {
    return this.machine.file;
  }

  get stateDir(): string {
    return this.machine.dir;
  }

  get pageCount(): number {
    return this.machine.disk.pages.size;
  }

  get position(): Position {
    return this.machine.disk.position;
  }

  get checksum(): bigint {
    return checksumOf(this.machine.disk.pages);
  }

  get sums(): Int32Array {
    return sumsOf(this.machine.disk.pages);
  }

  get record(): RecordName | undefined {
    return this.books.record;
  }

  get epoch(): number {
    return this.machine.disk.epoch;
  }

  get walBytes(): number {
    return 0;
  }

  get logState(): LogState | undefined {
    const { logState } = this.machine.disk;
    return logState && { ...logState, confirmed: this.record ?? logState.confirmed };
  }

  wrote(writer: bigint): boolean {
    const { machine } = this;
    return machine.disk.writer?.tag === writer && machine.disk.writer.boot === machine.boot;
  }

  had(position: Position, checksum: bigint): boolean {
    if (position === this.position) return checksum === this.checksum;
    return this.machine.disk.journal.get(position) === checksum;
  }

  async change(head: ChangeHead): Promise<IncomingChange> {
    if (head.before !== this.position) {
      throw new SluiceError(
        "SLU-2000",
        `a change on ${formatPosition(head.before)}, at ${formatPosition(this.position)}`,
      );
    }
    return this.#begin(head, () => {
      const seq = seqOf(head.position);
      return (pages) => pages.forEach((page) => this.books.changed.add(page, seq));
    });
  }

  async resync(
    head: ChangeHead,
    record: RecordName,
    { quarantine }: { readonly quarantine: boolean },
  ): Promise<IncomingChange> {
    const from = this.position;
    return this.#begin(head, () => {
      this.#onLeft(from, head.position, quarantine);
      return () => {
        const { changed } = this.books;
        if (head.position === record.position) changed.clear();
        else changed.everything(seqOf(head.position));
        this.books.record = record;
        this.#save();
      };
    });
  }

  /** Protocol section 7, Placing, rules 1 and 2, as `Followed.place` has them. */
  async sealed(record: RecordName): Promise<void> {
    await this.#moment();
    const { books, position } = this;
    if (record.position >= position) books.changed.clear();
    else if (epochOf(record.position) === epochOf(position)) books.changed.cut(seqOf(record.position));
    books.record = record;
    if (record.epoch > this.epoch) this.#save();
    this.onPlaced(record);
  }

  async resyncSource(): Promise<ResyncSource> {
    const { record, position } = this;
    if (record === undefined) throw new SluiceError("SLU-2012", "no record yet");
    return pictureOf(position, this.machine.disk.pages, record, this.#ending.signal);
  }

  end(): void {
    this.#ending.abort();
  }

  #save(): void {
    const { disk } = this.machine;
    const { record } = this.books;
    if (record === undefined) return;
    const { txid, position, timestampMs } = record;
    disk.following = { txid, position, timestampMs };
    disk.epoch = Math.max(disk.epoch, record.epoch);
  }

  /** `publish` runs when the change is right; what it returns, when it's shown. */
  #begin(head: ChangeHead, publish: () => (pages: readonly number[]) => void): IncomingChange {
    if (this.machine.isOpen) throw new SluiceError("SLU-2000", "a change while the gate is open");
    if (this.#isChanging) throw new SluiceError("SLU-2000", "two changes at once");
    this.#isChanging = true;
    const come: Pages = new Map();
    const abort = (): void => void (this.#isChanging = false);
    return {
      pages: ({ numbers, content }) => {
        numbers.forEach((page, i) => come.set(page, content.slice(i * PAGE_SIZE, (i + 1) * PAGE_SIZE)));
      },
      commit: async () => {
        try {
          await this.#moment();
          const { disk } = this.machine;
          if (disk.isFull) throw new SluiceError("SLU-2008", "no room");
          const pages: Pages = new Map([...disk.pages, ...come]);
          for (const page of pages.keys()) if (page > head.pageCount) pages.delete(page);
          if (come.size !== head.pages || pages.size !== head.pageCount || checksumOf(pages) !== head.checksum) {
            throw new SluiceError("SLU-2019", `the change to ${formatPosition(head.position)} is another`);
          }
          const after = publish();
          disk.journal.set(head.position, head.checksum);
          disk.pages = pages;
          disk.position = head.position;
          after([...come.keys()]);
          await this.#moment();
          this.onApplied(head.position);
        } finally {
          abort();
        }
      },
      abort,
    };
  }

  #moment(): Promise<void> {
    return new Promise((resolve) => void this.#clock.schedule(this.#random.below(5), resolve));
  }
}

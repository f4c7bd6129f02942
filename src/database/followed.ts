import { SluiceError } from "../errors/error.ts";
import { epochOf, NOTHING, type Position, seqOf } from "../ltx/position.ts";
import type { AppliedJournal } from "./applied-journal.ts";
import type { ChangedPages } from "./changed-pages.ts";
import type { FrameList } from "./frame-list.ts";
import type { LiveWal } from "./live-wal.ts";
import type { Books } from "./owner.ts";
import type { PageSums } from "./page-sums.ts";
import type { ChangeHead, RecordName } from "./replication.ts";
import type { StateFile } from "./state.ts";

export interface FollowedParts {
  readonly file: StateFile;
  readonly wal: LiveWal;
  readonly journal: AppliedJournal;
  /** Of the database as it is. */
  readonly sums: PageSums;
  readonly changed: ChangedPages;
  /** Undefined when it isn't known which state this is. */
  readonly position: Position | undefined;
  readonly record: RecordName | undefined;
}

/**
 * What a replica knows of its database: which state it is, which record of the log that contains, and which pages it has
 * on top (protocol sections 5 and 7, Placing). The state on disk says that the database follows, which log it is of,
 * and the highest epoch; everything else is found in the pages and the journal after a crash.
 *
 * - **known**: the position names the content. Each change that is announced by `expect` and then captured moves it.
 * - **unknown**: after a power loss or damage. Only a resync leads on.
 *
 * Everything captured counts as durable: what a power loss takes from a replica comes from the primary again.
 */
export class Followed implements Books {
  readonly file: StateFile;
  readonly journal: AppliedJournal;
  readonly sums: PageSums;
  readonly changed: ChangedPages;
  readonly #wal: LiveWal;
  #position: Position | undefined;
  #record: RecordName | undefined;
  #expected: ChangeHead | undefined;

  constructor(parts: FollowedParts) {
    this.file = parts.file;
    this.#wal = parts.wal;
    this.journal = parts.journal;
    this.sums = parts.sums;
    this.changed = parts.changed;
    this.#position = parts.position;
    this.#record = parts.record;
  }

  /** `NOTHING` while it's unknown. */
  get position(): Position {
    return this.#position ?? NOTHING;
  }

  get isKnown(): boolean {
    return this.#position !== undefined;
  }

  /** No change is just being shown: position and sums are of one state. */
  get isSettled(): boolean {
    return this.#expected === undefined;
  }

  get record(): RecordName | undefined {
    return this.#record;
  }

  get epoch(): number {
    return this.file.state?.epoch ?? 0;
  }

  readonly canSeal = true;
  readonly canSealNow = true;
  readonly unsent = 0;

  async seal(): Promise<void> {
    this.sealNow();
  }

  sealNow(): void {
    this.#wal.sealed(this.#wal.capture.frame);
  }

  restarted(): void {
    if (!this.isKnown) return;
    this.journal.restart({ position: this.position, checksum: this.sums.checksum, pageCount: this.sums.count });
  }

  /** The next commit that is captured is this change. */
  expect(head: ChangeHead): void {
    this.#expected = head;
  }

  commit(frames: FrameList, first: number, last: number): void {
    const head = this.#expected;
    this.#expected = undefined;
    if (head === undefined) {
      this.#wal.capture.stop(
        new SluiceError("SLU-2020", `${this.#wal.files.path}: frame ${last} was not written by Sluice`),
      );
      return;
    }
    const seq = seqOf(head.position);
    for (let frame = first; frame <= last; frame++) this.changed.add(frames.pageOf(frame), seq);
    this.#position = head.position;
  }

  /**
   * A record is in the log (protocol section 7, Placing, rules 1 and 2): what it holds is on top of it no longer. Only a
   * record that holds this state or an earlier one of the same history may be placed; the caller has brought the
   * commits before it. The state on disk is written when the epoch is a new one.
   */
  async place(record: RecordName): Promise<void> {
    const { position } = this;
    if (record.position >= position) this.changed.clear();
    else if (epochOf(record.position) === epochOf(position)) this.changed.cut(seqOf(record.position));
    this.#record = record;
    if (record.epoch > this.epoch) await this.save();
  }

  /** After a resync: exactly the state of `record`, with what came after it. */
  async resynced(record: RecordName, isRecordState: boolean): Promise<void> {
    if (isRecordState) this.changed.clear();
    else this.changed.everything(seqOf(this.position));
    this.#record = record;
    await this.save();
  }

  /** Writes what the next start must know. */
  async save(): Promise<void> {
    const { state } = this.file;
    if (state === undefined) throw new SluiceError("SLU-2000", `${this.#wal.files.path} follows without a state`);
    const record = this.#record;
    await this.file.write({
      ...state,
      following: true,
      pageSize: this.#wal.pageSize,
      epoch: Math.max(state.epoch, record?.epoch ?? 0),
      ...(record && {
        confirmed: { txid: record.txid, position: record.position, timestampMs: record.timestampMs },
      }),
      place: undefined,
      clean: undefined,
      frozen: [],
      takeover: undefined,
    });
  }
}

import { fstatSync } from "node:fs";
import { Backfill, PASS_FRAMES } from "../../src/database/backfill.ts";
import { Capture, type CommitSink } from "../../src/database/capture.ts";
import { FrameList } from "../../src/database/frame-list.ts";
import { repairHeader } from "../../src/database/header-repair.ts";
import { openFiles, type OpenedFiles } from "../../src/database/opening.ts";
import { type RestartOutcome, WalRestart } from "../../src/database/wal-restart.ts";
import { WalWriter } from "../../src/database/wal-writer.ts";
import type { PageSet } from "./page-sets.ts";

/** The replica's side of one database, each step when it is told to: no timers. */
export class LiveReplica implements CommitSink {
  readonly #opened: OpenedFiles;
  readonly capture: Capture;
  readonly backfill: Backfill;
  readonly #restart: WalRestart;
  writer: WalWriter;
  /** Whether the header of a new WAL is written by `prepare`, and not by `begin`. */
  isPreparing = false;
  commits = 0;

  /** Opens with the gate closed, repairs what a kill left, and reads the WAL. */
  static async open(path: string): Promise<LiveReplica> {
    const replica = new LiveReplica(await openFiles(path, 5_000, "closed"));
    const { capture, backfill } = replica;
    while (capture.look() === "torn") repairHeader(replica.files, replica.locks, undefined);
    capture.advance();
    backfill.begin(capture.image.backfill);
    return replica;
  }

  private constructor(opened: OpenedFiles) {
    this.#opened = opened;
    const { files, locks, pageSize } = opened;
    const frames = new FrameList();
    const capture = new Capture(files, pageSize, fstatSync(files.db).size / pageSize, frames, this);
    const backfill = new Backfill(files, pageSize, frames);
    this.capture = capture;
    this.backfill = backfill;
    const sealNow = (): void => undefined;
    const restarted = (): void => undefined;
    const captured = (): void => undefined;
    const canSealNow = (): boolean => true;
    this.#restart = new WalRestart({ files, locks, capture, backfill, captured, sealNow, restarted, canSealNow });
    this.writer = new WalWriter(files, pageSize);
  }

  get files(): OpenedFiles["files"] {
    return this.#opened.files;
  }

  get locks(): OpenedFiles["locks"] {
    return this.#opened.locks;
  }

  get pageSize(): number {
    return this.#opened.pageSize;
  }

  commit(): void {
    this.commits++;
  }

  /** Appends a change in pieces of `chunk` pages, and stops before `stop` of them are written, when given. */
  async append({ numbers, content, pageCount }: PageSet, chunk = 64, stop = Number.POSITIVE_INFINITY): Promise<void> {
    await this.locks.beginChange();
    this.look();
    if (this.isPreparing) await this.writer.prepare(this.capture.header);
    this.writer.begin(this.capture.header, numbers.length, pageCount);
    for (let i = 0; i < Math.min(stop, numbers.length); i += chunk) {
      const end = Math.min(i + chunk, stop, numbers.length);
      this.writer.append(numbers.subarray(i, end), content.subarray(i * this.pageSize, end * this.pageSize));
    }
  }

  async apply(set: PageSet, chunk?: number): Promise<void> {
    await this.append(set, chunk);
    const published = this.writer.publish();
    this.locks.endChange();
    this.look();
    const { frame, sum1, sum2 } = this.capture.place;
    if (frame !== published.frame || sum1 !== published.sum1 || sum2 !== published.sum2) {
      throw new Error(`published ${JSON.stringify(published)}, captured ${JSON.stringify(this.capture.place)}`);
    }
  }

  abort(): void {
    this.writer.abort();
    this.locks.endChange();
  }

  /** A writer that knows nothing yet of the wal-index. */
  renewWriter(): void {
    this.writer = new WalWriter(this.files, this.pageSize);
  }

  /** Captures what is committed. */
  look(): void {
    if (this.capture.look() === "moved") this.capture.advance();
  }

  /** True when every captured frame is in the database file. */
  async merge(limit = this.capture.frame): Promise<boolean> {
    while (this.backfill.backfilled < limit) {
      const { blocked } = await this.backfill.pass(limit, this.capture.place, () => false);
      if (blocked) return false;
    }
    return this.backfill.backfilled === this.capture.frame;
  }

  async restart(): Promise<RestartOutcome> {
    await this.merge();
    await this.#restart.prepare();
    return this.#restart.attempt(1, PASS_FRAMES);
  }

  /**
   * Ends as if killed. The descriptors stay open until `close`: closing them would drop the locks of SQLite connections
   * that this process has (fcntl(2)).
   */
  kill(): void {
    this.locks.release();
  }

  close(): void {
    this.files.close();
  }
}

import { readSync, writeFileSync } from "node:fs";
import type { Repair } from "../../src/database/header-repair.ts";
import type { FrameList } from "../../src/database/frame-list.ts";
import { defaultLimits, type DatabaseLimits } from "../../src/database/limits.ts";
import { LiveWal, type WalOwner } from "../../src/database/live-wal.ts";
import { openFiles } from "../../src/database/opening.ts";
import { frameOffset, FRAME_HEADER_BYTES } from "../../src/sqlite/wal.ts";

/**
 * The strongest check of the capture: every commit's pages are applied to an image as they come, and at the end the
 * image must be the database. Seals nothing, but says so.
 */
export class Replay implements WalOwner {
  readonly pages: Buffer[] = [];
  commits = 0;
  seals = 0;
  heals = 0;
  restarts = 0;
  canSeal = true;
  canSealNow = true;
  unsent = 0;
  readonly repairs: Repair[] = [];
  readonly failures: Error[] = [];
  readonly alarms: boolean[] = [];
  readonly losses: Error[] = [];
  onMoved: () => void = () => {};
  wal!: LiveWal;
  #queue: Promise<unknown> = Promise.resolve();

  /** Opens `path`; the image begins with what the database file and the WAL hold now. */
  static async open(path: string, limits: Partial<DatabaseLimits> = {}, live = true): Promise<Replay> {
    const replay = new Replay();
    const opened = await openFiles(path, limits.openMs ?? 5_000, "open");
    for (let n = 0; ; n++) {
      const page = Buffer.alloc(opened.pageSize);
      if (readSync(opened.files.db, page, 0, page.length, n * page.length) < page.length) break;
      replay.pages[n] = page;
    }
    replay.wal = new LiveWal(opened, replay.pages.length, replay, { ...defaultLimits, ...limits });
    await replay.wal.captureAll();
    if (live) replay.wal.start(replay.wal.capture.frame);
    return replay;
  }

  commit(frames: FrameList, first: number, last: number, _before: number, after: number): void {
    const { pageSize, files } = this.wal;
    for (let frame = first; frame <= last; frame++) {
      const page = Buffer.alloc(pageSize);
      readSync(files.wal, page, 0, pageSize, frameOffset(frame, pageSize) + FRAME_HEADER_BYTES);
      this.pages[frames.pageOf(frame) - 1] = page;
    }
    this.pages.length = after;
    this.commits++;
  }

  get bytes(): Buffer {
    const { pageSize } = this.wal;
    return Buffer.concat(Array.from(this.pages, (page) => page ?? Buffer.alloc(pageSize)));
  }

  write(path: string): void {
    writeFileSync(path, this.bytes);
  }

  async seal(): Promise<void> {
    this.seals++;
    const { frame } = this.wal.capture;
    await new Promise(setImmediate);
    this.wal.sealed(frame);
  }

  sealNow(): void {
    this.seals++;
  }

  restarted(): void {
    this.restarts++;
  }

  queue<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(work);
    this.#queue = done.catch(() => {});
    return done;
  }

  moved(): void {
    this.onMoved();
  }

  alarm(on: boolean): void {
    this.alarms.push(on);
  }

  repaired(how: Repair): void {
    this.repairs.push(how);
  }

  healed(): void {
    this.heals++;
  }

  failed(error: Error): void {
    this.failures.push(error);
  }

  lost(error: Error): void {
    this.losses.push(error);
  }
}

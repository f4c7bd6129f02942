import { SluiceError } from "../errors/error.ts";
import { lockPage } from "../ltx/header.ts";
import { PageSum } from "../ltx/page-sum.ts";
import { formatPosition, type Position } from "../ltx/position.ts";
import { FRAME_HEADER_BYTES, frameOffset } from "../sqlite/wal.ts";
import type { CaptureTap } from "./capture.ts";
import { type DatabaseFiles, fileError } from "./files.ts";
import { FrameList } from "./frame-list.ts";
import { readAt } from "./io.ts";
import type { LiveWal } from "./live-wal.ts";
import type { PageSums } from "./page-sums.ts";
import type { ChangeHead, CommitFeed, OutgoingChange, PageChunk } from "./replication.ts";

/** A state that a subscriber can go on from. */
interface Step {
  readonly position: Position;
  /** The last frame of the commit that made it; 0: what the WAL began with. */
  readonly frame: number;
  readonly size: number;
  readonly checksum: bigint;
}

/** Steps that are kept; of more, the older half goes, and who stands there catches up in another way. */
const STEPS_MAX = 65_536;
const CHUNK_BYTES = 1024 * 1024;

/**
 * The commits of one primary, as they are captured (`CommitFeed`). It knows the sum of every page at the capture frontier,
 * which page each frame of the present WAL generation holds, and where each captured state ends: the pages themselves
 * stay in the WAL until it begins anew. Cost without subscribers: one sum for each captured frame.
 *
 * A page that came with growth and that nobody wrote has no frame. The format allows that, though SQLite writes all of
 * them. Its content may be in the database file, which holds newer states soon, so no step leads
 * over such a commit: who stands before it goes on by records of the log, or compares itself. Otherwise every page above
 * the smallest size of a step was written since, and the newest frames of a step are all of it.
 */
export class Feed implements CommitFeed, CaptureTap {
  readonly #files: DatabaseFiles;
  readonly #pageSize: number;
  readonly #named: () => Position;
  readonly #sums: PageSums;
  readonly #sum: PageSum;
  readonly #lock: number;
  /** All frames since the feed or the WAL began; those in the database file are no longer in the WAL's own list. */
  readonly #frames = new FrameList();
  readonly #walFrames: FrameList;
  readonly #listeners = new Set<() => void>();
  /** Sums of frames whose commit hasn't ended: two words for each. */
  #pending = new Int32Array(128);
  #steps: Step[];
  /** Pages of the newest state that have no frame and no sum yet. */
  readonly #unwritten = new Set<number>();
  /** No step leads to the next state. */
  #isGap = false;
  /** Frames since the last step whose commit has ended. */
  #committed = 0;
  #generation = 0;

  /** `sums`: of the database as it is captured now; owned from now on. `named`: the name of what is captured. */
  constructor(wal: LiveWal, named: () => Position, sums: PageSums) {
    const { files, pageSize, capture, frames } = wal;
    this.#files = files;
    this.#pageSize = pageSize;
    this.#walFrames = frames;
    this.#named = named;
    this.#sums = sums;
    this.#sum = new PageSum(pageSize);
    this.#lock = lockPage(pageSize);
    // What is in the WAL already is part of no step; frames are counted from there.
    for (let frame = 1; frame <= capture.frame; frame++) this.#frames.push(0);
    this.#frames.dropThrough(capture.frame);
    this.#steps = [{ position: named(), frame: capture.frame, size: sums.count, checksum: sums.checksum }];
  }

  get position(): Position {
    return this.#steps.at(-1)!.position;
  }

  /** The database checksum at `position`. */
  get checksum(): bigint {
    return this.#steps.at(-1)!.checksum;
  }

  has(position: Position): boolean {
    return this.#find(position) !== undefined;
  }

  after(position: Position, oneByOne: number): OutgoingChange | undefined {
    const at = this.#find(position);
    if (at === undefined) {
      throw new SluiceError("SLU-2018", `${this.#files.path}: nothing is known after ${formatPosition(position)}`);
    }
    const behind = this.#steps.length - 1 - at;
    if (behind === 0) return undefined;
    return this.#change(at, behind > oneByOne ? this.#steps.length - 1 : at + 1);
  }

  onMoved(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  frame(page: number, bytes: Uint8Array, from: number): void {
    const at = 2 * (this.#frames.last - this.#steps.at(-1)!.frame - this.#committed);
    if (at + 2 > this.#pending.length) {
      const grown = new Int32Array(2 * this.#pending.length);
      grown.set(this.#pending);
      this.#pending = grown;
    }
    this.#sum.of(page, bytes, from, from + this.#pageSize);
    this.#pending[at] = this.#sum.lo;
    this.#pending[at + 1] = this.#sum.hi;
    this.#frames.push(page);
  }

  commit(first: number, last: number, before: number, after: number): void {
    const sums = this.#sums;
    sums.resize(after);
    for (let frame = first; frame <= last; frame++) {
      const page = this.#frames.pageOf(frame);
      const at = 2 * (frame - first);
      if (page <= after) sums.set(page, this.#pending[at]!, this.#pending[at + 1]!);
    }
    this.#committed += last - first + 1;
    for (let page = before + 1; page <= after; page++) {
      if (page !== this.#lock && sums.lo(page) === 0 && sums.hi(page) === 0) this.#unwritten.add(page);
    }
  }

  /** What was captured has its name. */
  moved(): void {
    const last = this.#steps.at(-1)!;
    const position = this.#named();
    if (position === last.position || !this.#sumUnwritten()) return;
    const frame = last.frame + this.#committed;
    this.#committed = 0;
    if (this.#isGap) this.#steps = [];
    this.#isGap = false;
    this.#steps.push({ position, frame, size: this.#sums.count, checksum: this.#sums.checksum });
    if (this.#steps.length > STEPS_MAX) this.#steps.splice(0, STEPS_MAX / 2);
    for (const listener of this.#listeners) listener();
  }

  /** False when they can't be read: with the next capture they are tried again. Nothing may stop the capture. */
  #sumUnwritten(): boolean {
    if (this.#unwritten.size === 0) return true;
    this.#isGap = true;
    const sums = this.#sums;
    const content = Buffer.alloc(this.#pageSize);
    const frames = this.#walFrames;
    const end = this.#steps.at(-1)!.frame + this.#committed;
    const pairs = frames.newest(frames.base + 1, Math.max(frames.base, end), sums.count);
    const frameOf = new Map<number, number>();
    for (let i = 0; i < pairs.length; i += 2) frameOf.set(pairs[i]!, pairs[i + 1]!);
    for (const page of this.#unwritten) {
      // It may have been written since, or be gone.
      if (page > sums.count || sums.lo(page) !== 0 || sums.hi(page) !== 0) continue;
      try {
        this.#read(page, frameOf.get(page) ?? 0, content, 0);
      } catch {
        return false;
      }
      this.#sum.of(page, content, 0, this.#pageSize);
      sums.set(page, this.#sum.lo, this.#sum.hi);
    }
    this.#unwritten.clear();
    return true;
  }

  restarted(): void {
    // Under the WRITE lock a last commit may have been captured, too.
    this.moved();
    const last = this.#steps.at(-1)!;
    this.#generation++;
    this.#frames.clear();
    this.#pending = new Int32Array(128);
    this.#committed = 0;
    this.#steps = [{ ...last, frame: 0 }];
    for (const listener of this.#listeners) listener();
  }

  #find(position: Position): number | undefined {
    let low = 0;
    let high = this.#steps.length - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const found = this.#steps[middle]!.position;
      if (found === position) return middle;
      if (found < position) low = middle + 1;
      else high = middle - 1;
    }
    return undefined;
  }

  #change(from: number, to: number): OutgoingChange {
    const before = this.#steps[from]!;
    const after = this.#steps[to]!;
    const { position, frame, size: pageCount, checksum } = after;
    const pairs = this.#frames.newest(before.frame + 1, frame, pageCount);
    const head: ChangeHead = { before: before.position, position, pageCount, checksum, pages: pairs.length / 2 };
    const generation = this.#generation;
    let done = 0;
    let chunk: PageChunk | undefined;
    return {
      head,
      next: () => {
        if (generation !== this.#generation) {
          throw new SluiceError("SLU-2018", `${this.#files.path}: the WAL has begun anew`);
        }
        const count = Math.min(head.pages - done, Math.max(1, Math.floor(CHUNK_BYTES / this.#pageSize)));
        if (count <= 0) return undefined;
        if (chunk?.numbers.length !== count) {
          chunk = { numbers: new Uint32Array(count), content: Buffer.allocUnsafe(count * this.#pageSize) };
        }
        for (let i = 0; i < count; i++, done++) {
          chunk.numbers[i] = pairs[2 * done]!;
          this.#read(pairs[2 * done]!, pairs[2 * done + 1]!, chunk.content, i * this.#pageSize);
        }
        return chunk;
      },
    };
  }

  /** Reads a page out of a frame, or (`frame` 0) out of the database file, past whose end are zeros. */
  #read(page: number, frame: number, into: Uint8Array, at: number): void {
    const { db, wal, path } = this.#files;
    const target = into.subarray(at, at + this.#pageSize);
    try {
      if (frame === 0) {
        target.fill(0, readAt(db, target, this.#pageSize, (page - 1) * this.#pageSize));
        return;
      }
      const offset = frameOffset(frame, this.#pageSize) + FRAME_HEADER_BYTES;
      if (readAt(wal, target, this.#pageSize, offset) === this.#pageSize) return;
    } catch (error) {
      throw fileError(error, path, "read");
    }
    throw new SluiceError("SLU-2018", `${path}: the WAL ends before frame ${frame}`);
  }
}

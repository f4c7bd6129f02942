import type { CommitSink } from "./capture.ts";
import type { FrameList } from "./frame-list.ts";

/** What a batch holds: every page that a frame of `first` … `last` changed, those above `lowSize`, and `loose` ones. */
export interface BatchCut {
  /** Frames of the present generation; `last` below `first` when there are none. */
  readonly firstFrame: number;
  readonly lastFrame: number;
  readonly commits: number;
  /** Pages in the database after it. */
  readonly size: number;
  /** The smallest size that the database had from the cut before on, in pages. */
  readonly lowSize: number;
  /** Pages that changed without a frame that can still be read. */
  readonly loose: ReadonlySet<number>;
}

/**
 * What was committed since the last seal (the open batch, protocol section 3). The frames say which pages changed, so
 * nothing is kept for a page. What the frames don't say: pages that came with growth need not be in the WAL, and pages
 * that a shrink took away hold other content when the database has grown again. Both are all pages above the smallest
 * size since the last seal, and a merge of batches would bring back stale ones if they were left out.
 *
 *     gathering ─► open        the start-up capture is over; until then pages are kept one by one, because frames may
 *                              be in the database file already and are forgotten then
 *     cut ─► sealed            what came after the cut is the open batch
 *         └► failed            what was cut is in the open batch again
 */
export class OpenBatch implements CommitSink {
  #sealedFrame = 0;
  #frame = 0;
  #commits = 0;
  #size: number;
  #lowSize: number;
  #loose = new Set<number>();
  #cut: BatchCut | undefined;
  #gathering = true;

  /** `size`: pages of the database at the last seal. `frame`: the last one of the WAL that is no part of it. */
  constructor(size: number, frame = 0) {
    this.#frame = frame;
    this.#size = size;
    this.#lowSize = size;
  }

  /** Nothing has changed since the last cut or seal. */
  get isEmpty(): boolean {
    return this.#commits === 0 && this.#loose.size === 0 && this.#lowSize === this.#size;
  }

  /** Commits since the last cut. */
  get commits(): number {
    return this.#commits;
  }

  /** Pages in the database after the last commit. */
  get size(): number {
    return this.#size;
  }

  commit(frames: FrameList, first: number, last: number, _before: number, after: number): void {
    if (this.#gathering) for (let frame = first; frame <= last; frame++) this.#loose.add(frames.pageOf(frame));
    this.#commits += 1;
    this.#frame = last;
    this.#size = after;
    this.#lowSize = Math.min(this.#lowSize, after);
  }

  /** Everything captured so far was sealed by an earlier life, with `size` pages. */
  forget(size: number): void {
    this.#commits = 0;
    this.#size = size;
    this.#lowSize = size;
    this.#loose = new Set();
  }

  /** The start-up capture is over. */
  open(): void {
    this.#gathering = false;
    this.#sealedFrame = this.#frame;
  }

  /** Changes that no frame shows: `pages` differ from the last seal, and the database has `size` pages. */
  differs(pages: Iterable<number>, size: number): void {
    for (const page of pages) this.#loose.add(page);
    this.#lowSize = Math.min(this.#lowSize, size);
    this.#size = size;
  }

  /** All pages are in the batch, whatever was sealed before. */
  everything(): void {
    this.#lowSize = 0;
  }

  /** What is in it now goes into a batch; call `sealed` or `failed` before the next cut. */
  cut(): BatchCut {
    if (this.#cut !== undefined) throw new Error("a batch is being sealed already");
    const cut: BatchCut = {
      firstFrame: this.#sealedFrame + 1,
      lastFrame: this.#frame,
      commits: this.#commits,
      size: this.#size,
      lowSize: this.#lowSize,
      loose: this.#loose,
    };
    this.#cut = cut;
    this.#sealedFrame = this.#frame;
    this.#commits = 0;
    this.#lowSize = this.#size;
    this.#loose = new Set();
    return cut;
  }

  sealed(): void {
    this.#cut = undefined;
  }

  failed(): void {
    const cut = this.#cut;
    if (cut === undefined) return;
    this.#cut = undefined;
    this.#sealedFrame = Math.min(cut.firstFrame - 1, this.#sealedFrame);
    this.#commits += cut.commits;
    this.#lowSize = Math.min(this.#lowSize, cut.lowSize);
    for (const page of cut.loose) this.#loose.add(page);
  }

  /** The WAL has begun anew; everything in it was sealed. */
  restarted(): void {
    this.#sealedFrame = 0;
    this.#frame = 0;
  }
}

/** The pages of a cut, ascending, without the lock page. `view`: the newest frame of each page, as `FrameList.newest`. */
export function pagesOf(cut: BatchCut, view: Uint32Array, lockPage: number): Uint32Array {
  const below = new Set<number>();
  const lowest = Math.min(cut.lowSize, cut.size);
  for (const page of cut.loose) if (page <= lowest) below.add(page);
  for (let i = 0; i < view.length && view[i]! <= lowest; i += 2)
    if (view[i + 1]! >= cut.firstFrame) below.add(view[i]!);
  below.delete(lockPage);
  const first = lowest + 1;
  const above = cut.size - lowest - (lockPage >= first && lockPage <= cut.size ? 1 : 0);
  const pages = new Uint32Array(below.size + above);
  let n = 0;
  for (const page of below) pages[n++] = page;
  pages.subarray(0, n).sort();
  for (let page = first; page <= cut.size; page++) if (page !== lockPage) pages[n++] = page;
  return pages;
}

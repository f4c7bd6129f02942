/** Frames that are sorted at once: page · SPAN + place must be an exact number. */
const SPAN = 2 ** 20;

/**
 * Which page each frame of the present WAL generation holds: Sluice's own bookkeeping for backfills and snapshots
 * (protocol section 4). Only frames after `base` are kept, 4 bytes each; an idle database keeps none.
 */
export class FrameList {
  #base = 0;
  #count = 0;
  #pages = new Uint32Array(0);

  /** Frames up to this one are forgotten. */
  get base(): number {
    return this.#base;
  }

  /** The last frame in the list, or `base` when it's empty. */
  get last(): number {
    return this.#base + this.#count;
  }

  /** The page in `frame`, which must be above `base` and not above `last`. */
  pageOf(frame: number): number {
    const page = this.#pages[frame - this.#base - 1];
    if (page === undefined || frame > this.last) throw new RangeError(`frame ${frame} is not in the list`);
    return page;
  }

  push(page: number): void {
    if (this.#count === this.#pages.length) {
      const grown = new Uint32Array(Math.max(64, this.#pages.length * 2));
      grown.set(this.#pages);
      this.#pages = grown;
    }
    this.#pages[this.#count++] = page;
  }

  /** Forgets the frames up to `frame`: they are in the database file. */
  dropThrough(frame: number): void {
    if (frame <= this.#base) return;
    if (frame > this.last) throw new RangeError(`cannot drop frames up to ${frame}`);
    const kept = this.last - frame;
    if (kept * 4 < this.#pages.length) this.#pages = this.#pages.slice(frame - this.#base, this.#count);
    else this.#pages.copyWithin(0, frame - this.#base, this.#count);
    this.#base = frame;
    this.#count = kept;
  }

  /** A new generation: nothing is in the WAL. */
  clear(): void {
    this.#base = 0;
    this.#count = 0;
    this.#pages = new Uint32Array(0);
  }

  /**
   * The newest frame of each page among the frames `from` … `to`, as pairs page, frame in the order of pages, without
   * pages above `pageLimit`.
   */
  newest(from: number, to: number, pageLimit: number): Uint32Array {
    let pairs = new Uint32Array(0);
    for (let start = from; start <= to; start += SPAN) {
      const newer = this.#newestOfSpan(start, Math.min(to, start + SPAN - 1), pageLimit);
      pairs = pairs.length === 0 ? newer : merge(pairs, newer);
    }
    return pairs;
  }

  #newestOfSpan(from: number, to: number, pageLimit: number): Uint32Array<ArrayBuffer> {
    const span = to - from + 1;
    // A page number and the frame's place in the span in one exact number: sorts by page, then by frame.
    const keys = new Float64Array(span);
    for (let i = 0; i < span; i++) keys[i] = this.pageOf(from + i) * SPAN + i;
    keys.sort();
    const pairs = new Uint32Array(2 * span);
    let n = 0;
    for (let i = 0; i < span; i++) {
      const page = Math.floor(keys[i]! / SPAN);
      if (page > pageLimit) break;
      if (i + 1 < span && Math.floor(keys[i + 1]! / SPAN) === page) continue;
      pairs[n++] = page;
      pairs[n++] = from + (keys[i]! % SPAN);
    }
    return pairs.slice(0, n);
  }
}

/** Both sorted by page; where both have a page, the one of `newer` counts. */
function merge(older: Uint32Array, newer: Uint32Array): Uint32Array<ArrayBuffer> {
  const merged = new Uint32Array(older.length + newer.length);
  let n = 0;
  let o = 0;
  for (let i = 0; i < newer.length; i += 2) {
    const page = newer[i]!;
    while (o < older.length && older[o]! < page) {
      merged[n++] = older[o++]!;
      merged[n++] = older[o++]!;
    }
    if (older[o] === page) o += 2;
    merged[n++] = page;
    merged[n++] = newer[i + 1]!;
  }
  while (o < older.length) merged[n++] = older[o++]!;
  return merged.slice(0, n);
}

import assert from "node:assert/strict";
import fc from "fast-check";
import { expect, test } from "vitest";
import { FrameList } from "../../src/database/frame-list.ts";
import { type BatchCut, OpenBatch, pagesOf } from "../../src/database/open-batch.ts";

const LOCK_PAGE = 9;

/** A database whose pages are numbers: the time of their last change. Page n stands at place n. */
type Image = number[];

type Step =
  | { readonly kind: "commit"; readonly pages: readonly number[]; readonly size: number; readonly inWal: boolean }
  | { readonly kind: "seal"; readonly fails: boolean; readonly meanwhile: boolean }
  | { readonly kind: "restart" };

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant("commit" as const),
        pages: fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 6 }),
        size: fc.integer({ min: 1, max: 20 }),
        inWal: fc.boolean(),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant("seal" as const), fails: fc.boolean(), meanwhile: fc.boolean() }),
    },
    { weight: 1, arbitrary: fc.constant({ kind: "restart" as const }) },
  ),
  { maxLength: 40 },
);

/** The open batch beside a naive database, and beside what a reader of the sealed batches has. */
class World {
  readonly open: OpenBatch;
  readonly frames = new FrameList();
  readonly image: Image;
  readonly replica: Image;
  #time = 0;

  constructor(size: number) {
    this.image = Array.from({ length: size + 1 }, () => 0);
    this.replica = [...this.image];
    this.open = new OpenBatch(size);
    this.open.open();
  }

  get size(): number {
    return this.image.length - 1;
  }

  /** `inWal`: whether pages that come with growth have frames. SQLite leaves out those that nobody wrote. */
  commit(pages: readonly number[], size: number, inWal: boolean): void {
    const before = this.size;
    const time = ++this.#time;
    // Page 1 changes whenever the size does.
    const changed = new Set([...pages, 1].filter((page) => page <= size && page !== LOCK_PAGE));
    const grown = inWal ? size : before;
    for (let page = before + 1; page <= grown; page++) if (page !== LOCK_PAGE) changed.add(page);
    this.image.length = Math.min(this.image.length, size + 1);
    while (this.size < size) this.image.push(-time);
    for (const page of changed) this.image[page] = time;
    const first = this.frames.last + 1;
    for (const page of changed) this.frames.push(page);
    this.open.commit(this.frames, first, this.frames.last, before, size);
  }

  pages(cut: BatchCut): Uint32Array {
    const view = this.frames.newest(this.frames.base + 1, Math.max(this.frames.base, cut.lastFrame), cut.size);
    return pagesOf(cut, view, LOCK_PAGE);
  }

  seal(fails: boolean, meanwhile: boolean): void {
    if (this.open.isEmpty) return;
    const then = [...this.image];
    const cut = this.open.cut();
    if (meanwhile) this.commit([2, 5], this.size, true);
    if (fails) {
      this.open.failed();
      return;
    }
    const pages = this.pages(cut);
    assert.deepEqual(
      [...pages],
      [...new Set(pages)].toSorted((a, b) => a - b),
    );
    assert(!pages.includes(LOCK_PAGE));
    assert.equal(cut.size, then.length - 1);
    this.replica.length = Math.min(this.replica.length, cut.size + 1);
    while (this.replica.length <= cut.size) this.replica.push(Number.NaN);
    for (const page of pages) {
      assert(page <= cut.size);
      this.replica[page] = then[page]!;
    }
    if (cut.size >= LOCK_PAGE) this.replica[LOCK_PAGE] = then[LOCK_PAGE]!;
    assert.deepEqual(this.replica, then);
    this.open.sealed();
  }

  restart(): void {
    this.seal(false, false);
    this.frames.clear();
    this.open.restarted();
  }
}

test("sealed batches, one after the other, are the database: growth, shrink, failures, restarts of the WAL", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 20 }), steps, (size, list) => {
      const world = new World(size);
      for (const step of list) {
        if (step.kind === "commit") world.commit(step.pages, step.size, step.inWal);
        else if (step.kind === "seal") world.seal(step.fails, step.meanwhile);
        else world.restart();
      }
      world.seal(false, false);
      expect(world.open.isEmpty).toBe(true);
      expect(world.open.commits).toBe(0);
      world.seal(false, false);
      expect(world.replica).toEqual(world.image);
    }),
    { numRuns: 500 },
  );
});

test("holds no page that didn't change", () => {
  const world = new World(20);
  world.open.cut();
  world.open.sealed();
  world.commit([3, 4], 20, true);
  const cut = world.open.cut();
  expect([...world.pages(cut)]).toEqual([1, 3, 4]);
  expect(cut).toMatchObject({ commits: 1, size: 20, lowSize: 20 });
});

test("pages that differ without a frame are members, from the smallest size on all pages are", () => {
  const open = new OpenBatch(20);
  open.open();
  open.differs([3, LOCK_PAGE, 15], 18);
  expect([...pagesOf(open.cut(), new Uint32Array(), LOCK_PAGE)]).toEqual([3, 15]);
  open.sealed();
  open.everything();
  expect(open.isEmpty).toBe(false);
  expect(pagesOf(open.cut(), new Uint32Array(), LOCK_PAGE)).toEqual(
    Uint32Array.from([1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18]),
  );
});

test("what is captured at the start counts from the sealed commit on, also when its frames are forgotten", () => {
  const frames = new FrameList();
  const open = new OpenBatch(5);
  const commit = (...pages: number[]): void => {
    const first = frames.last + 1;
    for (const page of pages) frames.push(page);
    open.commit(frames, first, frames.last, 5, 5);
  };
  commit(1, 2);
  open.forget(5);
  commit(3);
  commit(4, 1);
  frames.dropThrough(frames.last);
  open.open();
  commit(5);
  const cut = open.cut();
  expect(cut.commits).toBe(3);
  const view = frames.newest(frames.base + 1, cut.lastFrame, cut.size);
  expect([...pagesOf(cut, view, LOCK_PAGE)]).toEqual([1, 3, 4, 5]);
});

test("one cut at a time", () => {
  const open = new OpenBatch(1);
  open.cut();
  expect(() => open.cut()).toThrow(/sealed already/);
});

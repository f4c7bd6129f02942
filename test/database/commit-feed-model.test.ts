import assert from "node:assert/strict";
import { randomFillSync } from "node:crypto";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Feed } from "../../src/database/commit-feed.ts";
import { readAt } from "../../src/database/io.ts";
import { PageSums } from "../../src/database/page-sums.ts";
import { WalWriter } from "../../src/database/wal-writer.ts";
import { PageSum } from "../../src/ltx/page-sum.ts";
import { position, type Position } from "../../src/ltx/position.ts";
import { WAL_INDEX_HEADER_BYTES, WalIndexHeader, WalIndexImage } from "../../src/sqlite/wal-index.ts";
import { scratch } from "./apps.ts";
import { random, testSeed } from "./random.ts";
import { Replay } from "./replay.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
const replays: Replay[] = [];
beforeEach(() => {
  dir = scratch("feed-model");
  path = dir.path("app.db");
});
afterEach(() => {
  for (const replay of replays.splice(0)) replay.wal.release();
  dir.remove();
});

/** Sums of these pages, from their content alone. */
function sumsOf(pages: readonly Buffer[], pageSize: number): PageSums {
  const sums = new PageSums();
  const sum = new PageSum(pageSize);
  sums.resize(pages.length);
  for (const [i, page] of pages.entries()) {
    sum.of(i + 1, page, 0, pageSize);
    sums.set(i + 1, sum.lo, sum.hi);
  }
  return sums;
}

/** A WAL that is captured when the test says so, its feed, and a writer that commits whatever pages it is told. */
class Primary {
  readonly replay: Replay;
  readonly feed: Feed;
  readonly pageSize: number;
  /** What a reader sees: pages without a frame are zeros, or what they were before a shrink. */
  readonly #content: Buffer[];
  #size: number;
  readonly #writer: WalWriter;
  readonly #image = new WalIndexImage();
  readonly #header = new WalIndexHeader();

  private constructor(replay: Replay) {
    const { wal } = replay;
    this.replay = replay;
    this.pageSize = wal.pageSize;
    this.#content = [...replay.pages];
    this.#size = replay.pages.length;
    this.#writer = new WalWriter(wal.files, wal.pageSize);
    this.feed = new Feed(wal, () => position(1, replay.commits + 1), sumsOf(replay.pages, wal.pageSize));
    wal.capture.tap = this.feed;
    replay.onMoved = () => this.feed.moved();
  }

  static async open(pageSize: number): Promise<Primary> {
    const db = new Sqlite(path);
    db.pragma(`page_size = ${pageSize}`);
    db.pragma("journal_mode = wal");
    db.exec("create table t(a)");
    db.close();
    const replay = await Replay.open(path, {}, false);
    replays.push(replay);
    return new Primary(replay);
  }

  get size(): number {
    return this.#size;
  }

  get pages(): Buffer[] {
    return Array.from({ length: this.#size }, (_, i) => this.#content[i] ?? Buffer.alloc(this.pageSize));
  }

  /** One commit of these pages with random content. */
  commit(numbers: readonly number[], size: number): void {
    const { files } = this.replay.wal;
    readAt(files.shm, this.#image.bytes, WAL_INDEX_HEADER_BYTES, 0);
    this.#image.parse(0, this.#header);
    const content = randomFillSync(Buffer.alloc(numbers.length * this.pageSize));
    this.#writer.begin(this.#header, numbers.length, size);
    this.#writer.append(Uint32Array.from(numbers), content);
    this.#writer.publish();
    for (const [i, page] of numbers.entries()) {
      this.#content[page - 1] = content.subarray(i * this.pageSize, (i + 1) * this.pageSize);
    }
    this.#size = size;
  }

  capture(): void {
    this.replay.wal.captureNow();
  }

  async restart(): Promise<void> {
    this.replay.wal.stop();
    assert.ok(await this.replay.wal.finish(5_000));
  }
}

/** A database that is what changes made of it: it has a position of its own. */
class Follower {
  readonly #primary: Primary;
  #pages: Buffer[];
  position: Position;
  resyncs = 0;
  largest = 0;

  constructor(primary: Primary) {
    this.#primary = primary;
    this.#pages = primary.pages;
    this.position = primary.feed.position;
  }

  /** One change, or a resync where the feed can't go on from here. */
  step(oneByOne: number): void {
    const { feed, pageSize } = this.#primary;
    if (!feed.has(this.position)) {
      assert.throws(() => feed.after(this.position, 1), { code: "SLU-2018" });
      this.resyncs++;
      this.#pages = this.#primary.pages;
      this.position = feed.position;
      return;
    }
    const change = feed.after(this.position, oneByOne);
    if (change === undefined) return;
    assert.equal(change.head.before, this.position);
    const seen = new Set<number>();
    for (let chunk = change.next(); chunk !== undefined; chunk = change.next()) {
      this.largest = Math.max(this.largest, chunk.content.length);
      for (const [i, page] of chunk.numbers.entries()) {
        seen.add(page);
        this.#pages[page - 1] = Buffer.from(chunk.content.subarray(i * pageSize, (i + 1) * pageSize));
      }
    }
    assert.equal(seen.size, change.head.pages);
    this.#pages.length = change.head.pageCount;
    assert.equal(sumsOf(Array.from(this.#pages), pageSize).checksum, change.head.checksum);
    this.position = change.head.position;
  }

  /** Whether it is the primary, page for page. */
  get isSame(): boolean {
    const { feed, pages } = this.#primary;
    return this.position === feed.position && Buffer.concat(this.#pages).equals(Buffer.concat(pages));
  }
}

/** Random commits: growth, shrinking, both within one step; `holes`: growth that leaves out pages. */
function commitSome(primary: Primary, draw: () => number, holes: boolean): boolean {
  let hasHole = false;
  for (let n = Math.ceil(draw() * 4); n > 0; n--) {
    const before = primary.size;
    const size = draw() < 0.5 ? before : 1 + Math.floor(draw() * 40);
    const pages = new Set([1]);
    for (let i = 0; i < 6; i++) pages.add(1 + Math.floor(draw() * size));
    const leavesOut = holes && draw() < 0.1;
    for (let page = before + 1; page <= size; page++) {
      if (!leavesOut || draw() < 0.5) pages.add(page);
      else hasHole ||= !pages.has(page);
    }
    // A transaction that spilled out of the cache may have frames of pages that it then took away.
    if (draw() < 0.3) pages.add(size + 1 + Math.floor(draw() * 5));
    primary.commit([...pages], size);
  }
  primary.capture();
  return hasHole;
}

describe.each([512, 4096, 65536])("pages of %i bytes", (pageSize) => {
  test.each([false, true])(
    `followers of different speed are the primary after every step; growth without frames: %s (seed ${testSeed})`,
    async (holes) => {
      const draw = random(testSeed + pageSize);
      const primary = await Primary.open(pageSize);
      const followers = [new Follower(primary), new Follower(primary), new Follower(primary)];
      let gaps = 0;
      for (let round = 0; round < (pageSize > 4096 ? 15 : 60); round++) {
        if (commitSome(primary, draw, holes)) gaps++;
        for (const [i, follower] of followers.entries()) {
          if (draw() < 1 / (1 + 3 * i)) follower.step(Math.floor(draw() * 4));
        }
      }
      for (const follower of followers) {
        while (follower.position !== primary.feed.position) follower.step(2);
        expect(follower.isSame).toBe(true);
        // Only growth without frames makes a step that can't be followed.
        if (gaps === 0) expect(follower.resyncs).toBe(0);
      }
      if (gaps > 0) expect(followers[0]!.resyncs).toBeGreaterThan(0);
    },
  );
});

test("pages that grew without a frame and can't be read are tried again; what is captured is not touched", async () => {
  const primary = await Primary.open(4096);
  const { feed, replay, size } = primary;
  const before = feed.position;
  const real = fs.readSync;
  const { db } = replay.wal.files;
  let failures = 0;
  Object.assign(fs, {
    readSync: (fd: number, ...rest: [Uint8Array]) => {
      if (fd !== db) return real(fd, ...rest);
      failures++;
      throw Object.assign(new Error("EIO"), { code: "EIO" });
    },
  });
  syncBuiltinESMExports();
  try {
    primary.commit([1], size + 3);
    primary.capture();
  } finally {
    Object.assign(fs, { readSync: real });
    syncBuiltinESMExports();
  }
  expect(failures).toBe(1);
  expect(replay.commits).toBe(1);
  expect(feed.position).toBe(before);
  primary.commit([1, size + 1], size + 3);
  primary.capture();
  expect(feed.position).toBe(position(1, 3));
  expect(feed.has(before)).toBe(false);
  expect(feed.checksum).toBe(sumsOf(primary.pages, 4096).checksum);
});

test("a restart of the WAL ends what is being read, and only the state at the restart can be followed", async () => {
  const primary = await Primary.open(4096);
  const { feed } = primary;
  const start = feed.position;
  const large = Array.from({ length: 700 }, (_, i) => i + 1);
  primary.commit(large, 700);
  primary.capture();
  const change = feed.after(start, 1)!;
  expect(change.next()!.content.length).toBe(1024 * 1024);
  const moves: Position[] = [];
  const stop = feed.onMoved(() => moves.push(feed.position));
  const stopped = feed.onMoved(() => moves.push(0n));
  stopped();
  await primary.restart();
  expect(moves).toEqual([feed.position]);
  expect(feed.has(start)).toBe(false);
  expect(feed.has(feed.position)).toBe(true);
  const follower = new Follower(primary);
  primary.commit([...large, 701], 701);
  primary.capture();
  // Its frames are there again, and hold other pages.
  expect(() => change.next()).toThrow(expect.objectContaining({ code: "SLU-2018" }));
  follower.step(1);
  expect(follower.isSame).toBe(true);
  expect(follower.resyncs).toBe(0);
  stop();
  primary.commit([1], 5);
  primary.capture();
  expect(moves.length).toBe(2);
  follower.step(1);
  expect(follower.isSame).toBe(true);
});

test("who is behind by more than it asked for gets the newest version of each page as one step", async () => {
  const primary = await Primary.open(4096);
  const { feed } = primary;
  const follower = new Follower(primary);
  const start = feed.position;
  for (const size of [10, 3, 12, 12, 11]) {
    primary.commit(
      Array.from({ length: size }, (_, i) => i + 1),
      size,
    );
    primary.capture();
  }
  expect(feed.after(start, 5)!.head).toMatchObject({ position: position(1, 2), pageCount: 10, pages: 10 });
  expect(feed.after(position(1, 3), 3)!.head).toMatchObject({ before: position(1, 3), position: position(1, 4) });
  expect(feed.after(start, 4)!.head).toMatchObject({ before: start, position: position(1, 6), pages: 11 });
  follower.step(4);
  expect(follower.isSame).toBe(true);
  expect(feed.after(follower.position, 1)).toBeUndefined();
});

test("a huge transaction is read in chunks of one buffer", async () => {
  const primary = await Primary.open(4096);
  const follower = new Follower(primary);
  const start = primary.feed.position;
  primary.commit(
    Array.from({ length: 3000 }, (_, i) => i + 1),
    3000,
  );
  primary.capture();
  const change = primary.feed.after(start, 8)!;
  const first = change.next()!.content.buffer;
  expect(change.next()!.content.buffer).toBe(first);
  follower.step(8);
  expect(follower.largest).toBe(1024 * 1024);
  expect(follower.isSame).toBe(true);
});

test("of more than 65,536 steps the older half goes, and the newer ones can still be followed", async () => {
  const primary = await Primary.open(512);
  let commits = 1;
  const feed = new Feed(primary.replay.wal, () => position(1, commits), sumsOf(primary.pages, 512));
  const page = randomFillSync(Buffer.alloc(512));
  for (; commits < 65_537; feed.moved()) {
    feed.frame(1, page, 0);
    feed.commit(commits, commits, primary.size, primary.size);
    commits++;
    if (commits === 65_536) feed.moved();
    if (commits === 65_536) expect(feed.has(position(1, 1))).toBe(true);
  }
  expect(feed.has(position(1, 1))).toBe(false);
  expect(feed.has(position(1, 32_768))).toBe(false);
  expect(feed.has(position(1, 32_769))).toBe(true);
  expect(feed.position).toBe(position(1, 65_537));
});

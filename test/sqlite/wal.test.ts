import { readFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isPageSize, lockPageOf, parseDatabaseHeader } from "../../src/sqlite/database-header.ts";
import { FRAME_HEADER_BYTES, FrameScanner, parseWalHeader, WAL_HEADER_BYTES } from "../../src/sqlite/wal.ts";
import { WAL_INDEX_HEADER_BYTES, WalIndexHeader, WalIndexImage, nextSalt1 } from "../../src/sqlite/wal-index.ts";
import { runPython, scratch } from "../database/apps.ts";
import { toBigEndian } from "./big-endian.ts";

let dir: ReturnType<typeof scratch>;
beforeEach(() => {
  dir = scratch("wal");
});
afterEach(() => dir.remove());

/** Database, WAL and wal-index of a database with a few commits, copied while it was open. */
function sample(pageSize: number): { db: Buffer; wal: Buffer; shm: Buffer } {
  runPython(
    dir.path("a.db"),
    `db.execute("pragma page_size=${pageSize}"); db.execute("pragma journal_mode=wal")
db.execute("create table t(a, b)"); db.execute("create index i on t(b)")
for i in range(20): db.execute("insert into t values(?, randomblob(2000))", (i,))
import shutil
for end in ("", "-wal", "-shm"): shutil.copy(${JSON.stringify(dir.path("a.db"))} + end, ${JSON.stringify(dir.path("copy"))} + end)`,
  );
  const [db, wal, shm] = ["", "-wal", "-shm"].map((end) => readFileSync(dir.path(`copy${end}`)));
  return { db: db!, wal: wal!, shm: shm! };
}

function wordsOf(bytes: Uint8Array): Int32Array {
  const copy = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  copy.set(bytes);
  return new Int32Array(copy.buffer);
}

/** Pages and commit sizes of all frames up to the first that is wrong. */
function scan(wal: Buffer): { frames: [number, number][]; s1: number; s2: number } {
  const words = wordsOf(wal);
  const header = parseWalHeader(words)!;
  const scanner = new FrameScanner(header.pageSize);
  scanner.begin(header.salt1, header.salt2, header.bigEndian, header.sum1, header.sum2);
  const frames: [number, number][] = [];
  const size = FRAME_HEADER_BYTES + header.pageSize;
  for (let at = WAL_HEADER_BYTES; at + size <= wal.length && scanner.next(words, at / 4); at += size) {
    frames.push([scanner.page, scanner.commitSize]);
  }
  return { frames, s1: scanner.sum.s1, s2: scanner.sum.s2 };
}

function indexOf(shm: Buffer): { image: WalIndexImage; header: WalIndexHeader } {
  const image = new WalIndexImage();
  image.bytes.set(shm.subarray(0, WAL_INDEX_HEADER_BYTES));
  const header = new WalIndexHeader();
  image.parse(0, header);
  return { image, header };
}

test.each([512, 1024, 4096, 32768, 65536])("reads what SQLite writes with pages of %i bytes", (pageSize) => {
  const { db, wal, shm } = sample(pageSize);
  expect(parseDatabaseHeader(db)?.pageSize).toBe(pageSize);
  const { image, header } = indexOf(shm);
  expect(image.isWhole).toBe(true);
  expect(header.pageSize).toBe(pageSize);
  const { frames, s1, s2 } = scan(wal);
  expect(frames.length).toBe(header.mxFrame);
  expect(frames.at(-1)![1]).toBe(header.pageCount);
  expect([s1, s2]).toEqual([header.frameSum1, header.frameSum2]);
  expect(header.sameGeneration(parseWalHeader(wordsOf(wal))!)).toBe(true);
  expect(image.backfill).toBeLessThanOrEqual(header.mxFrame);
});

test("reads a WAL whose checksums are big-endian", () => {
  const { wal } = sample(1024);
  const before = scan(wal);
  const other = toBigEndian(wal, 1024);
  expect(parseWalHeader(wordsOf(other))?.bigEndian).toBe(true);
  expect(scan(other).frames).toEqual(before.frames);
  expect(scan(other).s1).not.toBe(before.s1);
});

test("every flipped bit of a frame is found, and what follows it is not believed", () => {
  const { wal } = sample(512);
  const all = scan(wal).frames.length;
  const size = FRAME_HEADER_BYTES + 512;
  for (let byte = 0; byte < size; byte++) {
    const damaged = Buffer.from(wal);
    damaged[WAL_HEADER_BYTES + 3 * size + byte]! ^= 1 << (byte % 8);
    expect(scan(damaged).frames.length).toBe(3);
  }
  expect(all).toBeGreaterThan(10);
});

test("a damaged WAL header is none", () => {
  const { wal } = sample(512);
  for (let byte = 0; byte < WAL_HEADER_BYTES; byte++) {
    const damaged = Buffer.from(wal);
    damaged[byte]! ^= 0x10;
    expect(parseWalHeader(wordsOf(damaged))).toBeUndefined();
  }
});

test.each([512, 65536])("writes the header of the wal-index as SQLite does, pages of %i bytes", (pageSize) => {
  const { image, header } = indexOf(sample(pageSize).shm);
  const mine = new WalIndexImage();
  mine.put(header);
  expect(Buffer.from(mine.bytes.subarray(0, 96)).equals(Buffer.from(image.bytes.subarray(0, 96)))).toBe(true);
});

test("damage in either copy of the wal-index header is seen", () => {
  const { shm } = sample(512);
  for (let byte = 0; byte < 96; byte++) {
    const damaged = Buffer.from(shm);
    damaged[byte]! ^= 4;
    const { image } = indexOf(damaged);
    expect(image.isWhole).toBe(false);
    expect([image.isValid(0), image.isValid(1)]).toEqual(byte < 48 ? [false, true] : [true, false]);
  }
});

test("the salt counts as a big-endian number", () => {
  const word = (bytes: number[]): number => new Int32Array(new Uint8Array(bytes).buffer)[0]!;
  expect(nextSalt1(word([0, 0, 0, 255]))).toBe(word([0, 0, 1, 0]));
  expect(nextSalt1(word([255, 255, 255, 255]))).toBe(0);
});

test("the lock page is the one that has byte 2^30", () => {
  expect(lockPageOf(4096)).toBe(262_145);
  expect(lockPageOf(65536)).toBe(16_385);
  expect(lockPageOf(512)).toBe(2_097_153);
  expect([256, 512, 3000, 65536, 131072].map(isPageSize)).toEqual([false, true, false, true, false]);
});

test("what is no database header is none", () => {
  const { db } = sample(512);
  expect(parseDatabaseHeader(db.subarray(0, 99))).toBeUndefined();
  const damaged = Buffer.from(db);
  damaged[3] = 0;
  expect(parseDatabaseHeader(damaged)).toBeUndefined();
  expect(parseDatabaseHeader(db)).toMatchObject({ writeVersion: 2, readVersion: 2 });
});

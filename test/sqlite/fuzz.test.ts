import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import Sqlite from "better-sqlite3";
import fc from "fast-check";
import { afterAll, beforeAll, expect } from "vitest";
import { parseDatabaseHeader, isPageSize } from "../../src/sqlite/database-header.ts";
import { FRAME_HEADER_BYTES, FrameScanner, parseWalHeader, WAL_HEADER_BYTES } from "../../src/sqlite/wal.ts";
import { WAL_INDEX_HEADER_BYTES, WalIndexHeader, WalIndexImage } from "../../src/sqlite/wal-index.ts";
import { fuzz, mutated } from "../fuzz/fuzz.ts";

let dir: string;
let database: string;
let wal: Uint8Array;
let index: Uint8Array;

beforeAll(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-fuzz-"));
  const file = path.join(dir, "made.db");
  const app = new Sqlite(file);
  app.exec("pragma page_size = 512; pragma journal_mode = wal; create table t (x)");
  app.pragma("wal_checkpoint(truncate)");
  const insert = app.prepare("insert into t values (randomblob(300))");
  for (let i = 0; i < 12; i++) insert.run();
  database = path.join(dir, "base.db");
  copyFileSync(file, database);
  wal = new Uint8Array(readFileSync(`${file}-wal`));
  index = new Uint8Array(readFileSync(`${file}-shm`)).slice(0, WAL_INDEX_HEADER_BYTES);
  app.close();
});
afterAll(() => rmSync(dir, { recursive: true }));

/** The last committed frame that Sluice's reader finds; undefined where it met what only a wal-index can vouch for. */
function lastCommit(bytes: Uint8Array): number | undefined {
  const words = new Int32Array(Math.ceil(bytes.length / 4) + 1);
  new Uint8Array(words.buffer).set(bytes);
  const head = bytes.length < WAL_HEADER_BYTES ? undefined : parseWalHeader(words);
  if (head === undefined) return 0;
  const scanner = new FrameScanner(head.pageSize);
  scanner.begin(head.salt1, head.salt2, head.bigEndian, head.sum1, head.sum2);
  const frameBytes = FRAME_HEADER_BYTES + head.pageSize;
  let last = 0;
  for (let frame = 1; WAL_HEADER_BYTES + frame * frameBytes <= bytes.length; frame++) {
    if (!scanner.next(words, (WAL_HEADER_BYTES + (frame - 1) * frameBytes) / 4)) break;
    if (scanner.isUnsummed) return undefined;
    if (scanner.commitSize > 0) last = frame;
  }
  return last;
}

/** The same of SQLite itself, by the wal-index that its recovery makes. */
function recovered(bytes: Uint8Array): number {
  const file = path.join(dir, "app.db");
  for (const suffix of ["-wal", "-shm"]) rmSync(file + suffix, { force: true });
  copyFileSync(database, file);
  writeFileSync(`${file}-wal`, bytes);
  const app = new Sqlite(file);
  try {
    app.pragma("schema_version");
  } catch {
    // A page that is none: the frames count all the same.
  }
  const image = new WalIndexImage();
  image.bytes.set(readFileSync(`${file}-shm`).subarray(0, WAL_INDEX_HEADER_BYTES));
  const head = new WalIndexHeader();
  image.parse(0, head);
  expect(image.isWhole).toBe(true);
  const { mxFrame } = head;
  app.close();
  return mxFrame;
}

fuzz("of a changed WAL as many frames are believed as SQLite believes", 120, () =>
  fc.asyncProperty(mutated(wal), async (bytes) => {
    const own = lastCommit(bytes);
    if (own !== undefined) expect(own).toBe(recovered(bytes));
  }),
);

fuzz("a changed wal-index header is none, or both its copies say one thing", 2_000, () =>
  fc.asyncProperty(mutated(index), async (bytes) => {
    const image = new WalIndexImage();
    image.bytes.set(bytes.subarray(0, WAL_INDEX_HEADER_BYTES));
    const [one, two] = [new WalIndexHeader(), new WalIndexHeader()];
    image.parse(0, one);
    image.parse(1, two);
    if (!image.isWhole) return;
    expect(one).toEqual(two);
    const valid = new WalIndexImage();
    valid.bytes.set(index);
    const original = new WalIndexHeader();
    valid.parse(0, original);
    // Its checksum is one of 64 bits over 40 bytes: what passes is what was there.
    expect(one).toEqual(original);
  }),
);

fuzz("a changed database header is none, or says a page size that there is", 1_000, () => {
  const head = Uint8Array.from(readFileSync(database).subarray(0, 100));
  return fc.asyncProperty(mutated(head), async (bytes) => {
    const found = parseDatabaseHeader(bytes);
    if (found !== undefined) expect(isPageSize(found.pageSize)).toBe(true);
  });
});

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import Database from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { describeLog, type DescribedFile } from "../../src/log/describe.ts";
import { formatTxid, LogLayout } from "../../src/log/layout.ts";
import { listLog } from "../../src/log/listing.ts";
import { Reachable } from "../../src/log/plan.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { sluiceCommand } from "../e2e/site.ts";
import { Place } from "../cli/sluice.ts";
import { busySettings, churn, Litestream, litestreamRestore, rfc3339 } from "../log/peer-litestream.ts";
import { lacks, peers } from "../peers/peers.ts";

const skip = lacks("litestream", "litestreamFrames");
/** Records, two levels of compactions, snapshots. */
const LEVELS = [0, 1, 2, 9];
const LIMIT_MS = 40_000;

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), "sluice-interop-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** What `sluice restore` makes of the log at `url`. */
async function bySluice(url: string, ...args: readonly string[]): Promise<Buffer> {
  const output = path.join(directory, "sluice.db");
  const result = await sluiceCommand("restore", "-o", output, ...args, url);
  expect(result, result.stderr).toMatchObject({ status: 0 });
  return taken(output);
}

/** What the current Litestream makes of it. */
async function byLitestream(url: string, ...args: readonly string[]): Promise<Buffer> {
  const output = path.join(directory, "litestream.db");
  expect(await litestreamRestore(peers.litestream, url, output, args), args.join(" ")).toBe(true);
  return taken(output);
}

function taken(file: string): Buffer {
  const bytes = readFileSync(file);
  for (const suffix of ["", "-wal", "-shm"]) rmSync(file + suffix, { force: true });
  return bytes;
}

/** Up to `count` elements, spread over all, with the last one. */
function spread<T>(all: readonly T[], count: number): T[] {
  const step = Math.max(1, Math.ceil(all.length / count));
  return all.filter((_, i) => (all.length - 1 - i) % step === 0);
}

async function reachable(url: string): Promise<readonly number[]> {
  const store = storeOf(url);
  return new Reachable(await listLog(store, new LogLayout(store.layout, ""))).txids;
}

function storeOf(url: string): DirectoryStore {
  return new DirectoryStore(url.slice("file://".length));
}

describe.skipIf(skip)("what Sluice wrote, with compactions, snapshots, VACUUM, growth and shrinking", () => {
  let url: string;
  let files: readonly DescribedFile[];
  let rows: readonly unknown[];
  let status: number | string | null;

  beforeAll(async () => {
    if (skip) return;
    await using place = new Place();
    const db = place.path("app.db");
    const app = new Database(db);
    app.pragma("journal_mode = wal");
    app.close();
    const config = place.path("sluice.yml");
    url = `file://${path.join(directory, "written")}`;
    const lines = [
      `dbs: [{ path: ${db}, store: "${url}", sync-interval: 50ms }]`,
      "levels: [{ interval: 1s }, { interval: 2s }]",
      "snapshot: { interval: 4s, retention: 1h }",
    ];
    writeFileSync(config, `${lines.join("\n")}\n`);
    const running = await place.start("protected", "replicate", "--config", config);
    for (const end = Date.now() + LIMIT_MS; ;) {
      await churn(db, 3000);
      files = await describeLog({ store: storeOf(url), prefix: "" });
      if (LEVELS.every((level) => files.some((file) => file.level === level)) || Date.now() > end) break;
    }
    status = await running.end("SIGTERM");
    files = await describeLog({ store: storeOf(url), prefix: "" });
    rows = rowsOf(db);
  });

  test("is all that was committed, in files of every kind, each of which says that Sluice wrote it", async () => {
    expect(status).toBe(0);
    expect(rowsOf(await bySluice(url))).toEqual(rows);
    expect([...new Set(files.map((file) => file.level))]).toEqual(LEVELS);
    expect(files.every((file) => file.record !== undefined)).toBe(true);
    const sizes = new Set(files.map((file) => file.pageCount));
    expect(sizes.size).toBeGreaterThan(3);
  });

  test("is restored by Litestream, newest and after every kind of TXID", async () => {
    expect((await byLitestream(url)).equals(await bySluice(url))).toBe(true);
    for (const txid of spread(await reachable(url), 6)) {
      const arg = formatTxid(txid);
      const theirs = await byLitestream(url, "-txid", arg);
      expect(theirs.equals(await bySluice(url, "--txid", arg)), arg).toBe(true);
    }
  });

  test("is restored by Litestream at times", async () => {
    const times = files.filter((file) => file.level === 0).map((file) => file.timestampMs);
    let compared = 0;
    // It has no state after the time of the last file.
    for (const timeMs of spread(times.slice(0, -1), 5)) {
      // Litestream wants files from before the time; with the next one a millisecond later both mean the same.
      if (times.includes(timeMs + 1)) continue;
      const theirs = await byLitestream(url, "-timestamp", rfc3339(timeMs + 1));
      expect(theirs.equals(await bySluice(url, "--timestamp", rfc3339(timeMs))), rfc3339(timeMs)).toBe(true);
      compared++;
    }
    expect(compared).toBeGreaterThan(2);
  });
});

const versions = [
  { name: "0.5, pages as blocks", binary: "litestream" },
  { name: "0.5.12, pages as frames", binary: "litestreamFrames" },
] as const;

describe.skipIf(skip).each(versions)("a log that Litestream $name began", ({ binary }) => {
  test("goes on with `sluice run` on an empty disk, and Litestream restores all of it", async () => {
    const dir = path.join(directory, binary);
    mkdirSync(dir);
    const db = path.join(dir, "app.db");
    const bucket = path.join(dir, "bucket");
    const url = `file://${bucket}`;
    const isSound = binary !== "litestreamFrames";
    const peer = new Litestream(peers[binary], db, busySettings(db, { type: "file", path: bucket }, isSound));
    await churn(db, 4000, isSound);
    await peer.stop();
    const before = await byLitestream(url);
    const earlier = spread(await reachable(url), 3);
    const newest = earlier.at(-1)!;
    expect((await bySluice(url)).equals(before)).toBe(true);
    for (const file of [db, `${db}-wal`, `${db}-shm`, path.join(dir, ".app.db-litestream")])
      rmSync(file, { recursive: true, force: true });

    for (let life = 0; life < 2; life++) {
      const run = ["run", "--db", db, "--store", url, "--", "python3", "-c", WRITER, db];
      const result = await sluiceCommand(...run);
      expect(result, result.stderr).toMatchObject({ status: 0 });
      // The first life has only the log, the second one goes on with the file.
      expect(rowsOf(db).length).toBe(rowsOf(before).length + 3 * (life + 1));
    }

    const restored = await bySluice(url);
    expect(rowsOf(restored)).toEqual(rowsOf(db));
    expect((await byLitestream(url)).equals(restored)).toBe(true);
    const later = (await reachable(url)).filter((txid) => txid >= newest);
    expect(later.length).toBeGreaterThan(1);
    for (const txid of new Set([...earlier, ...spread(later, 3)])) {
      const arg = formatTxid(txid);
      const theirs = await byLitestream(url, "-txid", arg);
      expect(theirs.equals(await bySluice(url, "--txid", arg)), arg).toBe(true);
      if (txid === newest) expect(theirs.equals(before)).toBe(true);
    }
  });
});

/** Three rows of more in three commits, then a smaller file. */
const WRITER = `
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
for i in range(3):
    db.execute("insert into t(v, b) values(-1, randomblob(50000))")
    time.sleep(0.3)
db.execute("vacuum")
`;

/** What the tables of a database are, given as its file or as the content of one. */
function rowsOf(database: string | Buffer): readonly unknown[] {
  const file = typeof database === "string" ? database : path.join(directory, "rows.db");
  if (typeof database !== "string") writeFileSync(file, database);
  const db = new Database(file);
  try {
    expect(db.pragma("integrity_check", { simple: true })).toBe("ok");
    return db.prepare("select id, v, hex(b) from t order by id").raw().all();
  } finally {
    db.close();
    if (typeof database !== "string") taken(file);
  }
}

import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { decodeHeader } from "../../src/ltx/header.ts";
import { readLocal } from "../../src/database/local-batches.ts";
import { sealedPath } from "../../src/database/seal.ts";
import { type RunningApp, runPython, runPythonBeside, scratch, track } from "./apps.ts";
import { logImage } from "./log-image.ts";
import { MemoryLog } from "./logged.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
const running: RunningApp[] = [];
const logs: MemoryLog[] = [];
beforeEach(() => {
  dir = scratch("seal");
  path = dir.path("app.db");
  runPython(path, `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)")`);
});
afterEach(async () => {
  vi.restoreAllMocks();
  for (const log of logs.splice(0)) await log.database.close({ merge: false });
  for (const app of running.splice(0)) {
    app.kill();
    await app.ended;
  }
  dir.remove();
});

async function begin(limits = {}): Promise<MemoryLog> {
  const log = await MemoryLog.begin(path, { limits });
  logs.push(log);
  return log;
}

const insert = (n: number, size = 1000): string =>
  `for i in range(${n}): db.execute("insert into t values(randomblob(${size}))")\n`;

/** One life that is killed in its `at`th call that changes a file (0: never). */
async function live(at: number): Promise<{ code: number | null; output: string }> {
  const script = fileURLToPath(new URL("kill-at.ts", import.meta.url));
  const app = track(spawn(process.execPath, [script, path, dir.path("log"), String(at)]));
  running.push(app);
  return app.ended;
}

const step = Number(process.env["SLUICE_TEST_KILL_STEP"] ?? 9);
const first = Number(process.env["SLUICE_TEST_SEED"] ?? Math.floor(Math.random() * 1e6)) % step;

test(`killed in any call that changes a file, it goes on, and no slot changes (calls ${first}, ${first + step}, …)`, async () => {
  const calls = Number((await live(0)).output);
  expect(calls).toBeGreaterThan(60);
  // A later life has fewer to make, because directories and files are there.
  for (let at = Math.max(1, first); at < calls - 10; at += step) {
    const { code, output } = await live(at);
    expect({ at, code, output }).toEqual({ at, code: null, output: "" });
  }
  expect(await live(0)).toMatchObject({ code: 0, output: expect.stringMatching(/^\d+\n$/) as unknown });
  expect(logImage(dir.path("log")).equals(readFileSync(path))).toBe(true);
  expect(runPython(path, `print(db.execute("pragma integrity_check").fetchone()[0])`)).toBe("ok");
  const left = readdirSync(dir.path(".app.db-sluice"), { recursive: true }) as string[];
  expect(left.filter((name) => name.endsWith(".tmp"))).toEqual([]);
}, 600_000);

test("a batch has Litestream's name, the record's header, and only the pages that changed", async () => {
  const log = await begin();
  await runPythonBeside(path, insert(50));
  await log.flush();
  await runPythonBeside(path, `db.execute("update t set a = zeroblob(1000) where rowid = 30")`);
  const batch = await log.database.freeze();
  expect(batch).toMatchObject({ txid: 3, epoch: 1, sizeBytes: statSync(batch!.path).size });
  expect(batch!.path).toBe(sealedPath(log.database.stateDir, 3));
  expect(batch!.path).toMatch(/\/ltx\/0\/0000000000000003-0000000000000003\.ltx$/);
  const header = decodeHeader(readFileSync(batch!.path), batch!.path);
  expect(header).toMatchObject({ minTxid: 3, maxTxid: 3, nodeId: batch!.position, timestampMs: batch!.timestampMs });
  let pages = 0;
  await readLocal(log.database.stateDir, 3, { page: () => void pages++ });
  expect(pages).toBe(1);
  expect(await log.checksum()).not.toBe(undefined);
  await log.idle();
  expect(await log.checksum()).toBe(batch!.checksum);
});

test("times of records never go back, though the clock does", async () => {
  const log = await begin();
  const now = Date.now();
  vi.spyOn(Date, "now").mockReturnValue(now + 3_600_000);
  await runPythonBeside(path, insert(1));
  await log.flush();
  vi.spyOn(Date, "now").mockReturnValue(now - 3_600_000);
  await runPythonBeside(path, insert(1));
  await log.flush();
  expect(log.records.slice(-2).map((record) => record.timestampMs)).toEqual([now + 3_600_000, now + 3_600_000]);
});

test("other work gets its turn while a large batch is sealed", async () => {
  const log = await begin({ backfillFrames: 1_000_000 });
  await runPythonBeside(path, `db.execute("begin")\n${insert(6000, 8000)}db.execute("commit")`);
  log.database.captureNow();
  // The log of this test reads a batch at once.
  log.confirming = false;
  const start = performance.now();
  let last = start;
  let longestMs = 0;
  const look = (): void => {
    longestMs = Math.max(longestMs, performance.now() - last);
    last = performance.now();
  };
  const timer = setInterval(look, 1);
  try {
    expect((await log.database.freeze())?.sizeBytes).toBeGreaterThan(40_000_000);
  } finally {
    clearInterval(timer);
  }
  look();
  expect(longestMs).toBeLessThan((last - start) / 2);
});

test("local files go when they are confirmed and the table of sums is saved, not one by one, and not before", async () => {
  const log = await begin();
  const app = new Sqlite(path);
  const commit = app.prepare("insert into t values(randomblob(1000))");
  const local = (txid: number): boolean => existsSync(sealedPath(log.database.stateDir, txid));
  try {
    for (let txid = 2; txid < 32; txid++) {
      commit.run();
      await log.flush();
    }
    expect([local(1), local(31)]).toEqual([true, true]);
    log.confirming = false;
    for (let txid = 32; txid < 36; txid++) {
      commit.run();
      await log.database.freeze();
    }
    await log.database.confirm(32);
    expect([local(1), local(32), local(33), local(35)]).toEqual([false, false, true, true]);
  } finally {
    app.close();
  }
});

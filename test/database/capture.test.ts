import fs, { readFileSync, statSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { afterEach, beforeEach, expect, test } from "vitest";
import { toBigEndian } from "../sqlite/big-endian.ts";
import { type RunningApp, runApp, runPython, runPythonBeside, scratch, startApp, startPython, until } from "./apps.ts";
import { Replay } from "./replay.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
const apps: RunningApp[] = [];
const replays: Replay[] = [];
beforeEach(() => {
  dir = scratch("capture");
  path = dir.path("app.db");
});
afterEach(async () => {
  for (const replay of replays.splice(0)) replay.wal.release();
  for (const app of apps.splice(0)) {
    app.kill();
    await app.ended;
  }
  dir.remove();
});

async function open(limits = {}, live = true): Promise<Replay> {
  const replay = await Replay.open(path, limits, live);
  replays.push(replay);
  return replay;
}

async function expectReplay(replay: Replay): Promise<void> {
  expect(replay.losses).toEqual([]);
  replay.wal.stop();
  await replay.queue(async () => {});
  expect(await replay.wal.finish(5000)).toBeDefined();
  expect(replay.bytes.equals(readFileSync(path))).toBe(true);
}

const CREATE = `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)")\n`;

test.each(["OFF", "NORMAL", "FULL", "EXTRA"])(
  "with synchronous=%s every single commit is captured soon, also with silence after it",
  async (synchronous) => {
    runPython(path, CREATE);
    const replay = await open();
    const seen: number[] = [];
    replay.onMoved = () => {
      while (seen.length < replay.commits) seen.push(Date.now() / 1000);
    };
    const app = startPython(
      path,
      `db.execute("pragma synchronous=${synchronous}")
for i in range(15): db.execute("insert into t values(1)"); print(time.time()); time.sleep(0.12)`,
    );
    apps.push(app);
    const { output } = await app.ended;
    await until(() => seen.length === 15, "all commits");
    const lateMs = output
      .trim()
      .split("\n")
      .map((time, i) => (seen[i]! - Number(time)) * 1000)
      .sort((a, b) => a - b);
    // Without the ladder of looks after an event, FULL is seen with the next commit only: 120 ms late.
    expect(lateMs[7]).toBeLessThan(40);
    await expectReplay(replay);
  },
);

test("finds commits by looking again and again where the system gives no watch", async () => {
  runPython(path, CREATE);
  const real = fs.watch;
  Object.assign(fs, {
    watch: () => {
      throw Object.assign(new Error("no more watches"), { code: "ENOSPC" });
    },
  });
  syncBuiltinESMExports();
  try {
    const replay = await open();
    expect(replay.wal.isWatching).toBe(false);
    await runPythonBeside(path, `db.execute("insert into t values(1)")`);
    await until(() => replay.commits === 1, "the commit", 2_000);
  } finally {
    Object.assign(fs, { watch: real });
    syncBuiltinESMExports();
  }
});

test("a saturating writer is followed without an event for each write, and calm brings the watch back", async () => {
  runApp("writer", path, "--commits", 1);
  const replay = await open();
  const app = startApp("writer", path, "--seconds", 1.5);
  apps.push(app);
  const { output } = await app.ended;
  const commits = Number(/commits (\d+)/.exec(output)![1]);
  // The writer's first transaction creates what is there already, and commits all the same only what changed.
  await until(() => replay.commits >= commits, "all commits");
  expect(replay.wal.isWatching).toBe(true);
  await expectReplay(replay);
});

test("rolled-back transactions, savepoints and frames past the last commit are not captured", async () => {
  runPython(path, CREATE);
  const replay = await open();
  await runPythonBeside(
    path,
    `db.execute("pragma cache_size=5")
db.execute("begin"); db.executemany("insert into t values(randomblob(2000))", [()] * 500); db.execute("rollback")`,
  );
  replay.wal.captureNow();
  expect(replay.commits).toBe(0);
  expect(statSync(`${path}-wal`).size).toBeGreaterThan(100_000);
  await runPythonBeside(path, `db.execute("insert into t values(1)")`);
  replay.wal.captureNow();
  expect(replay.commits).toBe(1);
  await expectReplay(replay);
});

test("one transaction far larger than any buffer, spilled long before its commit, is read in turns", async () => {
  runPython(path, CREATE);
  const replay = await open({ backfillFrames: 100, restartBytes: 1e6, hardBytes: 1e7 });
  let worst = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    worst = Math.max(worst, performance.now() - last);
    last = performance.now();
  }, 1);
  const app = startPython(
    path,
    `db.execute("pragma cache_size=50"); db.execute("begin")
for i in range(12000): db.execute("insert into t values(zeroblob(8000))")
db.execute("commit")`,
  );
  apps.push(app);
  await app.ended;
  await until(() => replay.commits === 1, "the commit");
  clearInterval(timer);
  expect(replay.pages.length).toBeGreaterThan(20_000);
  await expectReplay(replay);
});

test.each([512, 1024, 8192, 32768, 65536])("pages of %i bytes", async (pageSize) => {
  runApp("storm", path, "--create", "--page-size", pageSize);
  const replay = await open();
  expect(replay.wal.pageSize).toBe(pageSize);
  runApp("storm", path, "--seed", pageSize, "--seconds", 0.5);
  replay.wal.captureNow();
  expect(replay.commits).toBeGreaterThan(0);
  await expectReplay(replay);
});

test("a WAL from a big-endian machine: read, appended to by SQLite, and little-endian after the restart", async () => {
  runPython(path, CREATE);
  const keeper = startPython(
    path,
    CREATE.replace("create table t", "create table u") + "print('ready'); sys.stdin.readline()",
  );
  apps.push(keeper);
  await until(() => statSync(`${path}-wal`, { throwIfNoEntry: false }) !== undefined, "the WAL");
  await runPythonBeside(path, `for i in range(5): db.execute("insert into t values(randomblob(3000))")`);
  const db = readFileSync(path);
  const wal = readFileSync(`${path}-wal`);
  path = dir.path("other.db");
  writeFileSync(path, db);
  writeFileSync(`${path}-wal`, toBigEndian(wal, 4096));
  const replay = await open({ backfillFrames: 10, restartBytes: 30 * 4096 });
  expect(replay.commits).toBeGreaterThanOrEqual(5);
  expect(replay.wal.capture.header.bigEndian).toBe(true);
  await runPythonBeside(path, `for i in range(5): db.execute("insert into t values(randomblob(3000))")`);
  replay.wal.captureNow();
  expect(replay.commits).toBeGreaterThanOrEqual(10);
  for (let i = 0; i < 40 && replay.wal.capture.header.bigEndian; i++) {
    await runPythonBeside(path, `for i in range(5): db.execute("insert into t values(randomblob(3000))")`);
    replay.wal.captureNow();
  }
  expect(replay.wal.capture.header.bigEndian).toBe(false);
  expect(runPython(path, "print(db.execute('pragma integrity_check').fetchone()[0])")).toBe("ok");
  await expectReplay(replay);
});

test("a commit that is captured under the lock of a restart is told, also when nobody commits after it", async () => {
  runPython(path, CREATE);
  const replay = await open();
  const { wal } = replay;
  runPython(path, `db.execute("insert into t values(1)")`);
  wal.captureNow();
  wal.stop();
  let told = 0;
  replay.onMoved = () => (told = replay.commits);
  const tryWrite = wal.locks.tryWrite.bind(wal.locks);
  wal.locks.tryWrite = () => {
    wal.locks.tryWrite = tryWrite;
    runPython(path, `db.execute("insert into t values(2)")`);
    return tryWrite();
  };
  expect(await wal.finish(5_000)).toBeDefined();
  expect(replay.commits).toBe(2);
  expect(told).toBe(2);
});

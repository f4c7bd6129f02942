import { appendFileSync, readFileSync, statSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { OFFSET_BACKFILL } from "../../src/sqlite/wal-index.ts";
import { type RunningApp, runApp, runPython, runPythonBeside, scratch, startApp, startPython, until } from "./apps.ts";
import { Replay } from "./replay.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
const apps: RunningApp[] = [];
const replays: Replay[] = [];
beforeEach(() => {
  dir = scratch("backfill");
  path = dir.path("app.db");
  runPython(path, `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)")`);
});
afterEach(async () => {
  for (const replay of replays.splice(0)) replay.wal.release();
  for (const app of apps.splice(0)) {
    app.kill();
    await app.ended;
  }
  dir.remove();
});

async function open(limits = {}): Promise<Replay> {
  const replay = await Replay.open(path, limits);
  replays.push(replay);
  return replay;
}

async function expectReplay(replay: Replay): Promise<void> {
  expect(replay.losses).toEqual([]);
  expect(replay.failures).toEqual([]);
  replay.wal.stop();
  await replay.queue(async () => {});
  expect(await replay.wal.finish(5000)).toBeDefined();
  expect(replay.bytes.equals(readFileSync(path))).toBe(true);
}

const rows = (n: number, size = 3000): string =>
  `for i in range(${n}): db.execute("insert into t values(randomblob(${size}))")\n`;

const nBackfill = (): number => readFileSync(`${path}-shm`).readUInt32LE(OFFSET_BACKFILL);

/** A reader in its transaction; it prints what it sees once more when a line comes in. */
async function reader(): Promise<{ seen: () => string; end: () => Promise<string> }> {
  const app = startPython(
    path,
    `q = "select count(*), sum(length(a)) from t"
db.execute("begin"); print(db.execute(q).fetchone()); sys.stdin.readline(); print(db.execute(q).fetchone()); db.execute("commit")`,
  );
  apps.push(app);
  let output = "";
  app.process.stdout?.on("data", (data: Buffer) => (output += data.toString()));
  await until(() => output.includes("\n"), "the reader");
  return {
    seen: () => output,
    end: async () => {
      app.process.stdin?.write("\n");
      return (await app.ended).output;
    },
  };
}

test("frames go to the database file from the limit on, and only when they are sealed", async () => {
  const replay = await open({ backfillFrames: 20 });
  replay.canSeal = false;
  await runPythonBeside(path, rows(50));
  await until(() => replay.commits === 50, "the commits");
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect([nBackfill(), replay.seals]).toEqual([0, 0]);
  replay.canSeal = true;
  await until(() => nBackfill() > 30, "the backfill");
  expect(replay.seals).toBeGreaterThan(0);
  await expectReplay(replay);
});

test("a reader's snapshot is kept: backfill stops at its mark, goes on when it ends, and there is an alarm", async () => {
  const replay = await open({ backfillFrames: 10, alarmFrames: 150 });
  await runPythonBeside(path, rows(20));
  const old = await reader();
  await runPythonBeside(path, rows(100) + `db.execute("delete from t where rowid % 2")`);
  await until(() => replay.alarms.includes(true), "the alarm");
  const { frame } = replay.wal.capture;
  expect(nBackfill()).toBeLessThan(frame - 100);
  const [before, after] = (await old.end()).trim().split("\n");
  expect(after).toBe(before);
  await until(() => nBackfill() > frame - 10, "the backfill of the rest");
  await until(() => replay.alarms.at(-1) === false, "the end of the alarm");
  await expectReplay(replay);
});

test("the WAL is restarted when it is long, and stays so short, with readers and a writer at work", async () => {
  runApp("writer", path, "--commits", 1);
  const replay = await open({ backfillFrames: 50, restartBytes: 400_000, hardBytes: 4e6 });
  const app = startApp("writer", path, "--seconds", 2, "--sleep", 0.0005, "--payload", 2000);
  apps.push(app);
  apps.push(startPython(path, `while True: db.execute("select count(*) from journal").fetchone(); time.sleep(0.003)`));
  const generations = new Set<number>();
  replay.onMoved = () => void generations.add(replay.wal.capture.place.salt1);
  const { output } = await app.ended;
  expect(output).toMatch(/^commits \d+/);
  expect(generations.size).toBeGreaterThan(2);
  expect(statSync(`${path}-wal`).size).toBeLessThan(4e6);
  replay.wal.captureNow();
  await expectReplay(replay);
});

test("a lone writer without a busy timeout hardly ever meets the restart's lock", async () => {
  runApp("writer", path, "--commits", 1);
  const replay = await open({ backfillFrames: 20, restartBytes: 100_000, hardBytes: 1e9 });
  let restarts = 0;
  let salt = 0;
  replay.onMoved = () => {
    if (replay.wal.capture.place.salt1 !== salt) restarts++;
    salt = replay.wal.capture.place.salt1;
  };
  const app = startApp("writer", path, "--seconds", 3, "--sleep", 0.01, "--timeout", 0, "--tolerate");
  apps.push(app);
  const { output } = await app.ended;
  expect(restarts).toBeGreaterThan(2);
  // Held for some 100 µs each time. With the backfill and its fsyncs under the lock, each restart would be met.
  expect(Number(/locked (\d+)/.exec(output)![1])).toBeLessThan(restarts / 2);
  await expectReplay(replay);
});

test("after a restart of the WAL: one connection spills and rolls back, another commits with salts of its own", async () => {
  const replay = await open({ backfillFrames: 20, restartBytes: 100_000 });
  const keeper = startPython(path, `print("up"); sys.stdin.readline()`);
  apps.push(keeper);
  for (let i = 0; i < 30 && replay.restarts === 0; i++) await runPythonBeside(path, rows(20));
  await until(() => replay.restarts > 0, "a restart");
  await runPythonBeside(
    path,
    `db.execute("pragma cache_size=5"); db.execute("begin immediate")\n${rows(100)}db.execute("rollback")`,
  );
  replay.wal.captureNow();
  const before = replay.commits;
  await runPythonBeside(path, rows(3));
  replay.wal.captureNow();
  expect(replay.commits).toBe(before + 3);
  await expectReplay(replay);
});

test("a WAL that one transaction made huge is cut again", async () => {
  const replay = await open({ backfillFrames: 50, restartBytes: 400_000, hardBytes: 1e9 });
  await runPythonBeside(path, `db.execute("begin")\n${rows(20_000, 1000)}db.execute("commit")`);
  const huge = statSync(`${path}-wal`).size;
  expect(huge).toBeGreaterThan(20e6);
  const app = startPython(path, `while True: db.execute("insert into t values(randomblob(3000))"); time.sleep(0.005)`);
  apps.push(app);
  await until(() => statSync(`${path}-wal`).size < 2e6, "the WAL to be cut", 40_000);
  app.kill();
  await app.ended;
  replay.wal.captureNow();
  await expectReplay(replay);
});

test("a pass whose header has changed meanwhile does nothing: SQLite's WAL-reset bug is not rebuilt", async () => {
  const replay = await open({ backfillFrames: 1e9, restartBytes: 1e12 });
  await runPythonBeside(path, rows(30));
  replay.wal.captureNow();
  const { wal } = replay;
  wal.sealed(wal.capture.frame);
  // The same as if the WAL had been restarted between the look at the header and READ_LOCK(0).
  const place = { ...wal.capture.place, salt1: wal.capture.place.salt1 ^ 1 };
  expect(await wal.backfill.pass(wal.durable, place, () => false)).toEqual({ backfilled: 0, blocked: true });
  expect(nBackfill()).toBe(0);
  await expectReplay(replay);
});

test("without a commit a close leaves the file as it is, also one that ends with part of a page", async () => {
  appendFileSync(path, "more");
  const before = readFileSync(path);
  const replay = await open();
  replay.wal.stop();
  expect(await replay.wal.finish(5000)).toBeDefined();
  expect(readFileSync(path).equals(before)).toBe(true);
});

test("while a view is kept nothing is backfilled, and it stays one state under writes, growth and shrink", async () => {
  runPython(path, rows(100));
  const replay = await open({ backfillFrames: 10, restartBytes: 100_000 });
  await runPythonBeside(path, rows(50) + `db.execute("delete from t where rowid % 3 = 0")`);
  replay.wal.captureNow();
  const resume = replay.wal.pause();
  await replay.queue(async () => {});
  const { frame, size } = replay.wal.capture;
  const image = replay.bytes;
  const view = replay.wal.view(frame, size);
  const before = nBackfill();
  await runPythonBeside(path, `${rows(300)}db.execute("delete from t"); db.execute("vacuum")\n${rows(10)}`);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(nBackfill()).toBe(before);
  const whole = Buffer.alloc(size * view.pageSize);
  await view.read(1, whole);
  expect(whole.equals(image)).toBe(true);
  const part = Buffer.alloc(3 * view.pageSize);
  await view.read(5, part);
  expect(part.equals(image.subarray(4 * view.pageSize, 7 * view.pageSize))).toBe(true);
  await expect(view.read(size, part)).rejects.toThrow(RangeError);
  resume();
  await until(() => nBackfill() !== before, "the backfill to go on");
  await expectReplay(replay);
});

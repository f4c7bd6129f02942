import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, statfsSync, statSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { runPython, runPythonBeside, scratch, until } from "./apps.ts";
import { MemoryLog } from "./logged.ts";

let dir: ReturnType<typeof scratch>;
let disk: string;
let path: string;
let log: MemoryLog | undefined;
let mounted = false;

beforeEach(() => {
  dir = scratch("disk-full");
  disk = dir.path("disk");
  mkdirSync(disk);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], { stdio: "ignore" });
    mounted = true;
  } catch {
    mounted = false;
  }
  path = `${disk}/app.db`;
});
afterEach(async () => {
  await log?.database.close({ merge: false });
  log = undefined;
  if (mounted) execFileSync("umount", ["-l", disk]);
  dir.remove();
});

const rows = (n: number, size = 1000): string =>
  `for i in range(${n}): db.execute("insert into t values(randomblob(${size}))")\n`;

/** Leaves `bytes` free. */
function fill(bytes: number): void {
  const { bavail, bsize } = statfsSync(disk);
  writeFileSync(`${disk}/filler`, Buffer.alloc(bavail * bsize - bytes));
}

const failures = (): string[] =>
  log!.events.flatMap((event) => (event.type === "failed" ? [(event.error as Error & { code: string }).code] : []));

test("no room for a batch: an error, the commits stay in the open batch, and are sealed when there is room", async (context) => {
  context.skip(!mounted, "needs the right to mount a small file system");
  runPython(path, `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)")`);
  log = await MemoryLog.begin(path);
  await runPythonBeside(path, rows(300));
  fill(20_000);
  await expect(log.database.freeze()).rejects.toMatchObject({ code: "SLU-2008" });
  expect(log.database.frozen).toEqual([]);
  const position = log.database.captureNow();
  rmSync(`${disk}/filler`);
  await log.flush();
  expect(log.records.at(-1)!.position).toBe(position);
  await log.database.close();
  expect(log.bytes.equals(readFileSync(path))).toBe(true);
});

test("no room for a backfill: told once, the WAL keeps everything, and it goes on when there is room", async (context) => {
  context.skip(!mounted, "needs the right to mount a small file system");
  runPython(path, `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)")`);
  log = await MemoryLog.begin(path, { limits: { backfillFrames: 200 } });
  const before = statSync(path).size;
  await runPythonBeside(path, `db.execute("begin")\n${rows(500)}db.execute("rollback")`);
  // The WAL's room is there already; what is left is enough for a batch, and not for the database file to grow.
  fill(1_050_000);
  await runPythonBeside(path, `db.execute("begin")\n${rows(800)}db.execute("commit")`);
  await until(() => failures().length > 0, "the error");
  expect(failures()[0]).toBe("SLU-2008");
  expect(runPython(path, "print(db.execute('select count(*) from t').fetchone()[0])")).toBe("800");
  rmSync(`${disk}/filler`);
  await until(() => statSync(path).size > before + 800_000, "the backfill");
  await log.flush();
  await log.database.close();
  expect(log.bytes.equals(readFileSync(path))).toBe(true);
});

test("an application that meets the full disk: its commit fails, nothing of it is captured, and all goes on", async (context) => {
  context.skip(!mounted, "needs the right to mount a small file system");
  runPython(path, `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)")`);
  log = await MemoryLog.begin(path);
  await runPythonBeside(path, rows(5));
  const position = log.database.captureNow();
  fill(50_000);
  const answer = await runPythonBeside(
    path,
    `try: db.execute("insert into t values(randomblob(1000000))")\nexcept Exception as e: print(e)`,
  );
  expect(answer).toMatch(/full/);
  expect(log.database.captureNow()).toBe(position);
  rmSync(`${disk}/filler`);
  await runPythonBeside(path, rows(5));
  expect(log.database.captureNow()).toBe(position + 5n);
  await log.flush();
  await log.database.close();
  expect(log.bytes.equals(readFileSync(path))).toBe(true);
});

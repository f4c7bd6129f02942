import {
  chmodSync,
  copyFileSync,
  existsSync,
  openSync,
  closeSync,
  readFileSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openFiles } from "../../src/database/opening.ts";
import {
  lockHolder,
  SHARED_FIRST,
  SHARED_SIZE,
  WAL_CKPT_LOCK,
  WAL_DMS_LOCK,
  WAL_PIN_LOCK,
} from "../../src/sqlite/locks.ts";
import { parseDatabaseHeader } from "../../src/sqlite/database-header.ts";
import { OFFSET_PIN_MARK } from "../../src/sqlite/wal-index.ts";
import { type RunningApp, runPython, runPythonBeside, scratch, startPython, until } from "./apps.ts";
import { Replay } from "./replay.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
const apps: RunningApp[] = [];
const replays: Replay[] = [];
beforeEach(() => {
  dir = scratch("opening");
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

async function open(limits = {}): Promise<Replay> {
  const replay = await Replay.open(path, { openMs: 400, ...limits });
  replays.push(replay);
  return replay;
}

/** Starts an application and waits until it has printed "ready". */
async function ready(code: string): Promise<RunningApp> {
  const app = startPython(path, `${code}\nprint("ready")\nsys.stdin.readline()\n`);
  apps.push(app);
  let output = "";
  app.process.stdout?.on("data", (data: Buffer) => (output += data.toString()));
  await until(() => output.includes("ready"), "the application");
  return app;
}

const CREATE = `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)"); db.execute("insert into t values(1)")`;

test("holds SHARED, DMS, CKPT and the pin, the pin's mark is unused, and SQLite's connection is gone", async () => {
  runPython(path, CREATE);
  await open();
  const db = openSync(path, "r+");
  const shm = openSync(`${path}-shm`, "r+");
  expect(lockHolder(db, "exclusive", SHARED_FIRST, SHARED_SIZE)).toEqual({ mode: "shared", pid: -1 });
  expect(lockHolder(shm, "exclusive", WAL_DMS_LOCK)).toEqual({ mode: "shared", pid: -1 });
  expect(lockHolder(shm, "shared", WAL_CKPT_LOCK)).toEqual({ mode: "exclusive", pid: -1 });
  expect(lockHolder(shm, "exclusive", WAL_PIN_LOCK)).toEqual({ mode: "shared", pid: -1 });
  expect(readFileSync(`${path}-shm`).readUInt32LE(OFFSET_PIN_MARK)).toBe(0xffffffff);
  closeSync(db);
  closeSync(shm);
});

test("a database that is not there yet is left for the application to make", async () => {
  await expect(open()).rejects.toMatchObject({ code: "SLU-2005" });
  expect(existsSync(path)).toBe(false);
  writeFileSync(path, "");
  await expect(open()).rejects.toMatchObject({ code: "SLU-2005" });
  expect(statSync(path).size).toBe(0);
  runPython(path, `db.execute("pragma page_size=8192"); db.execute("pragma auto_vacuum=1")\n${CREATE}`);
  expect((await open()).wal.pageSize).toBe(8192);
  expect(runPython(path, "print(db.execute('pragma auto_vacuum').fetchone()[0])")).toBe("1");
});

test("a directory, a text file and a damaged header are errors that name the file", async () => {
  await expect(openFiles(dir.path(""), 100, "open")).rejects.toMatchObject({ code: "SLU-2004" });
  writeFileSync(path, "this is not a database ".repeat(100));
  await expect(open()).rejects.toMatchObject({ code: "SLU-2016", message: expect.stringContaining(path) });
  expect(readFileSync(path, "utf8")).toMatch(/^this is not/);
});

test("rollback-journal mode is turned into WAL mode, after a hot journal was rolled back", async () => {
  runPython(path, `db.execute("create table t(a)"); db.execute("insert into t values(1)")`);
  // A transaction that has written to the database file, and is killed before its commit.
  await ready(`db.execute("pragma cache_size=5"); db.execute("begin")
db.execute("update t set a=2")
for i in range(500): db.execute("insert into t values(randomblob(1000))")
`);
  for (const end of ["", "-journal"]) copyFileSync(path + end, dir.path(`copy.db${end}`));
  path = dir.path("copy.db");
  expect(parseDatabaseHeader(readFileSync(path))?.writeVersion).toBe(1);
  await open();
  expect(existsSync(`${path}-journal`)).toBe(false);
  expect(parseDatabaseHeader(readFileSync(path))?.writeVersion).toBe(2);
  expect(runPython(path, "print(db.execute('select * from t').fetchall())")).toBe("[(1,)]");
});

test("a second Sluice is refused, and told who holds the database; the first is not disturbed", async () => {
  runPython(path, CREATE);
  const first = await open();
  await expect(open()).rejects.toMatchObject({ code: "SLU-2003", message: expect.stringMatching(/another Sluice/) });
  first.wal.locks.assertHeld();
  await runPythonBeside(path, `db.execute("insert into t values(2)")`);
  await until(() => first.commits === 1, "the commit", 5_000);
});

test.each([
  ["locking_mode=EXCLUSIVE", `db.execute("pragma locking_mode=exclusive"); db.execute("insert into t values(3)")`],
  [
    "vfs=unix-excl",
    `db = sqlite3.connect("file:" + PATH + "?vfs=unix-excl", uri=True, isolation_level=None); db.execute("insert into t values(3)")`,
  ],
])("an application with %s is in the way, and named", async (_name, code) => {
  runPython(path, CREATE);
  const app = await ready(code.replace("PATH", JSON.stringify(path)));
  await expect(open()).rejects.toMatchObject({ code: "SLU-2003", message: expect.stringContaining(path) });
  app.kill();
  await app.ended;
  await open();
});

test("an application that only opens and closes in a moment is waited for", async () => {
  runPython(path, CREATE);
  const app = await ready(`db.execute("pragma locking_mode=exclusive"); db.execute("insert into t values(3)")`);
  setTimeout(() => app.kill(), 500);
  expect((await open({ openMs: 5_000 })).commits).toBeGreaterThan(0);
});

test("applications that open with locking_mode=EXCLUSIVE beside Sluice are refused, readers of all kinds are not", async () => {
  runPython(path, CREATE);
  await open();
  const refused = (code: string): string =>
    runPython(
      path,
      `db.execute("pragma busy_timeout=100")\ntry:\n  ${code}\n  print("done")\nexcept Exception as e: print(e)`,
    );
  expect(refused(`db.execute("pragma locking_mode=exclusive"); db.execute("insert into t values(3)")`)).toMatch(
    /locked/,
  );
  expect(refused(`db.execute("pragma journal_mode=delete").fetchall()`)).toMatch(/locked/);
  const uri = (options: string): string =>
    runPython(
      path,
      `try:
  other = sqlite3.connect("file:" + ${JSON.stringify(path)} + "?${options}", uri=True, timeout=0.1)
  print(other.execute("select count(*) from t").fetchone()[0])
except Exception as e: print(e)`,
    );
  runPython(path, `db.execute("insert into t values(2)")`);
  expect(uri("mode=ro")).toBe("2");
  expect(uri("readonly_shm=1&mode=ro")).toBe("2");
  expect(uri("vfs=unix-excl")).toMatch(/locked/);
  expect(uri("nolock=1")).toMatch(/unable to open/);
});

test("a WAL that the application has merged to its end is read all the same, and not restarted by its next commit", async () => {
  const app = await ready(
    CREATE +
      `\nfor i in range(10): db.execute("insert into t values(2)")\ndb.execute("pragma wal_checkpoint(full)").fetchall()`,
  );
  const replay = await open();
  const { frame } = replay.wal.capture;
  expect(frame).toBeGreaterThan(10);
  expect(replay.wal.backfill.backfilled).toBe(frame);
  await runPythonBeside(path, `db.execute("insert into t values(3)")`);
  await until(() => replay.wal.capture.frame > frame, "the commit behind the old frames");
  expect(replay.losses).toEqual([]);
  app.kill();
});

test("the application's checkpoints get busy at once and change nothing; the last close leaves the WAL", async () => {
  runPython(path, CREATE);
  const replay = await open();
  for (const mode of ["passive", "full", "restart", "truncate"]) {
    const answer = runPython(
      path,
      `db.execute("insert into t values(2)"); t = time.monotonic()
print(db.execute("pragma wal_checkpoint(${mode})").fetchone()[0], time.monotonic() - t < 2)`,
    );
    expect(answer).toBe("1 True");
  }
  expect(existsSync(`${path}-wal`)).toBe(true);
  replay.wal.captureNow();
  expect(replay.commits).toBe(4);
});

test.runIf(process.getuid?.() === 0)("files that may not be written are an error of permission", async () => {
  runPython(path, CREATE);
  chmodSync(path, 0o444);
  // Root may write all the same; the test runs as another user.
  const { execFileSync } = await import("node:child_process");
  chmodSync(dir.path(""), 0o755);
  const script = `import { openFiles } from ${JSON.stringify(new URL("../../src/database/opening.ts", import.meta.url).pathname)};
process.setgid(65534); process.setuid(65534);
await openFiles(${JSON.stringify(path)}, 100, "open").catch((e) => console.log(e.code));`;
  expect(execFileSync(process.execPath, ["--input-type=module", "-e", script], { encoding: "utf8" }).trim()).toBe(
    "SLU-2009",
  );
});

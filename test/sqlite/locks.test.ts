import { closeSync, openSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isLockedByOther, lockHolder, tryLock, unlock, WAL_WRITE_LOCK } from "../../src/sqlite/locks.ts";
import { runPython, scratch, startPython, until } from "../database/apps.ts";

let dir: ReturnType<typeof scratch>;
let a: number;
let b: number;
beforeEach(() => {
  dir = scratch("locks");
  writeFileSync(dir.path("file"), "");
  a = openSync(dir.path("file"), "r+");
  b = openSync(dir.path("file"), "r+");
});
afterEach(() => {
  closeSync(a);
  closeSync(b);
  dir.remove();
});

test("an exclusive lock keeps another description out, a shared one lets shared ones in", () => {
  expect(tryLock(a, "exclusive", 10)).toBe(true);
  expect(tryLock(b, "shared", 10)).toBe(false);
  expect(tryLock(b, "exclusive", 11)).toBe(true);
  expect(tryLock(a, "shared", 10)).toBe(true);
  expect(tryLock(b, "shared", 10)).toBe(true);
  expect(tryLock(a, "exclusive", 10)).toBe(false);
  unlock(b, 10);
  expect(tryLock(a, "exclusive", 10)).toBe(true);
});

test("says who holds a lock", () => {
  expect(lockHolder(a, "exclusive", 10)).toBeUndefined();
  tryLock(b, "shared", 8, 4);
  expect(lockHolder(a, "exclusive", 10)).toEqual({ mode: "shared", pid: -1 });
  expect(lockHolder(a, "shared", 10)).toBeUndefined();
  expect(isLockedByOther(a, "exclusive", 12)).toBe(false);
});

test("stays when another descriptor of the file is closed, as POSIX locks do not", () => {
  tryLock(a, "exclusive", 10);
  closeSync(openSync(dir.path("file"), "r+"));
  expect(isLockedByOther(b, "shared", 10)).toBe(true);
});

test("conflicts with SQLite's own locks in both directions", async () => {
  const path = dir.path("app.db");
  const app = startPython(
    path,
    `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)"); db.execute("begin immediate")
print("writing"); sys.stdin.readline(); db.execute("commit"); print("done"); sys.stdin.readline()`,
  );
  let shm = -1;
  try {
    let output = "";
    app.process.stdout?.on("data", (data: Buffer) => (output += data.toString()));
    await until(() => output.includes("writing"), "a writer in its transaction");
    shm = openSync(`${path}-shm`, "r+");
    expect(tryLock(shm, "exclusive", WAL_WRITE_LOCK)).toBe(false);
    expect(lockHolder(shm, "shared", WAL_WRITE_LOCK)).toEqual({ mode: "exclusive", pid: app.process.pid });
    app.process.stdin?.write("\n");
    await until(() => output.includes("done"), "the commit");
    expect(tryLock(shm, "shared", WAL_WRITE_LOCK)).toBe(true);
    const answer = runPython(
      path,
      `db.execute("pragma busy_timeout=0")
try: db.execute("insert into t values(1)")
except Exception as e: print(e)`,
    );
    expect(answer).toBe("database is locked");
  } finally {
    app.kill();
    await app.ended;
    if (shm >= 0) closeSync(shm);
  }
});

test("a descriptor that is none is an error of the file system", () => {
  expect(() => tryLock(9999, "shared", 0)).toThrow(expect.objectContaining({ code: "SLU-2002" }));
});

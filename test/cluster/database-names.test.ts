import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { isDatabasePath } from "../../src/cluster/database-names.ts";
import { DatabaseDirectory } from "../../src/cluster/directory.ts";
import { databasesIn } from "../../src/cluster/discover.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import type { ObjectInfo, ObjectStore } from "../../src/store/store.ts";

const deep = { pattern: "*", recursive: true };

describe("names that a bucket or another node says", () => {
  test.each([
    "..",
    "../x.db",
    "a/../x.db",
    "a/..",
    ".",
    "./x.db",
    "a/./x.db",
    "/etc/x.db",
    "//x.db",
    "a//x.db",
    "x.db/",
    "",
    "/",
    "a/",
    ".x.db",
    ".primary",
    ".x.db-sluice/x.db",
    "a/.git/x.db",
    "x.db\0",
    "x\0/../y.db",
    "x.db-wal",
    "x.db-shm",
    "x.db-journal",
    "x.db-pos",
    "x.db.seeding",
    "x".repeat(248),
    "\u00e9".repeat(124),
  ])("%j is no database", (name) => expect(isDatabasePath(name, deep)).toBe(false));

  test.each([
    "x.db",
    "a/b/c.db",
    "-rf.db",
    "two words.db",
    "line\nbreak.db",
    "\u00e9.db",
    "e\u0301.db",
    "..x/y.db".slice(2),
    "~.db",
  ])("%j is one", (name) => expect(isDatabasePath(name, deep)).toBe(true));

  test("lead nowhere but into the directory, and no two to one file", () => {
    const part = fc.constantFrom("..", ".", "", "a", "b.db", ".x", "a\0", "-", "\n", "\u00e9", "a.db-wal");
    const names = fc.array(fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join("/")));
    fc.assert(
      fc.property(names, (all) => {
        const taken = [...new Set(all)].filter((name) => isDatabasePath(name, deep));
        const files = taken.map((name) => path.join("/data/dir", name));
        for (const file of files) expect(file.startsWith("/data/dir/")).toBe(true);
        expect(new Set(files).size).toBe(taken.length);
      }),
      { seed: 1 },
    );
  });

  test("of a bucket are taken only when a look at the directory could find them", async () => {
    const log = "ltx/0/0000000000000001-0000000000000001.ltx";
    const keys = ["a.db", "../evil.db", "/etc/evil.db", "a//b.db", ".a.db-sluice/x.db", "t/b.db", "x\0.db", "a.db-wal"];
    const list = async function* (): AsyncIterable<ObjectInfo> {
      for (const key of keys) yield { key: `${key}/${log}`, sizeBytes: 1, modifiedMs: 0 };
    };
    const store = { list } as unknown as ObjectStore;
    expect(await databasesIn(store, { pattern: "*", recursive: true })).toEqual(["a.db", "t/b.db"]);
    expect(await databasesIn(store, { pattern: "*.db", recursive: false })).toEqual(["a.db"]);
  });
});

describe("what lies in a directory under a database's name", () => {
  let dir: string;
  let directory: DatabaseDirectory;
  const appeared: string[] = [];

  beforeEach(() => {
    dir = mkdtempSync(path.join(os.tmpdir(), "sluice-names-"));
    appeared.length = 0;
    const onError = (error: unknown): void => {
      throw error;
    };
    directory = new DatabaseDirectory({
      dir,
      pattern: "*",
      recursive: true,
      pollMs: 20,
      onAppeared: (file) => appeared.push(file),
      onGone: () => undefined,
      onUnusable: () => undefined,
      onError,
    });
  });
  afterEach(async () => {
    await directory.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  test("a pipe, a device, a link to nothing or to itself keeps no look waiting, and is no database", async () => {
    execFileSync("mkfifo", [path.join(dir, "pipe.db")]);
    symlinkSync("/dev/zero", path.join(dir, "zero.db"));
    symlinkSync("/dev/tty", path.join(dir, "tty.db"));
    symlinkSync("loop.db", path.join(dir, "loop.db"));
    symlinkSync("nothing", path.join(dir, "nothing.db"));
    symlinkSync("/", path.join(dir, "root"));
    for (const name of ["good.db", "-rf.db", "line\nbreak.db", "\u00e9.db", "e\u0301.db"])
      writeFileSync(path.join(dir, name), "SQLite format 3\0");
    await directory.start();
    expect(appeared.toSorted()).toEqual(["-rf.db", "\u00e9.db", "good.db", "line\nbreak.db", "e\u0301.db"].toSorted());
  });
});

test("a directory store holds what it is asked for inside, and waits for no pipe", async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-names-"));
  const store = new DirectoryStore(path.join(dir, "store"));
  for (const key of ["../x", "a/../../x", "/etc/passwd", "a//b", ".", "a/.", ""])
    await expect(store.put(key, Buffer.from("x")), key).rejects.toMatchObject({ code: "SLU-3104" });
  await expect(store.put("a\0b", Buffer.from("x"))).rejects.toMatchObject({ code: "SLU-3104" });
  await store.put("a", Buffer.from("x"));
  execFileSync("mkfifo", [path.join(dir, "store", "pipe")]);
  await expect(store.get("pipe")).rejects.toMatchObject({ code: "SLU-3104" });
  rmSync(dir, { recursive: true });
});

import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { DatabaseDirectory } from "../../src/cluster/directory.ts";

let dir: string;
let directory: DatabaseDirectory | undefined;
const appeared: string[] = [];
const gone: string[] = [];
const unusable: string[] = [];
const magic = "SQLite format 3\0";

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-directory-"));
  appeared.length = gone.length = unusable.length = 0;
});

afterEach(async () => {
  await directory?.stop();
  rmSync(dir, { recursive: true, force: true });
});

async function start(recursive: boolean): Promise<void> {
  directory = new DatabaseDirectory({
    dir,
    pattern: "*.db",
    recursive,
    pollMs: 20,
    onAppeared: (file) => appeared.push(file),
    onGone: (file) => gone.push(file),
    onUnusable: (file) => unusable.push(file),
    onError: (error) => {
      throw error;
    },
  });
  await directory.start();
}

test("finds databases at the start, and nothing else", async () => {
  writeFileSync(path.join(dir, "a.db"), magic);
  writeFileSync(path.join(dir, "a.db-wal"), magic);
  writeFileSync(path.join(dir, ".hidden.db"), magic);
  writeFileSync(path.join(dir, "text.db"), "not a database at all");
  writeFileSync(path.join(dir, "b.sqlite"), magic);
  await start(false);
  expect(appeared).toEqual(["a.db"]);
});

test("tells once of a file that matches and holds no database, and follows it when it becomes one", async () => {
  writeFileSync(path.join(dir, "encrypted.db"), Buffer.alloc(4096, 0xc5));
  writeFileSync(path.join(dir, "empty.db"), "");
  // A transaction that spilled: SQLite writes the first page last.
  writeFileSync(path.join(dir, "spilled.db"), Buffer.alloc(4096));
  await start(false);
  await directory?.look();
  expect([appeared, unusable]).toEqual([[], ["encrypted.db"]]);
  writeFileSync(path.join(dir, "encrypted.db"), magic);
  await vi.waitFor(() => expect(appeared).toEqual(["encrypted.db"]), 5000);
  writeFileSync(path.join(dir, "encrypted.db"), "encrypted once more");
  await directory?.look();
  expect(unusable).toEqual(["encrypted.db"]);
});

test("an empty file counts when its application has begun it", async () => {
  await start(false);
  writeFileSync(path.join(dir, "new.db"), "");
  await new Promise((done) => setTimeout(done, 100));
  expect(appeared).toEqual([]);
  writeFileSync(path.join(dir, "new.db"), magic);
  await vi.waitFor(() => expect(appeared).toEqual(["new.db"]), 5000);
});

test("reports what goes, and what comes into folders made later", async () => {
  writeFileSync(path.join(dir, "a.db"), magic);
  await start(true);
  mkdirSync(path.join(dir, "x", "y"), { recursive: true });
  renameSync(path.join(dir, "a.db"), path.join(dir, "x", "y", "b.db"));
  await vi.waitFor(() => expect([appeared, gone]).toEqual([["a.db", "x/y/b.db"], ["a.db"]]), 5000);
});

test("does not look into folders without `recursive`", async () => {
  mkdirSync(path.join(dir, "x"));
  writeFileSync(path.join(dir, "x", "a.db"), magic);
  await start(false);
  expect(appeared).toEqual([]);
});

test("a directory that can't be read is an error at the start", async () => {
  rmSync(dir, { recursive: true });
  await expect(start(false)).rejects.toThrow("ENOENT");
});

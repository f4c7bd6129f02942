import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ask } from "../../src/admin/client.ts";
import { readOwner, removeOwner, socketPath, writeOwner } from "../../src/admin/owner.ts";

let dir: string;
let db: string;
let note: string;

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-owner-"));
  db = path.join(dir, "app.db");
  note = path.join(dir, ".app.db-sluice/owner.json");
  vi.stubEnv("TMPDIR", dir);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(dir, { recursive: true });
});

test("a note is believed while its process lives", () => {
  expect(writeOwner(db, "/s")).toBe(true);
  expect(readOwner(db)).toMatchObject({ pid: process.pid, socket: "/s" });
  removeOwner(db);
  expect(readOwner(db)).toBeUndefined();
});

test("a number that another process got later is nobody", () => {
  writeOwner(db, "/s");
  writeFileSync(note, JSON.stringify({ pid: process.pid, startTime: "1", socket: "/s" }));
  expect(readOwner(db)).toBeUndefined();
  expect(writeOwner(db, "/t")).toBe(true);
  expect(readOwner(db)).toMatchObject({ socket: "/t" });
});

test("another process that lives keeps its note", async () => {
  const { readFileSync } = await import("node:fs");
  const stat = readFileSync(`/proc/${process.ppid}/stat`, "latin1");
  const startTime = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  mkdirSync(path.dirname(note));
  writeFileSync(note, JSON.stringify({ pid: process.ppid, startTime, socket: "/other" }));
  expect(writeOwner(db, "/mine")).toBe(false);
  removeOwner(db);
  expect(readOwner(db)).toMatchObject({ pid: process.ppid, socket: "/other" });
});

test("a note that is no JSON is nobody's", () => {
  mkdirSync(path.dirname(note));
  writeFileSync(note, "{");
  expect(readOwner(db)).toBeUndefined();
});

test("sockets of processes that are gone are removed, others stay", () => {
  const folder = path.dirname(socketPath());
  const mine = path.basename(socketPath());
  const [container] = mine.split("-");
  // What another container calls its processes means nothing here.
  const others = ["1-999999999-1.sock", "notes.txt"];
  for (const name of [`${container}-999999999-1.sock`, `${container}-${process.pid}-1.sock`, mine, ...others])
    writeFileSync(path.join(folder, name), "");
  socketPath();
  expect(readdirSync(folder).toSorted()).toEqual([mine, ...others].toSorted());
});

test("a folder that others can write to isn't used", () => {
  const folder = path.join(dir, `sluice-${process.getuid?.()}`);
  mkdirSync(folder, { mode: 0o777 });
  // The umask took some of it.
  writeFileSync(path.join(folder, "planted"), "");
  expect(path.dirname(socketPath())).not.toBe(folder);
});

test("a process that lives and doesn't listen is SLU-1004, with its number", async () => {
  writeOwner(db, path.join(dir, "none.sock"));
  await expect(ask(db, { method: "GET", path: "/v1/status" })).rejects.toMatchObject({
    code: "SLU-1004",
    message: expect.stringContaining(`process ${process.pid}`),
  });
});

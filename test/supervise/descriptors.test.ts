import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lockHolder, SHARED_FIRST, SHARED_SIZE, WAL_DMS_LOCK, WAL_WRITE_LOCK } from "../../src/sqlite/locks.ts";
import { eventually, isRunning, marked } from "./support.ts";

/** Writes a row each time it can, with a connection for each, and says how that went. */
const WRITER = `
import sqlite3, sys, time
while True:
    connection = sqlite3.connect(sys.argv[1], timeout=0)
    try:
        connection.execute("insert into entries values (1)")
        connection.commit()
        print("written", flush=True)
    except sqlite3.OperationalError as error:
        print(error, flush=True)
    connection.close()
    time.sleep(0.02)`;

let dir: string;
let database: string;
let mark: string;
let holder: ChildProcess;
let output: string;
let descriptors: number[];

beforeEach(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-holder-"));
  database = path.join(dir, "app.db");
  mark = randomUUID();
  output = "";
  const connection = new Database(database);
  connection.pragma("journal_mode = wal");
  connection.exec("create table entries (value)");
  const args = [database, path.join(dir, "guardian.json"), "python3", "-c", WRITER, database];
  holder = spawn(process.execPath, [path.join(import.meta.dirname, "holder.ts"), ...args], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { PATH: process.env["PATH"], MARK: mark },
  });
  holder.stdout?.on("data", (chunk: Buffer) => (output += chunk.toString()));
  await eventually("up", () => output.includes("up"));
  connection.close();
  descriptors = [openSync(database, "r+"), openSync(`${database}-shm`, "r+")];
});

afterEach(async () => {
  holder.kill("SIGKILL");
  await eventually("nothing left", () => marked(mark).size === 0);
  for (const fd of descriptors) closeSync(fd);
  rmSync(dir, { recursive: true });
});

/** Who holds SHARED, DMS and the gate: -1 for an open file description. */
function holders(): (number | undefined)[] {
  const [db = -1, shm = -1] = descriptors;
  return [
    lockHolder(db, "exclusive", SHARED_FIRST, SHARED_SIZE)?.pid,
    lockHolder(shm, "exclusive", WAL_DMS_LOCK)?.pid,
    lockHolder(shm, "exclusive", WAL_WRITE_LOCK)?.pid,
  ];
}

function guardianPid(): number {
  const { guardian } = JSON.parse(readFileSync(path.join(dir, "guardian.json"), "utf8")) as {
    guardian: { pid: number };
  };
  return guardian.pid;
}

test("the locks live in the guardian alone, and no writer gets through while it holds them", async () => {
  expect(output).toMatch(/^up SLU-6011\n/);
  expect(holders()).toEqual([-1, -1, -1]);
  await eventually("a writer is refused", () => output.includes("database is locked"));
  expect(output).not.toContain("written");
  const [app = 0] = [...marked(mark).keys()].filter((pid) => pid !== holder.pid);
  const links = (pid: number) => readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(pid, fd));
  // The second hold under one key took the place of the first.
  expect(
    links(guardianPid())
      .filter((link) => /\/app\.db|\/dev\/zero/.test(link))
      .sort(),
  ).toEqual(["/dev/zero", database, `${database}-shm`]);
  expect(readFileSync(`/proc/${app}/cmdline`, "latin1")).toContain("insert");
  // The database it opens itself, again and again; what Sluice gave to the guardian it has not.
  expect(links(app)).not.toContain("/dev/zero");
});

test("the gate stays closed after kill -9 of Sluice until the application is dead", async () => {
  const guardian = guardianPid();
  process.kill(guardian, "SIGSTOP");
  holder.kill("SIGKILL");
  await once(holder, "exit");
  const seen = output.length;
  await delay(400);
  expect(holders()).toEqual([-1, -1, -1]);
  expect(marked(mark).size).toBeGreaterThan(0);
  expect(output.slice(seen)).not.toContain("written");
  process.kill(guardian, "SIGCONT");
  await eventually("the application ends", () => marked(mark).size === 0);
  await eventually("the guardian ends", () => !isRunning(guardian));
  expect(holders()).toEqual([undefined, undefined, undefined]);
  expect(output).not.toContain("written");
});

test("what is released is closed: writers get through", async () => {
  holder.stdin?.write("\n");
  await eventually("a row is written", () => output.includes("written"));
  expect(holders().slice(0, 2)).not.toEqual([-1, -1]);
});

function linkOf(pid: number, fd: string): string {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return "closed";
  }
}

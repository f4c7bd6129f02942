import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { StateFile } from "../../src/database/state.ts";
import { runPython, runPythonBeside, scratch, track } from "./apps.ts";
import { MemoryLog } from "./logged.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
const logs: MemoryLog[] = [];
beforeEach(() => {
  dir = scratch("recover");
  path = dir.path("app.db");
  runPython(path, `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)")`);
});
afterEach(async () => {
  for (const log of logs.splice(0)) await log.database.close({ merge: false });
  dir.remove();
});

const rows = (n: number): string => `for i in range(${n}): db.execute("insert into t values(randomblob(100))")\n`;

/** The machine has started anew since. */
async function otherBoot(stateDir: string, change: object = {}): Promise<void> {
  const file = new StateFile(stateDir);
  await file.write({ ...file.state!, bootId: "an earlier one", ...change });
  file.close();
}

const files = (): (Buffer | undefined)[] =>
  ["", "-wal"].map((end) => (existsSync(path + end) ? readFileSync(path + end) : undefined));

/** The files as a disk kept them. */
function put(kept: (Buffer | undefined)[]): void {
  for (const end of ["-wal", "-shm"]) rmSync(path + end, { force: true });
  ["", "-wal"].forEach((end, i) => {
    if (kept[i] !== undefined) writeFileSync(path + end, kept[i]);
  });
}

const count = (): string => runPython(path, "print(db.execute('select count(*) from t').fetchone()[0])");

const hows = (log: MemoryLog): string[] =>
  log.events.map((event) => (event.type === "recovered" ? event.how : event.type));

test("what an application changed after a clean stop and a restart of the machine is kept, not taken for a power loss", async () => {
  const log = await MemoryLog.begin(path);
  await runPythonBeside(path, rows(5));
  await log.flush();
  await log.database.close();
  const { stateDir } = log.database;
  await otherBoot(stateDir);
  // The pages that it changes are all in local batches.
  runPython(path, rows(5));
  const next = await MemoryLog.begin(path, {}, log.pages);
  logs.push(next);
  expect(next.events[0]).toMatchObject({ type: "recovered", how: "changed" });
  expect(existsSync(`${stateDir}/quarantine`)).toBe(false);
  await next.flush();
  await next.database.close();
  expect(count()).toBe("10");
  expect(next.bytes.equals(readFileSync(path))).toBe(true);
});

test("an older copy that somebody put in place while Sluice was stopped counts, also after a restart of the machine", async () => {
  let log = await MemoryLog.begin(path);
  await runPythonBeside(path, rows(5));
  await log.flush();
  await log.database.close();
  const copy = files();
  log = await MemoryLog.begin(path, {}, log.pages);
  await runPythonBeside(path, rows(5));
  await log.flush();
  await log.database.close();
  await otherBoot(log.database.stateDir);
  put(copy);
  const next = await MemoryLog.begin(path, {}, log.pages);
  logs.push(next);
  expect(hows(next)).toEqual(["changed"]);
  expect(count()).toBe("5");
});

test("what an application did alone after a crash of the machine that cost nothing is kept", async () => {
  const log = await MemoryLog.begin(path);
  await runPythonBeside(path, rows(5));
  await log.flush();
  await log.database.close({ merge: false });
  await otherBoot(log.database.stateDir);
  // It recovers the whole WAL, commits, and merges it at its last close.
  expect(count()).toBe("5");
  runPython(path, rows(3));
  expect(existsSync(`${path}-wal`)).toBe(false);
  const next = await MemoryLog.begin(path, {}, log.pages);
  logs.push(next);
  expect(hows(next)).toEqual(["changed"]);
  expect(count()).toBe("8");
});

/** A database whose last batch a power loss took in part, and the log that has all of it. */
async function cutInTheMiddle(): Promise<MemoryLog> {
  const log = await MemoryLog.begin(path);
  await runPythonBeside(path, rows(5));
  await log.flush();
  // The state in the middle of a batch is in no record.
  await runPythonBeside(path, rows(2));
  log.database.captureNow();
  const kept = files();
  await runPythonBeside(path, rows(3));
  await log.flush();
  await log.database.close({ merge: false });
  put(kept);
  await otherBoot(log.database.stateDir);
  return log;
}

test("a power loss that took the end of a batch: the batch is put back, and what was found goes to the quarantine", async () => {
  const log = await cutInTheMiddle();
  const next = await MemoryLog.begin(path, {}, log.pages);
  logs.push(next);
  expect(hows(next)).toEqual(["behind", "quarantined", "in-step"]);
  expect(count()).toBe("10");
  expect(readdirSync(`${log.database.stateDir}/quarantine`)).toHaveLength(1);
  await next.flush();
  await next.database.close();
  expect(next.bytes.equals(readFileSync(path))).toBe(true);
});

test("a power loss that took the whole WAL: the file is as an earlier batch left it, and the later ones are put back", async () => {
  let log = await MemoryLog.begin(path);
  await runPythonBeside(path, rows(5));
  await log.flush();
  await log.database.close();
  const kept = files();
  log = await MemoryLog.begin(path, {}, log.pages);
  await runPythonBeside(path, rows(5));
  await log.flush();
  await log.database.close({ merge: false });
  put(kept);
  await otherBoot(log.database.stateDir);
  const next = await MemoryLog.begin(path, {}, log.pages);
  logs.push(next);
  expect(hows(next)).toEqual(["behind", "in-step"]);
  expect(count()).toBe("10");
});

test("killed while batches are put back, it does so again, though the WAL is gone by then", async () => {
  const log = await cutInTheMiddle();
  await otherBoot(log.database.stateDir, { puttingBack: true });
  // Its first step merges the WAL, as the last close does.
  expect(count()).toBe("7");
  expect(existsSync(`${path}-wal`)).toBe(false);
  const next = await MemoryLog.begin(path, {}, log.pages);
  logs.push(next);
  expect(hows(next)).toEqual(["behind", "quarantined", "in-step"]);
  expect(count()).toBe("10");
  const file = new StateFile(log.database.stateDir);
  expect(file.state).toMatchObject({ puttingBack: false });
  file.close();
});

test("killed in any call that changes a file while it puts batches back, it does so to the end in the next life", async () => {
  const log = await cutInTheMiddle();
  const script = fileURLToPath(new URL("kill-at.ts", import.meta.url));
  for (let at = 1; at <= 10; at += 1) {
    const life = track(spawn(process.execPath, [script, path, dir.path("log"), String(at)]));
    expect(await life.ended).toEqual({ code: null, output: "" });
  }
  const next = await MemoryLog.begin(path, {}, log.pages);
  logs.push(next);
  expect(hows(next).at(-1)).toBe("in-step");
  expect(count()).toBe("10");
  expect(runPython(path, "print(db.execute('pragma integrity_check').fetchone()[0])")).toBe("ok");
  await next.flush();
  await next.database.close();
  expect(next.bytes.equals(readFileSync(path))).toBe(true);
});

test("without its table of sums and the batches for it nothing is believed, and the next record has all pages", async () => {
  const log = await MemoryLog.begin(path);
  await runPythonBeside(path, rows(5));
  await log.flush();
  await log.database.close();
  rmSync(`${log.database.stateDir}/pages`);
  rmSync(`${log.database.stateDir}/ltx`, { recursive: true });
  const next = await MemoryLog.begin(path);
  logs.push(next);
  expect(next.events[0]).toMatchObject({ how: "unknown", detail: expect.stringMatching(/sums/) as unknown });
  await next.flush();
  await next.database.close();
  expect(next.bytes.equals(readFileSync(path))).toBe(true);
});

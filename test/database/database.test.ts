import { existsSync, readFileSync, rmSync, statSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Database } from "../../src/database/database.ts";
import { readLocal } from "../../src/database/local-batches.ts";
import { Replica } from "../../src/database/replica.ts";
import { StateFile } from "../../src/database/state.ts";
import { position } from "../../src/ltx/position.ts";
import { type RunningApp, runApp, runPython, runPythonBeside, scratch, startApp, startPython, until } from "./apps.ts";
import { MemoryLog } from "./logged.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
const apps: RunningApp[] = [];
const logs: MemoryLog[] = [];
beforeEach(() => {
  dir = scratch("database");
  path = dir.path("app.db");
  runPython(path, `db.execute("pragma journal_mode=wal"); db.execute("create table t(a)")`);
});
afterEach(async () => {
  for (const log of logs.splice(0)) await log.database.close({ merge: false });
  for (const app of apps.splice(0)) {
    app.kill();
    await app.ended;
  }
  dir.remove();
});

const rows = (n: number, size = 1000): string =>
  `for i in range(${n}): db.execute("insert into t values(randomblob(${size}))")\n`;

async function begin(pages: Buffer[] = [], limits = {}): Promise<MemoryLog> {
  const log = await MemoryLog.begin(path, { limits }, pages);
  logs.push(log);
  return log;
}

async function end(log: MemoryLog): Promise<void> {
  await log.flush();
  await log.database.close();
  logs.splice(logs.indexOf(log), 1);
}

/** The log's content must be the file's, after a clean close. */
async function expectEqual(log: MemoryLog): Promise<void> {
  await end(log);
  await log.idle();
  expect(log.bytes.equals(readFileSync(path))).toBe(true);
}

test("begins a log with the whole database as (0, 1), and names commits in the epoch", async () => {
  const log = await begin();
  expect(log.records[0]).toMatchObject({ txid: 1, epoch: 1, position: position(0, 1) });
  await runPythonBeside(path, rows(3));
  expect(log.database.captureNow()).toBe(position(1, 3));
  const batch = await log.database.freeze();
  expect(batch).toMatchObject({ txid: 2, epoch: 1, position: position(1, 3) });
  expect(await log.database.freeze()).toBeUndefined();
  await runPythonBeside(path, rows(1));
  expect(log.database.captureNow()).toBe(position(1, 4));
  await log.flush();
  expect(await log.checksum()).toBe(log.records.at(-1)!.checksum);
  await expectEqual(log);
});

test("tells of each capture and each batch", async () => {
  const log = await begin();
  const seen: bigint[] = [];
  log.database.onCaptured = (p) => void seen.push(p);
  await runPythonBeside(path, rows(1));
  await until(() => seen.at(-1) === position(1, 1), "the capture");
  await log.flush();
  expect(log.records.map((batch) => batch.txid)).toEqual([1, 2]);
});

test("a clean close leaves the file alone, and the next start knows it is in step without reading it", async () => {
  const log = await begin();
  await runPythonBeside(path, rows(50));
  await expectEqual(log);
  expect(existsSync(`${path}-wal`)).toBe(false);
  expect(existsSync(`${path}-shm`)).toBe(false);
  const next = await begin(log.pages);
  expect(next.events).toContainEqual({ type: "recovered", how: "in-step", detail: "0 commits since the last batch" });
  expect(next.records).toEqual([expect.objectContaining({ epoch: 3, txid: 3, position: position(1, 50) })]);
  await expectEqual(next);
});

test("commits made while Sluice was away are found: by the WAL when it is whole, by pages when it was merged", async () => {
  const log = await begin();
  await runPythonBeside(path, rows(5));
  await end(log);
  await runPythonBeside(path, rows(5));
  const next = await begin(log.pages);
  expect(next.events[0]).toMatchObject({ type: "recovered", how: "changed" });
  expect(next.records[0]!.position).toBeGreaterThan(position(1, 5));
  await expectEqual(next);
});

test("killed with commits captured and not sealed: they are found in the WAL, each with its name", async () => {
  const log = await begin();
  const keeper = startApp("writer", path, "--commits", 1, "--sleep", 30);
  apps.push(keeper);
  await until(() => log.database.position > position(1, 0), "a commit");
  await runPythonBeside(path, rows(5));
  await log.flush();
  const sealed = log.database.position;
  await runPythonBeside(path, rows(7));
  const before = log.database.captureNow();
  // The same as a kill: nothing is written any more, locks and descriptors go.
  await log.database.close({ merge: false });
  const next = await MemoryLog.open(path, {}, log.pages);
  logs.push(next);
  expect(next.events[0]).toMatchObject({ how: "in-step", detail: "7 commits since the last batch" });
  expect(next.database.position).toBe(before);
  expect(before).toBe(sealed + 7n);
  await next.takeOver();
  expect(next.records[0]).toMatchObject({ position: before });
  apps[0]!.kill();
  await apps[0]!.ended;
  await expectEqual(next);
});

test("batches that were not confirmed are sent again by the next life, unchanged", async () => {
  const log = await begin();
  log.confirming = false;
  await runPythonBeside(path, rows(5));
  await log.database.freeze();
  await runPythonBeside(path, rows(5));
  await log.database.freeze();
  const { frozen } = log.database;
  expect(frozen.map((batch) => batch.txid)).toEqual([2, 3]);
  const bytes = frozen.map((batch) => readFileSync(batch.path));
  await log.database.close();
  const next = await MemoryLog.open(path, {}, log.pages);
  logs.push(next);
  expect(next.database.frozen).toEqual(frozen);
  expect(next.database.frozen.map((batch) => readFileSync(batch.path))).toEqual(bytes);
  await next.takeOver();
  expect(next.records[0]).toMatchObject({ txid: 4 });
  await expectEqual(next);
});

test("while the store is away the last batch takes in what comes, and nothing is lost by it", async () => {
  const log = await begin();
  log.confirming = false;
  for (let i = 0; i < 30; i++) {
    await runPythonBeside(path, rows(2) + `db.execute("delete from t where rowid = ${i}")`);
    await log.database.freeze();
  }
  const { frozen } = log.database;
  expect(log.records.at(-1)).toEqual(frozen.at(-1));
  expect(frozen.map((batch) => batch.txid)).toEqual(Array.from({ length: 24 }, (_, i) => i + 2));
  expect(frozen.at(-1)!.position).toBe(log.database.position);
  const seq = log.database.position;
  // Killed after the file of the last slot was replaced, and before the state said so.
  const state = readFileSync(`${log.database.stateDir}/state`);
  await runPythonBeside(path, rows(2));
  await log.database.freeze();
  await log.database.close({ merge: false });
  writeFileSync(`${log.database.stateDir}/state`, state);
  const next = await MemoryLog.open(path, {}, log.pages);
  logs.push(next);
  expect(next.database.frozen.at(-1)!.position).toBe(seq + 2n);
  await next.takeOver();
  await expectEqual(next);
});

test.each([
  ["gone", (file: string) => unlinkSync(file)],
  ["cut", (file: string) => truncateSync(file, 150)],
  ["another's", (file: string) => writeFileSync(file, Buffer.alloc(200, 1))],
])("a batch whose local file is %s is made again from the database", async (_name, damage) => {
  const log = await begin();
  log.confirming = false;
  for (let i = 0; i < 3; i++) {
    await runPythonBeside(path, rows(2));
    await log.database.freeze();
  }
  damage(log.database.frozen[1]!.path);
  await log.database.close({ merge: false });
  const next = await MemoryLog.open(path, {}, log.pages);
  logs.push(next);
  expect(next.database.frozen.map((batch) => batch.txid)).toEqual([2]);
  expect(next.events[0]).toMatchObject({ how: "unknown" });
  await next.takeOver();
  expect(next.records[0]!.position).toBeGreaterThan(position(1, 6));
  await expectEqual(next);
});

test("a WAL whose end was lost and written anew under the same salts is not taken for what was sealed", async () => {
  const log = await begin();
  // Somebody keeps it open, so that the WAL stays what it is.
  await runPythonBeside(path, rows(5));
  const kept = ["", "-wal"].map((end) => readFileSync(path + end));
  await runPythonBeside(path, rows(5));
  await log.flush();
  await log.database.close({ merge: false });
  for (const end of ["-wal", "-shm"]) rmSync(path + end, { force: true });
  ["", "-wal"].forEach((end, i) => writeFileSync(path + end, kept[i]!));
  const app = startPython(path, `${rows(5)}print("ready"); sys.stdin.readline()`);
  apps.push(app);
  await until(() => readFileSync(`${path}-wal`).length > kept[1]!.length + 20_000, "the new commits");
  const next = await begin(log.pages);
  expect(next.events[0]).toMatchObject({ how: "changed" });
  app.kill();
  await app.ended;
  await expectEqual(next);
});

test("a database that grows past 1 GiB: the lock page is in no batch, and reads as zeros", async () => {
  // The file is sparse: its header says that it has 16,380 pages of 64 KiB, of which all but a few are empty.
  rmSync(path);
  const sparse = `${path}.new`;
  runPython(sparse, `db.execute("pragma page_size=65536"); db.execute("create table t(a)")`);
  const bytes = readFileSync(sparse);
  bytes.writeUInt32BE(16_380, 28);
  writeFileSync(path, bytes);
  truncateSync(path, 16_380 * 65_536);
  const log = await MemoryLog.open(path);
  logs.push(log);
  log.confirming = false;
  await runPythonBeside(path, rows(20, 60_000));
  log.database.captureNow();
  expect(log.database.pageCount).toBeGreaterThan(16_390);
  await log.database.bindLog({ logId: "log", nodeId: "node" });
  const batch = await log.database.freezeTakeover({ txid: 1, writer: 3n, minTimestampMs: 0 });
  await log.database.confirm(1);
  await log.database.begin(1, 3n);
  const pages: number[] = [];
  await readLocal(log.database.stateDir, batch.txid, { page: (pgno) => void (pgno > 16_370 && pages.push(pgno)) });
  expect(pages).toContain(16_384);
  expect(pages).not.toContain(16_385);
  expect(pages).toContain(16_386);
  const snapshot = await log.database.snapshot();
  const three = Buffer.alloc(3 * 65_536, 1);
  await snapshot.read(16_384, three);
  expect(three.subarray(65_536, 131_072).every((byte) => byte === 0)).toBe(true);
  expect(three.subarray(131_072).some((byte) => byte !== 0)).toBe(true);
  snapshot.release();
});

test("commits that a power loss took from the WAL are put back from the local batches", async () => {
  const log = await begin();
  await runPythonBeside(path, rows(5));
  await log.flush();
  const kept = ["", "-wal"].map((end) => readFileSync(path + end));
  log.confirming = false;
  await runPythonBeside(path, rows(5));
  await log.database.freeze();
  const { position: sealed } = log.database;
  await log.database.close({ merge: false });
  // The files as they were when the disk saw them last, and another boot.
  for (const end of ["-wal", "-shm"]) rmSync(path + end, { force: true });
  ["", "-wal"].forEach((end, i) => writeFileSync(path + end, kept[i]!));
  const file = new StateFile(log.database.stateDir);
  await file.write({ ...file.state!, bootId: "before" });
  file.close();
  const next = await MemoryLog.open(path, {}, log.pages);
  logs.push(next);
  expect(next.events.map((event) => (event.type === "recovered" ? event.how : event.type))).toEqual([
    "behind",
    "in-step",
  ]);
  expect(next.database.position).toBe(sealed);
  expect(runPython(path, "print(db.execute('select count(*) from t').fetchone()[0])")).toBe("10");
  await next.takeOver();
  await expectEqual(next);
});

test("who began an epoch counts as its writer until its machine has booted again", async () => {
  const log = await begin();
  await runPythonBeside(path, rows(2));
  await log.database.close({ merge: false });
  const file = new StateFile(log.database.stateDir);
  const { writer } = file.state!;
  const again = await Replica.open(path);
  expect(again.wrote(writer)).toBe(true);
  await again.close({ merge: false });
  // What its members had may be gone from this disk.
  await file.write({ ...file.state!, bootId: "before" });
  file.close();
  const later = await Replica.open(path);
  expect(later.wrote(writer)).toBe(false);
  await later.close();
});

test("a file with another page size in its place is refused, and neither the log nor the file is touched", async () => {
  const log = await begin();
  await runPythonBeside(path, rows(2));
  await end(log);
  rmSync(path);
  runPython(
    path,
    `db.execute("pragma page_size=1024"); db.execute("pragma journal_mode=wal"); db.execute("create table u(a)")`,
  );
  await expect(Database.open(path)).rejects.toMatchObject({ code: "SLU-2015" });
  expect(
    runPython(
      path,
      "print(db.execute('pragma locking_mode=exclusive').fetchone(), db.execute('select * from u').fetchall())",
    ),
  ).toMatch(/\[\]/);
});

test("another database of the same page size in its place is taken for a change of every page that differs", async () => {
  const log = await begin();
  await runPythonBeside(path, rows(20));
  await end(log);
  rmSync(path);
  runPython(
    path,
    `db.execute("pragma journal_mode=wal"); db.execute("create table u(a)")\nfor i in range(5): db.execute("insert into u values(randomblob(5000))")`,
  );
  const next = await begin(log.pages);
  expect(next.events[0]).toMatchObject({ how: "changed" });
  await expectEqual(next);
});

test("a claim that was refused puts its pages back, and commits made meanwhile get their names after it", async () => {
  const log = await MemoryLog.open(path);
  logs.push(log);
  log.confirming = false;
  const { database } = log;
  await database.bindLog({ logId: "log", nodeId: "node" });
  await runPythonBeside(path, rows(2));
  const first = await database.freezeTakeover({ txid: 1, writer: 5n, minTimestampMs: 0 });
  await runPythonBeside(path, rows(2));
  expect(database.captureNow()).toBe(first.position);
  await expect(database.freeze()).rejects.toMatchObject({ code: "SLU-2000" });
  await database.abandonTakeover(1);
  expect(database.frozen).toEqual([]);
  log.confirming = true;
  await log.takeOver();
  await runPythonBeside(path, rows(2));
  expect(database.captureNow()).toBe(position(1, 2));
  await expectEqual(log);
});

test("commits made while a claim is under way are named in the epoch that it begins", async () => {
  const log = await begin();
  await runPythonBeside(path, rows(2));
  await log.flush();
  const { database } = log;
  const claim = await database.freezeTakeover({ txid: 3, writer: 11n, minTimestampMs: 0 });
  expect(claim.position).toBe(position(1, 2));
  await runPythonBeside(path, rows(4));
  expect(database.captureNow()).toBe(claim.position);
  await log.settle();
  expect(database.captureNow()).toBe(claim.position);
  const seen: bigint[] = [];
  database.onCaptured = (p) => void seen.push(p);
  await database.begin(3, 11n);
  expect(seen).toEqual([position(3, 4)]);
  await expectEqual(log);
  expect(log.records.at(-1)).toMatchObject({ txid: 4, epoch: 3, position: position(3, 4) });
});

test("a claim that was not decided when Sluice was killed is frozen still", async () => {
  const log = await begin();
  await end(log);
  const second = await MemoryLog.open(path, {}, log.pages);
  second.confirming = false;
  const claim = await second.database.freezeTakeover({ txid: 3, writer: 9n, minTimestampMs: 0 });
  await runPythonBeside(path, rows(4));
  second.database.captureNow();
  await second.database.close({ merge: false });
  const third = await MemoryLog.open(path, {}, log.pages);
  logs.push(third);
  expect(third.database.frozen).toEqual([claim]);
  await third.takeOver();
  expect(third.records.map((batch) => batch.txid)).toEqual([4]);
  await expectEqual(third);
});

test("a snapshot is the state at its cut while writers go on, and is given up past its limits", async () => {
  const log = await begin([], { backfillFrames: 50, restartBytes: 400_000, snapshotBytes: 3_000_000 });
  await runPythonBeside(path, rows(300));
  const snapshot = await log.database.snapshot();
  await log.idle();
  const image = log.bytes;
  expect(snapshot).toMatchObject({ epoch: 1, pageCount: log.pages.length, position: position(1, 300) });
  await runPythonBeside(path, rows(100) + `db.execute("delete from t where rowid % 2"); db.execute("vacuum")`);
  log.database.captureNow();
  const whole = Buffer.alloc(snapshot.pageCount * 4096);
  await snapshot.read(1, whole);
  expect(whole.equals(image)).toBe(true);
  expect(snapshot.checksum).toBe(log.records.findLast((batch) => batch.txid === snapshot.txid)!.checksum);
  snapshot.release();
  const second = await log.database.snapshot();
  await runPythonBeside(path, rows(2000, 4000));
  log.database.captureNow();
  expect(second.signal.aborted).toBe(true);
  await expect(second.read(1, whole)).rejects.toMatchObject({ code: "SLU-2012" });
  const size = (): number => statSync(path).size;
  await until(() => size() > 4_000_000, "the backfill to go on");
  await expectEqual(log);
});

test("sealed batches add up to the database under a storm of writers, with backfills and restarts", async () => {
  runApp("storm", path, "--create");
  const log = await begin([], { backfillFrames: 100, restartBytes: 1e6, hardBytes: 1e7 });
  const timer = setInterval(() => void log.flush().catch(() => undefined), 150);
  const storms = [1, 2].map((seed) => startApp("storm", path, "--seed", seed, "--seconds", 3));
  apps.push(...storms);
  for (const storm of storms) expect(await storm.ended).toMatchObject({ code: 0 });
  clearInterval(timer);
  expect(log.events.filter((event) => event.type === "failed" || event.type === "lost")).toEqual([]);
  await log.flush();
  expect(await log.checksum()).toBe(log.records.at(-1)!.checksum);
  await expectEqual(log);
});

test("a second opening of an open database is refused; after the close everything is refused", async () => {
  const log = await begin();
  await expect(Database.open(path, { limits: { openMs: 200 } })).rejects.toMatchObject({ code: "SLU-2003" });
  await end(log);
  expect(() => log.database.captureNow()).toThrow(expect.objectContaining({ code: "SLU-2013" }));
  expect(() => log.database.freeze()).toThrow(expect.objectContaining({ code: "SLU-2013" }));
});

test("what is committed while a takeover is under way isn't confirmed, although the position stays", async () => {
  const database = await Database.open(path);
  await database.bindLog({ logId: "l", nodeId: "n" });
  await database.freezeTakeover({ txid: 1, writer: 5n, minTimestampMs: 0 });
  await database.confirm(1);
  expect(database.isConfirmed).toBe(true);
  await database.begin(1, 5n);
  await database.freezeTakeover({ txid: 2, writer: 6n, minTimestampMs: 0 });
  await runPythonBeside(path, rows(1));
  await database.close();
  expect(database.position).toBe(database.logState!.confirmed.position);
  expect(database.isConfirmed).toBe(false);
});

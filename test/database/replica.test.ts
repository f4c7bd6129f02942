import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Database } from "../../src/database/database.ts";
import type { DatabaseEvent } from "../../src/database/events.ts";
import type { DatabaseLimits } from "../../src/database/limits.ts";
import { PageSums } from "../../src/database/page-sums.ts";
import { Replica } from "../../src/database/replica.ts";
import { seedState } from "../../src/database/seed.ts";
import { lockPage } from "../../src/ltx/header.ts";
import { PageSum } from "../../src/ltx/page-sum.ts";
import { position } from "../../src/ltx/position.ts";
import { runPython, scratch, startPython } from "./apps.ts";
import { type PageSet, Source } from "./page-sets.ts";

const PAGE = 4096;
const limits: Partial<DatabaseLimits> = { backfillFrames: 50, restartBytes: 200 * PAGE, hardBytes: 3000 * PAGE };
let dir: ReturnType<typeof scratch>;
let path: string;
let source: Source;
let replica: Replica | undefined;
let database: Database | undefined;
let events: DatabaseEvent[] = [];
beforeEach(async () => {
  dir = scratch("replica");
  path = dir.path("replica.db");
  events = [];
  source = new Source(
    dir.path("source.db"),
    PAGE,
    "create table t(i integer primary key, x); insert into t values(1, 'a')",
  );
  writeFileSync(path, source.bytes);
  const sums = sumsOf(source.bytes);
  await seedState(`${dir.path("")}/.replica.db-sluice`, {
    logId: "log",
    nodeId: "node",
    txid: 7,
    position: position(3, 9),
    epoch: 3,
    timestampMs: 1000,
    checksum: sums.checksum,
    pageCount: sums.count,
    sums: sums.words,
  });
  replica = await open();
});
afterEach(async () => {
  await replica?.close();
  await database?.close();
  replica = database = undefined;
  source.close();
  dir.remove();
});

function open(): Promise<Replica> {
  return Replica.open(path, { limits, onEvent: (event) => events.push(event) });
}

function sumsOf(bytes: Buffer): PageSums {
  const sums = new PageSums();
  sums.resize(bytes.length / PAGE);
  const sum = new PageSum(PAGE);
  for (let page = 1; page <= sums.count; page++) {
    if (page === lockPage(PAGE)) continue;
    sum.of(page, bytes, (page - 1) * PAGE, page * PAGE);
    sums.set(page, sum.lo, sum.hi);
  }
  return sums;
}

/** The change to the source's present state. */
async function apply(to: Replica, set: PageSet): Promise<void> {
  const before = to.position!;
  const { checksum } = sumsOf(source.bytes);
  const head = { before, position: before + 1n, pageCount: set.pageCount, checksum, pages: set.numbers.length };
  const change = await to.change(head);
  change.pages(set);
  await change.commit();
}

async function commit(to: Replica, sql: string): Promise<void> {
  source.db.exec(sql);
  const [set] = source.take();
  await apply(to, set!);
}

function read(sql: string): unknown {
  return JSON.parse(runPython(path, `import json; print(json.dumps(db.execute(${JSON.stringify(sql)}).fetchall()))`));
}

test("changes are seen by other processes; writers are refused; the checksum is kept", async () => {
  for (let i = 0; i < 300; i++) await commit(replica!, `insert into t(x) values(hex(randomblob(500)))`);
  expect(read("select count(*) from t")).toEqual([[301]]);
  expect(replica!.position).toBe(position(3, 309));
  expect(replica!.checksum).toBe(sumsOf(source.bytes).checksum);
  expect(() =>
    runPython(path, "db.execute('pragma busy_timeout=50'); db.execute('insert into t(x) values(1)')"),
  ).toThrow(/locked/);
  await expect.poll(() => events.some(({ type }) => type === "wal-restarted")).toBe(true);
  await commit(replica!, "delete from t where i > 10");
  await commit(replica!, "vacuum");
  expect(read("pragma integrity_check")).toEqual([["ok"]]);
  expect(read("select count(*) from t")).toEqual([[10]]);
});

test("a change with another checksum, or pages missing, is not shown", async () => {
  source.db.exec("insert into t(x) values('b')");
  const [set] = source.take();
  const head = { before: replica!.position!, position: position(3, 10), pageCount: set!.pageCount, checksum: 1n };
  const wrong = await replica!.change({ ...head, pages: set!.numbers.length });
  wrong.pages(set!);
  await expect(wrong.commit()).rejects.toMatchObject({ code: "SLU-2019" });
  const short = await replica!.change({ ...head, checksum: sumsOf(source.bytes).checksum, pages: set!.numbers.length });
  await expect(short.commit()).rejects.toMatchObject({ code: "SLU-2019" });
  expect(read("select count(*) from t")).toEqual([[1]]);
  await apply(replica!, set!);
  expect(read("select count(*) from t")).toEqual([[2]]);
});

test("after a clean stop and after a kill the position is known again, and goes on", async () => {
  for (const merge of [true, false, true, false]) {
    for (let i = 0; i < 20; i++) await commit(replica!, "insert into t(x) values(hex(randomblob(500)))");
    const { position: before, checksum } = replica!;
    await replica!.close({ merge });
    replica = await open();
    expect(replica.position).toBe(before);
    expect(replica.checksum).toBe(checksum);
  }
});

test("where the pages are none of the journal's states the position is unknown, and a resync helps", async () => {
  await commit(replica!, "insert into t(x) values(hex(randomblob(500)))");
  await replica!.close();
  const alone = new Sqlite(path);
  alone.exec("insert into t(x) values('stray')");
  alone.close();
  replica = await open();
  expect(replica.position).toBeUndefined();
  const wanted = sumsOf(source.bytes);
  const record = { txid: 9, epoch: 4, position: position(4, 1), timestampMs: 2000 };
  const head = { before: 0n, position: position(4, 1), pageCount: wanted.count, checksum: wanted.checksum };
  const change = await replica.resync({ ...head, pages: wanted.count }, record, { quarantine: true });
  const content = source.bytes;
  const numbers = Uint32Array.from({ length: wanted.count }, (_, i) => i + 1);
  change.pages({ numbers, content });
  await change.commit();
  expect(replica.position).toBe(position(4, 1));
  expect(replica.epoch).toBe(4);
  expect(read("select count(*) from t where x = 'stray'")).toEqual([[0]]);
  expect(readdirSync(join(replica.stateDir, "quarantine"))).toHaveLength(1);
  await commit(replica, "insert into t(x) values('after')");
  expect(read("select count(*) from t where x = 'after'")).toEqual([[1]]);
});

test("a replica becomes a primary and a replica again without closing anything", async () => {
  const record = { txid: 8, epoch: 3, position: position(3, 12), timestampMs: 2000 };
  for (let i = 0; i < 5; i++) await commit(replica!, "insert into t(x) values('r')");
  await replica!.sealed(record);
  database = await Database.of(replica!.handOver());
  replica = undefined;
  expect(database.position).toBe(position(3, 14));
  const batch = await database.freezeTakeover({ txid: 9, writer: 77n, minTimestampMs: 0 });
  expect(batch.position).toBe(position(3, 14));
  await database.confirm(9);
  await database.begin(9, 77n);
  database.openGate();
  expect(read("select count(*) from t where x = 'r'")).toEqual([[5]]);
  runPython(path, "db.execute(\"insert into t(x) values('p')\")");
  expect(database.captureNow()).toBe(position(9, 1));
  await database.freeze();
  runPython(path, "db.execute(\"insert into t(x) values('p')\")");
  await expect.poll(() => database!.closeGate()).toBe(true);
  const taken = database.captureNow();
  replica = await Replica.of(await database.handOver());
  database = undefined;
  expect(replica.position).toBe(taken);
  expect(replica.record).toMatchObject({ txid: 9 });
  expect(() =>
    runPython(path, "db.execute('pragma busy_timeout=50'); db.execute('insert into t(x) values(1)')"),
  ).toThrow(/locked/);
  await replica.close({ merge: false });
  replica = await open();
  expect(replica.position).toBe(taken);
  expect(read("select count(*) from t where x = 'p'")).toEqual([[2]]);
});

test("killed between two roles, the next start knows where it is", async () => {
  for (let i = 0; i < 5; i++) await commit(replica!, "insert into t(x) values('r')");
  const { position: before } = replica!;
  database = await Database.of(replica!.handOver());
  replica = undefined;
  await database.close({ merge: false });
  database = await Database.open(path, { limits, gate: "closed" });
  expect(database.position).toBe(before);
  await database.freezeTakeover({ txid: 8, writer: 77n, minTimestampMs: 0 });
  await database.close({ merge: false });
  database = undefined;
  replica = await open();
  expect(replica.position).toBe(before);
});

test("a connection that was refused on the replica writes after the promotion, without being opened anew", async () => {
  const app = startPython(
    path,
    `
import sys
db.execute("pragma busy_timeout=50")
for line in sys.stdin:
    try:
        db.execute("insert into t(x) values(?)", (line.strip(),))
        print("wrote", line.strip())
    except Exception as e:
        print("refused", line.strip(), e)
`,
  );
  let output = "";
  app.process.stdout!.on("data", (data: Buffer) => (output += data.toString()));
  try {
    app.process.stdin!.write("early\n");
    await expect.poll(() => output, { timeout: 10_000 }).toContain("refused early database is locked");
    database = await Database.of(replica!.handOver());
    replica = undefined;
    await database.freezeTakeover({ txid: 8, writer: 77n, minTimestampMs: 0 });
    await database.confirm(8);
    await database.begin(8, 77n);
    database.openGate();
    app.process.stdin!.write("late\n");
    await expect.poll(() => output, { timeout: 10_000 }).toContain("wrote late");
    expect(database.captureNow()).toBe(position(8, 1));
  } finally {
    app.process.stdin!.end();
    await app.ended;
  }
});

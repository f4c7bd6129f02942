import { readFileSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Database } from "../../src/database/database.ts";
import type { DatabaseLimits } from "../../src/database/limits.ts";
import { Replica } from "../../src/database/replica.ts";
import { seedState } from "../../src/database/seed.ts";
import { isSluiceError } from "../../src/errors/error.ts";
import { differingPages } from "../../src/log/place.ts";
import type { RecordName } from "../../src/database/replication.ts";
import { PageSums } from "../../src/database/page-sums.ts";
import { PageSum } from "../../src/ltx/page-sum.ts";
import { position } from "../../src/ltx/position.ts";
import { runApp, runPythonBeside, scratch, startApp, until } from "./apps.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
let primary: Database | undefined;
const replicas: Replica[] = [];
beforeEach(() => {
  dir = scratch("feed");
  path = dir.path("primary.db");
});
afterEach(async () => {
  for (const replica of replicas.splice(0)) await replica.close({ merge: false });
  await primary?.close({ merge: false });
  primary = undefined;
  dir.remove();
});

const seed = Number(process.env["SLUICE_TEST_SEED"] ?? Math.floor(Math.random() * 1e6));

/** A primary in its first epoch, with an open gate and a feed. */
async function lead(limits: Partial<DatabaseLimits>): Promise<Database> {
  const database = await Database.open(path, { limits, gate: "closed" });
  await database.bindLog({ logId: "log", nodeId: "node" });
  await database.freezeTakeover({ txid: 1, writer: 1n, minTimestampMs: 0 });
  await database.confirm(1);
  await database.begin(1, 1n);
  database.feed();
  database.openGate();
  return database;
}

function recordOf(database: Database): RecordName {
  const { confirmed } = database.logState!;
  return { ...confirmed, epoch: 1 };
}

/** A replica that has the primary's database as it is on disk, before anybody writes. */
async function replicaOf(database: Database, name: string, limits: Partial<DatabaseLimits>): Promise<Replica> {
  const file = dir.path(`${name}.db`);
  const source = await database.resyncSource();
  const numbers = Uint32Array.from({ length: source.head.pageCount }, (_, i) => i + 1);
  const content = await source.read(numbers);
  writeFileSync(file, content);
  const { record } = source;
  await seedState(dir.path(`.${name}.db-sluice`), {
    ...record,
    logId: "log",
    nodeId: name,
    checksum: source.head.checksum,
    pageCount: source.head.pageCount,
    sums: source.sums,
  });
  source.release();
  const replica = await Replica.open(file, { limits });
  replicas.push(replica);
  return replica;
}

/** Follows until the primary's position is `until`'s; how often it had to compare pages. */
async function follow(
  database: Database,
  replica: Replica,
  oneByOne: () => number,
  until: () => boolean,
): Promise<number> {
  const feed = database.feed();
  let resyncs = 0;
  for (;;) {
    const position = replica.position!;
    if (position === feed.position) {
      if (until()) return resyncs;
      await sleep(1);
      continue;
    }
    try {
      if (!feed.has(position)) {
        resyncs++;
        await resync(database, replica);
        continue;
      }
      const change = feed.after(position, oneByOne())!;
      const incoming = await replica.change(change.head);
      try {
        for (let chunk = change.next(); chunk !== undefined; chunk = change.next()) {
          incoming.pages(chunk);
          await new Promise(setImmediate);
        }
        await incoming.commit();
      } finally {
        incoming.abort();
      }
    } catch (error) {
      if (!isSluiceError(error, "SLU-2018")) throw error;
    }
  }
}

async function resync(database: Database, replica: Replica): Promise<void> {
  const source = await database.resyncSource();
  try {
    const differing = differingPages(replica.sums, source.sums, source.head.pageCount);
    const numbers = differing.length === 0 ? Uint32Array.of(1) : differing;
    const head = { ...source.head, pages: numbers.length };
    const incoming = await replica.resync(head, source.record, { quarantine: false });
    for (let at = 0; at < numbers.length; at += 100) {
      const some = numbers.subarray(at, at + 100);
      incoming.pages({ numbers: some, content: await source.read(some) });
    }
    await incoming.commit();
  } finally {
    source.release();
  }
}

/** Writers, restarts of the WAL, and two replicas; throws unless all three are one database at the end. */
async function storm(options: {
  readonly pageSize: number;
  readonly seconds: number;
  readonly more?: string[];
}): Promise<number> {
  const { pageSize, seconds, more = [] } = options;
  runApp("storm", path, "--create", "--page-size", pageSize, ...more);
  const limits = { backfillFrames: 60, restartBytes: 400 * pageSize, hardBytes: 3000 * pageSize };
  primary = await lead(limits);
  const database = primary;
  const fast = await replicaOf(database, "fast", limits);
  const slow = await replicaOf(database, "slow", limits);
  const end = new AbortController();
  const writer = startApp("storm", path, "--seed", seed, "--seconds", seconds, ...more);
  const following = Promise.all([
    follow(
      database,
      fast,
      () => 8,
      () => end.signal.aborted,
    ),
    (async () => {
      let resyncs = 0;
      let turn = 0;
      while (!end.signal.aborted) {
        // Behind by then, it gets several commits as one step, or has to compare pages.
        await sleep(turn++ % 5 === 0 ? 150 : 3);
        resyncs += await follow(
          database,
          slow,
          () => turn % 3,
          () => true,
        );
      }
      return (
        resyncs +
        (await follow(
          database,
          slow,
          () => 1,
          () => true,
        ))
      );
    })(),
  ]);
  const sealing = (async () => {
    while (!end.signal.aborted) {
      await sleep(50);
      await database.freeze();
      while (database.frozen.length > 0) await database.confirm(database.frozen[0]!.txid);
    }
  })();
  const { code, output } = await writer.ended;
  database.captureNow();
  end.abort();
  expect(`${code} ${code === 0 ? "" : output}`).toBe("0 ");
  await sealing;
  const [, resyncs] = await following;
  const image = await imageOf(database);
  for (const replica of [fast, slow]) {
    expect(replica.position).toBe(database.position);
    expect(replica.checksum).toBe(database.feed().checksum);
    await replica.sealed(recordOf(database));
    await replica.close();
    expect(readFileSync(replica.path).equals(image)).toBe(true);
  }
  replicas.length = 0;
  return resyncs;
}

async function imageOf(database: Database): Promise<Buffer> {
  const source = await database.resyncSource();
  const numbers = Uint32Array.from({ length: source.head.pageCount }, (_, i) => i + 1);
  const content = Buffer.from(await source.read(numbers));
  source.release();
  return content;
}

test(`two replicas of different speed are the primary, page for page (seed ${seed})`, async () => {
  await expect(storm({ pageSize: 4096, seconds: 4 })).resolves.toBeGreaterThanOrEqual(0);
});

test(`the same with auto_vacuum and small pages (seed ${seed})`, async () => {
  await expect(storm({ pageSize: 512, seconds: 3, more: ["--auto-vacuum", "full"] })).resolves.toBeGreaterThanOrEqual(
    0,
  );
});

const INSERT = `db.execute("insert into total values(1, 1)")`;

test("commits behind a takeover that isn't decided are shown when they have their names", async () => {
  runApp("storm", path, "--create");
  primary = await lead({});
  const feed = primary.feed();
  const moves: bigint[] = [];
  feed.onMoved(() => moves.push(feed.position));
  await primary.freezeTakeover({ txid: 2, writer: 2n, minTimestampMs: 0 });
  const before = primary.position;
  await runPythonBeside(path, INSERT);
  expect(primary.captureNow()).toBe(before);
  expect(feed.after(before, 1)).toBeUndefined();
  await primary.confirm(2);
  await primary.begin(2, 2n);
  expect(primary.position).toBe(position(2, 1));
  expect(moves).toEqual([position(2, 1)]);
  expect(feed.after(before, 1)!.head.position).toBe(position(2, 1));
  // The same where it lost, and the epoch before goes on.
  await primary.freezeTakeover({ txid: 3, writer: 3n, minTimestampMs: 0 });
  await runPythonBeside(path, INSERT);
  primary.captureNow();
  await primary.abandonTakeover(3);
  expect(primary.position).toBe(position(2, 2));
  expect(moves).toEqual([position(2, 1), position(2, 2)]);
});

test("a picture for comparing stands while commits go on; several at once; none before an epoch", async () => {
  runApp("storm", path, "--create");
  const early = await Database.open(path);
  await expect(early.resyncSource()).rejects.toThrow(expect.objectContaining({ code: "SLU-2000" }));
  expect(() => early.feed()).toThrow(expect.objectContaining({ code: "SLU-2000" }));
  await early.close();
  const limits = { backfillFrames: 20, restartBytes: 4e5, hardBytes: 4e6, snapshotBytes: 2e6 };
  const database = (primary = await lead(limits));
  await runPythonBeside(path, `db.execute("insert into item(body) values(randomblob(100000))")`);
  const first = await database.resyncSource();
  await runPythonBeside(path, INSERT);
  const second = await database.resyncSource();
  expect(second.head.position).toBeGreaterThan(first.head.position);
  // Far more than the WAL may be long: with a picture it is neither merged nor begun anew.
  await runPythonBeside(path, `for i in range(100): db.execute("update item set body = randomblob(10000)")`);
  database.captureNow();
  for (const source of [first, second]) {
    const { head, sums } = source;
    expect(new PageSums(sums.slice(), head.pageCount).checksum).toBe(head.checksum);
    const numbers = Uint32Array.from({ length: head.pageCount }, (_, i) => i + 1);
    const all = await source.read(numbers);
    const differing = differingPages(sums, sumsOf(all, database.pageSize), head.pageCount);
    expect([...differing]).toEqual([]);
    const some = Uint32Array.of(1, 2, 5, head.pageCount);
    const pages = Array.from(some, (page) => all.subarray((page - 1) * 4096, page * 4096));
    expect(Buffer.concat(pages).equals(await source.read(some))).toBe(true);
  }
  first.release();
  expect(second.signal.aborted).toBe(false);
  // Past its bound it is given up, not the writers.
  await runPythonBeside(path, `db.execute("insert into item(body) values(randomblob(2100000))")`);
  database.captureNow();
  expect(second.signal.aborted).toBe(true);
  await expect(second.read(Uint32Array.of(1))).rejects.toThrow(expect.objectContaining({ code: "SLU-2012" }));
  second.release();
  await until(() => database.walBytes < 4e5, "the WAL begins anew", 30_000);
});

function sumsOf(content: Uint8Array, pageSize: number): Int32Array {
  const sum = new PageSum(pageSize);
  const sums = new Int32Array((2 * content.length) / pageSize);
  for (let i = 0; i < sums.length / 2; i++) {
    sum.of(i + 1, content, i * pageSize, (i + 1) * pageSize);
    sums.set([sum.lo, sum.hi], 2 * i);
  }
  return sums;
}

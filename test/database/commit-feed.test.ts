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
import { runApp, scratch, startApp } from "./apps.ts";

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

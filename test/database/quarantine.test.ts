import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { seedState } from "../../src/database/seed.ts";
import type { PageView } from "../../src/database/page-view.ts";
import { PageSums } from "../../src/database/page-sums.ts";
import { quarantinePages } from "../../src/database/quarantine.ts";
import { quarantined, quarantineSize } from "../../src/database/quarantined.ts";
import { Replica } from "../../src/database/replica.ts";
import { extractQuarantined } from "../../src/cluster/quarantine-extract.ts";
import { PageSum } from "../../src/ltx/page-sum.ts";
import { position } from "../../src/ltx/position.ts";
import { scratch } from "./apps.ts";
import { type PageSet, Source } from "./page-sets.ts";

const PAGE = 1024;
const SCHEMA = "create table t(i integer primary key, x); insert into t values(1, 'a')";
let dir: ReturnType<typeof scratch>;
let source: Source;
let replica: Replica | undefined;
beforeEach(() => {
  dir = scratch("quarantine");
  source = new Source(dir.path("source.db"), PAGE, SCHEMA);
});
afterEach(async () => {
  await replica?.close();
  replica = undefined;
  source.close();
  dir.remove();
});

function sumsOf(bytes: Buffer): PageSums {
  const sums = new PageSums();
  sums.resize(bytes.length / PAGE);
  const sum = new PageSum(PAGE);
  for (let page = 1; page <= sums.count; page++) {
    sum.of(page, bytes, (page - 1) * PAGE, page * PAGE);
    sums.set(page, sum.lo, sum.hi);
  }
  return sums;
}

/** A replica with the content of `source`, which follows a log of which it has `txid` records. */
async function open(txid: number): Promise<Replica> {
  const path = dir.path("replica.db");
  writeFileSync(path, source.bytes);
  const sums = sumsOf(source.bytes);
  await seedState(dir.path(".replica.db-sluice"), {
    logId: "log",
    nodeId: "node",
    txid,
    position: position(3, 9),
    epoch: 3,
    timestampMs: 1000,
    checksum: sums.checksum,
    pageCount: sums.count,
    sums: sums.words,
  });
  return (replica = await Replica.open(path));
}

/** The difference to `wanted`, as another node's history has it. */
async function resync(to: Replica, wanted: Buffer, now: Buffer = readFileSync(to.path)): Promise<void> {
  const numbers: number[] = [];
  for (let page = 1; page <= wanted.length / PAGE; page++) {
    const range = [(page - 1) * PAGE, page * PAGE] as const;
    if (!wanted.subarray(...range).equals(now.subarray(...range))) numbers.push(page);
  }
  const { checksum, count } = sumsOf(wanted);
  const head = { before: 0n, position: position(4, 1), pageCount: count, checksum, pages: numbers.length };
  const record = { txid: 9, epoch: 4, position: position(4, 1), timestampMs: 2000 };
  const change = await to.resync(head, record, { quarantine: true });
  const content = Buffer.concat(numbers.map((page) => wanted.subarray((page - 1) * PAGE, page * PAGE)));
  change.pages({ numbers: Uint32Array.from(numbers), content });
  await change.commit();
}

for (const [name, txid] of [
  ["a replica whose history went on elsewhere", 7],
  ["one whose history has nothing in common with the log", 0],
] as const) {
  test(`${name} keeps what it had, also the pages that are cut off`, async () => {
    const shorter = source.bytes;
    source.db.exec(
      "insert into t(x) select hex(randomblob(300)) from (select 1 union all select 2 union all select 3)",
    );
    source.rewind();
    const own = source.bytes;
    expect(own.length).toBeGreaterThan(shorter.length);
    const opened = await open(txid);
    await resync(opened, shorter);

    const [entry, ...others] = quarantined(opened.stateDir);
    expect(others).toEqual([]);
    expect(entry).toMatchObject({ kind: "pages", common: txid === 0 ? 0n : position(3, 9), problem: undefined });
    expect([...entry!.files[0]!.pages]).toContain(own.length / PAGE);
    expect(quarantineSize(opened.stateDir)).toEqual({ entries: 1, bytes: entry!.sizeBytes });
    const extracted = await extractQuarantined({ entry: entry!, to: dir.path("own.db"), database: opened.path });
    expect(extracted).toMatchObject({ exact: true, problems: [] });
    expect(readFileSync(dir.path("own.db")).equals(own)).toBe(true);
  });
}

async function apply(to: Replica, { numbers, content, pageCount }: PageSet, state: Buffer): Promise<void> {
  const { checksum } = sumsOf(state);
  const before = to.position!;
  const change = await to.change({ before, position: before + 1n, pageCount, checksum, pages: numbers.length });
  change.pages({ numbers, content });
  await change.commit();
}

test("all that is on top of the last record is kept, also what the history has: it is laid over that record's state", async () => {
  source.db.exec("create table u(x); insert into u values('a')");
  source.rewind();
  const common = source.bytes;
  const opened = await open(7);
  source.db.exec("insert into t(x) values('in the history')");
  const [first] = source.take();
  const wanted = source.bytes;
  await apply(opened, first!, wanted);
  source.db.exec("insert into u values('left behind')");
  const [second] = source.take();
  const own = source.bytes;
  await apply(opened, second!, own);
  await resync(opened, wanted, own);

  const [entry] = quarantined(opened.stateDir);
  const { pages } = entry!.files[0]!;
  expect([...pages]).toEqual([...first!.numbers, ...second!.numbers].sort((a, b) => a - b));
  const laid = Buffer.from(common);
  for (const page of pages) own.copy(laid, (page - 1) * PAGE, (page - 1) * PAGE, page * PAGE);
  expect(laid.equals(own)).toBe(true);
});

test("after a restart nobody knows what is on top: all is kept", async () => {
  let opened = await open(7);
  source.db.exec("insert into t(x) values('in the history')");
  const [first] = source.take();
  const wanted = source.bytes;
  await apply(opened, first!, wanted);
  source.db.exec("create table u as select 'left behind' as x");
  await apply(opened, source.take()[0]!, source.bytes);
  const own = source.bytes;
  await opened.close();
  opened = replica = await Replica.open(opened.path);
  await resync(opened, wanted, own);

  const [entry] = quarantined(opened.stateDir);
  const extracted = await extractQuarantined({ entry: entry!, to: dir.path("own.db"), database: opened.path });
  expect(extracted).toMatchObject({ base: { kind: "nothing" }, exact: true, problems: [] });
  expect(readFileSync(dir.path("own.db")).equals(own)).toBe(true);
});

test("two in one millisecond are two, and what a kill left half written goes", async () => {
  const quarantine = join(dir.path("state"), "quarantine");
  mkdirSync(quarantine, { recursive: true });
  writeFileSync(join(quarantine, "0000000300000009-1.ltx.tmp"), "half");
  const names = { common: position(3, 9), own: position(3, 10), checksum: 0n, txid: 8, epoch: 3 };
  const view = { pageSize: PAGE, pageCount: 2, read: () => Promise.resolve() } as unknown as PageView;
  const clock = vi.spyOn(Date, "now").mockReturnValue(1000);
  try {
    await quarantinePages(dir.path("state"), names, view, [1]);
    await quarantinePages(dir.path("state"), names, view, [2]);
  } finally {
    clock.mockRestore();
  }
  expect(quarantined(dir.path("state")).map(({ files }) => [...files[0]!.pages])).toEqual([[1], [2]]);
  expect(quarantineSize(dir.path("state")).entries).toBe(2);
  expect(readdirSync(quarantine).some((file) => file.endsWith(".tmp"))).toBe(false);
});

import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { logContext } from "../../src/log/context.ts";
import { keepState, releaseState } from "../../src/log/kept-states.ts";
import { LogLayout } from "../../src/log/layout.ts";
import { listLog } from "../../src/log/listing.ts";
import { Reachable } from "../../src/log/plan.ts";
import { WorkSlots } from "../../src/log/work-slots.ts";
import { decode, inPlace } from "./sim/ltx.ts";
import { Site, type Run } from "./sim/site.ts";

const HOUR = 60 * 60_000;
const layout = new LogLayout("ltx-prefix");

/** `level/min-max`, in hex without leading zeros. */
const short = (keys: readonly string[]): string[] => keys.map((key) => key.slice(4, -4).replace(/0{8,}/g, ""));
const alarms = (run: Run): unknown[] => run.events.filter((event) => event.type === "alarm");

describe("snapshots", () => {
  test("the first is written right after the takeover, at its record", async () => {
    using site = new Site();
    await site.start(site.disk("a"));
    await site.clock.advance(1_000);
    expect(short(site.keys("ltx/9/"))).toEqual(["9/1-1"]);
    const { header } = decode("snapshot", site.bucket.objects.get(layout.key(9, 1, 1))!.bytes);
    expect(header.timestampMs).toBe(
      decode("record", site.bucket.objects.get(layout.slotKey(1))!.bytes).header.timestampMs,
    );
  });

  test("the next one follows a day later if something was committed, whoever runs then", async () => {
    using site = new Site();
    const disk = site.disk("a");
    const first = await site.start(disk);
    await site.write(first, 2);
    first.clock.kill();
    await site.clock.advance(20 * HOUR);
    const second = await site.start(disk);
    await site.clock.advance(3 * HOUR);
    expect(short(site.keys("ltx/9/"))).toEqual(["9/1-1"]);
    await site.clock.advance(2 * HOUR);
    expect(short(site.keys("ltx/9/"))).toEqual(["9/1-1", "9/1-4"]);
    await site.write(second, 1);
    await site.clock.advance(25 * HOUR);
    expect(short(site.keys("ltx/9/"))).toEqual(["9/1-4", "9/1-5"]);
    site.history.checkRestorable();
  });

  test("no other is written when nothing but takeovers came since, and the store is hardly asked", async () => {
    using site = new Site();
    const disk = site.disk("a");
    (await site.start(disk)).clock.kill();
    await site.clock.advance(48 * HOUR);
    const run = await site.start(disk);
    await site.clock.advance(48 * HOUR);
    expect(run.writer?.epoch).toBe(2);
    expect(short(site.keys("ltx/9/"))).toEqual(["9/1-1"]);
    expect(site.clock.pending).toBe(0);
  });

  test("one that lasts too long for the database is given up, and written later", async () => {
    using site = new Site();
    site.bucket.onWay = (_client, _way, key) => (key.startsWith("ltx/9/") ? new Promise(() => undefined) : undefined);
    const run = await site.start(site.disk("a"));
    await site.clock.advance(1_000);
    run.database.giveUpSnapshots();
    site.bucket.onWay = () => undefined;
    await site.clock.advance(1_000);
    expect(run.events).toContainEqual(expect.objectContaining({ type: "retrying", step: "upkeep" }));
    expect(site.keys("ltx/9/")).toEqual([]);
    await site.clock.advance(15_000);
    expect(short(site.keys("ltx/9/"))).toEqual(["9/1-1"]);
  });

  test("one that is not confirmed yet is not sent", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"), { snapshotIntervalMs: HOUR });
    await site.write(run, 1);
    await site.clock.advance(HOUR - 60_000);
    site.bucket.onWay = (_client, way, key) =>
      way === "request" && key === layout.slotKey(3) ? new Promise(() => undefined) : undefined;
    site.commit(run);
    await site.clock.advance(HOUR);
    expect(short(site.keys("ltx/9/"))).toEqual(["9/1-1"]);
  });
});

test("a snapshot whose slot was sealed anew meanwhile is not taken for the state after that slot", async () => {
  using site = new Site();
  const run = await site.start(site.disk("a"), { snapshotIntervalMs: 60_000, levels: [] });
  await site.write(run, 1);
  let arrive: (() => void) | undefined;
  site.bucket.onWay = (_client, way, key) =>
    way === "request" && key === layout.slotKey(3) ? new Promise((resolve) => (arrive = resolve)) : undefined;
  site.commit(run);
  await site.clock.advance(50_000);
  site.commit(run);
  await site.clock.advance(15_000);
  expect(run.database.frozen.map((batch) => batch.txid)).toEqual([3, 4]);
  site.commit(run);
  run.database.reseal();
  arrive!();
  await site.clock.advance(1_000);
  expect(run.database.logState?.confirmed).toMatchObject({ txid: 4, position: run.database.position });
  site.history.checkRestorable();
  await site.clock.advance(60_000);
  expect(short(site.keys("ltx/9/"))).toEqual(["9/1-1", "9/1-4"]);
  site.history.checkRestorable();
});

describe("compaction", () => {
  test("moves records up at the ends of windows, from local files, and deletes what is covered and old", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"));
    await site.clock.advance(1_000);
    const gets = site.bucket.requests.get;
    await site.write(run, 40);
    await site.clock.advance(60_000);
    const l1 = short(site.keys("ltx/1/"));
    expect(l1.length).toBeGreaterThanOrEqual(2);
    expect(l1[0]!.startsWith("1/2-")).toBe(true);
    expect(site.bucket.requests.get).toBe(gets);
    await site.clock.advance(2 * HOUR);
    expect(short(site.keys("ltx/2/"))).toEqual(["2/2-29"]);
    expect(short(site.keys("ltx/3/"))).toEqual(["3/2-29"]);
    expect(short(site.keys("ltx/0/"))).toEqual(["0/29-29"]);
    expect(run.events).toContainEqual(expect.objectContaining({ type: "deleted", level: 0 }));
    const { requests } = site.bucket;
    // Two at the start; and what must be kept, before records go and before merged ones do.
    expect(requests.list).toBe(4);
    site.history.checkRestorable();
    site.history.checkFences();
  });

  test("keeps what makes a state that a quarantine builds on, until that is gone or 30 days are over", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"));
    await site.clock.advance(1_000);
    await site.write(run, 40);
    const context = logContext(site.bucket.client("other", run.clock), { clock: run.clock });
    const asked = async <T>(question: Promise<T>): Promise<T> => {
      await site.clock.advance(100);
      return question;
    };
    await asked(keepState(context, 23, "entry", new AbortController().signal));
    const restorable = async (): Promise<boolean> =>
      new Reachable(await asked(listLog(context.store, context.layout))).plan(23) !== undefined;
    const days = async (count: number): Promise<void> => {
      for (let hours = 0; hours < 24 * count; hours += 6) {
        await site.write(run, 1);
        await site.clock.advance(6 * HOUR);
      }
    };
    await days(4);
    expect(await restorable()).toBe(true);
    await asked(releaseState(context, 23, "entry"));
    await days(1);
    expect(await restorable()).toBe(false);
    site.history.checkRestorable();
  });

  test("goes on after a restart from what is in the store", async () => {
    using site = new Site();
    const disk = site.disk("a");
    const first = await site.start(disk);
    await site.write(first, 10);
    first.clock.kill();
    await site.clock.advance(HOUR);
    const second = await site.start(disk);
    await site.clock.advance(2 * HOUR);
    expect(second.error).toBeUndefined();
    expect(short(site.keys("ltx/3/"))).toEqual(["3/2-b", "3/c-c"]);
    expect(short(site.keys("ltx/0/"))).toEqual(["0/c-c"]);
    site.history.checkRestorable();
  });

  test("takes a file that is there already for its own", async () => {
    using site = new Site();
    const disk = site.disk("a");
    const run = await site.start(disk);
    await site.clock.advance(1_000);
    let puts = 0;
    site.bucket.onWay = (_client, way, key) => {
      if (way === "request" && key.startsWith("ltx/1/")) puts++;
      return undefined;
    };
    site.bucket.faults = { ...site.bucket.faults, lostAnswer: 0 };
    await site.write(run, 2);
    const key = layout.key(1, 2, 3);
    const bytes = await mergedBytes(site, [2, 3]);
    site.bucket.execute(key, bytes, {}, "other");
    await site.clock.advance(60_000);
    expect(puts).toBe(1);
    expect(site.bucket.objects.get(key)!.client).toBe("other");
    expect(run.events).toContainEqual(expect.objectContaining({ type: "compacted", minTxid: 2, maxTxid: 3 }));
  });

  test("leaves nothing in the work directory, and does not mind what a killed one left", async () => {
    using site = new Site();
    const disk = site.disk("a");
    const workDir = path.join(disk.dir, "compaction");
    mkdirSync(workDir);
    writeFileSync(path.join(workDir, "0.ltx"), "half a file");
    const run = await site.start(disk);
    await site.write(run, 2);
    await site.clock.advance(60_000);
    expect(site.keys("ltx/1/")).toHaveLength(1);
    expect(existsSync(workDir)).toBe(false);
  });

  test("does without a source that is damaged: alarm, snapshot, and on behind that", async () => {
    using site = new Site();
    const disk = site.disk("a");
    const first = await site.start(disk);
    await site.write(first, 2);
    await site.clock.advance(60_000);
    expect(short(site.keys("ltx/1/"))).toEqual(["1/2-3"]);
    await site.write(first, 2);
    first.clock.kill();
    const damaged = site.bucket.objects.get(layout.slotKey(5))!.bytes;
    damaged[damaged.length - 1]! ^= 1;
    const second = await site.start(disk);
    await site.clock.advance(60_000);
    expect(alarms(second)).toEqual([expect.objectContaining({ error: expect.objectContaining({ code: "SLU-4111" }) })]);
    expect(short(site.keys("ltx/9/"))).toEqual(["9/1-1", "9/1-6"]);
    await site.write(second, 2);
    await site.clock.advance(60_000);
    expect(short(site.keys("ltx/1/"))).toEqual(["1/2-3", "1/7-8"]);
    expect(alarms(second)).toHaveLength(1);
  });
});

test.for([{ lostRequest: 1 }, { read: 1 }])(
  "a store that is away (%o) keeps no other log from its upkeep",
  async (faults) => {
    using away = new Site();
    using site = new Site();
    const slots = new WorkSlots(1);
    const disk = away.disk("a");
    const first = await away.start(disk, { slots });
    await away.clock.advance(1_000);
    await away.write(first, 2);
    first.clock.kill();
    await away.start(disk, { slots });
    const run = await site.start(site.disk("b"), { slots });
    await site.clock.advance(1_000);
    away.bucket.faults = { ...away.bucket.faults, ...faults };
    await site.write(run, 2);
    await away.clock.advance(35_000);
    await site.clock.advance(60_000);
    expect(site.keys("ltx/1/")).toEqual([]);
    await away.clock.advance(60_000);
    await site.clock.advance(1_000);
    expect(site.keys("ltx/1/")).toHaveLength(1);
    away.bucket.faults = { ...away.bucket.faults, lostRequest: 0, read: 0 };
    await away.clock.advance(20 * 60_000);
    expect(away.keys("ltx/1/")).toHaveLength(1);
  },
);

describe("a hole", () => {
  test("that is there at the start is bridged by a snapshot at once, with an alarm", async () => {
    using site = new Site();
    const disk = site.disk("a");
    const first = await site.start(disk);
    await site.write(first, 5);
    first.clock.kill();
    for (const txid of [3, 4]) site.bucket.remove(layout.slotKey(txid));
    const second = await site.start(disk);
    await site.clock.advance(1_000);
    expect(alarms(second)).toEqual([expect.objectContaining({ error: expect.objectContaining({ code: "SLU-4110" }) })]);
    expect(short(site.keys("ltx/9/"))).toEqual(["9/1-1", "9/1-7"]);
    await site.write(second, 3);
    await site.clock.advance(2 * HOUR);
    expect(alarms(second)).toHaveLength(1);
    site.history.checkRestorable();
  });

  test("that somebody makes while Sluice runs is seen by the compaction that needs the records", async () => {
    using site = new Site();
    const disk = site.disk("a");
    const first = await site.start(disk);
    await site.write(first, 5);
    first.clock.kill();
    const run = await site.start(disk);
    await site.clock.advance(1_000);
    for (const txid of [3, 4]) site.bucket.remove(layout.slotKey(txid));
    await site.write(run, 3);
    await site.clock.advance(60_000);
    expect(alarms(run)).toHaveLength(1);
    expect(site.keys("ltx/9/").length).toBeGreaterThan(1);
    site.history.checkRestorable();
    await site.clock.advance(3 * HOUR);
    expect(alarms(run)).toHaveLength(1);
    site.history.checkRestorable();
  });
});

async function mergedBytes(site: Site, txids: readonly number[]): Promise<Uint8Array> {
  const inputs = txids.map((txid) => {
    const file = path.join(site.dir, `${txid}.in`);
    writeFileSync(file, site.bucket.objects.get(layout.slotKey(txid))!.bytes);
    return file;
  });
  const output = path.join(site.dir, "merged");
  await inPlace.merge(inputs, output, new AbortController().signal);
  return readFileSync(output);
}

import { describe, expect, test } from "vitest";
import { DEFAULT_LEVELS } from "../../src/log/levels.ts";
import { LogListing } from "../../src/log/listing.ts";
import { DEFAULT_RETENTION } from "../../src/log/retention.ts";
import { Shipper } from "../../src/log/shipper.ts";
import { Upkeep } from "../../src/log/upkeep.ts";
import { WorkSlots } from "../../src/log/work-slots.ts";
import { position } from "../../src/ltx/position.ts";
import { Random } from "./sim/clock.ts";
import { listed } from "./sim/history.ts";
import { inPlace } from "./sim/ltx.ts";
import { Site } from "./sim/site.ts";

const HOUR = 60 * 60_000;

describe("without anybody waiting", () => {
  test("a commit is sealed after the sync interval, and the next ones with it", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"), { syncIntervalMs: 5_000 });
    site.commit(run);
    await site.clock.advance(3_000);
    site.commit(run);
    await site.clock.advance(1_900);
    expect(run.database.logState?.confirmed.txid).toBe(1);
    await site.clock.advance(200);
    expect(run.database.logState?.confirmed).toMatchObject({ txid: 2, position: position(1, 2) });
    expect(run.writer!.status).toMatchObject({
      behindSinceMs: undefined,
      frozen: 0,
      confirmedAtMs: expect.any(Number),
    });
  });

  test("nothing is asked of the store and no timer runs while nothing changes", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"));
    await site.write(run, 3);
    // Level 3 is done after an hour, the snapshot after a day.
    await site.clock.advance(25 * HOUR);
    expect(site.keys("ltx/9/")).toHaveLength(2);
    expect(site.clock.pending).toBe(0);
    const requests = { ...site.bucket.requests };
    await site.clock.advance(72 * HOUR);
    expect(site.bucket.requests).toEqual(requests);
  });

  test("what was committed while the store was away is sent when it's back", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"));
    site.bucket.faults = { ...site.bucket.faults, lostRequest: 1 };
    const committed = site.commit(run);
    await site.clock.advance(HOUR);
    const behindMs = site.clock.now() - run.writer!.status.behindSinceMs!;
    expect(behindMs).toBeGreaterThanOrEqual(HOUR - 1_000);
    const tries = run.events.filter((event) => event.type === "retrying");
    expect(tries.length).toBeGreaterThan(HOUR / 5_000 - 10);
    expect(tries.length).toBeLessThan(2 * (HOUR / 5_000) + 10);
    site.bucket.faults = { ...site.bucket.faults, lostRequest: 0 };
    await site.clock.advance(6_000);
    expect(run.database.logState?.confirmed).toMatchObject({ txid: 2, position: committed });
    site.history.checkConfirmed(committed, "a");
  });
});

describe("somebody who waits", () => {
  test("does not wait for the sync interval", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"), { syncIntervalMs: HOUR });
    const committed = site.commit(run);
    expect(await site.outcome(run.writer!.waitFor(committed), 20)).toBeUndefined();
    expect(await site.outcome(run.writer!.waitFor(committed), 0)).toBeUndefined();
    site.history.checkConfirmed(committed, "a");
  });

  test("shares one record with everything that came while another was under way", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"), { syncIntervalMs: HOUR });
    let arrive = (): void => undefined;
    site.bucket.onWay = (_client, way) => (way === "answer" ? new Promise((resolve) => (arrive = resolve)) : undefined);
    const first = run.writer!.waitFor(site.commit(run));
    await site.clock.advance(100);
    const others = Array.from({ length: 20 }, () => run.writer!.waitFor(site.commit(run)));
    expect(await site.outcome(Promise.race(others))).toBe("pending");
    arrive();
    expect(await site.outcome(first)).toBeUndefined();
    arrive();
    expect(await site.outcome(Promise.all(others))).toHaveLength(20);
    expect(site.history.records()).toHaveLength(3);
  });

  test("goes on a few at a time, so that the next record isn't held up by all their answers", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"), { syncIntervalMs: HOUR });
    const committed = site.commit(run);
    let released = 0;
    const inTurns: number[] = [];
    const confirmed = run.database.confirm.bind(run.database);
    run.database.confirm = async (txid) => {
      await confirmed(txid);
      const count = (): void => {
        inTurns.push(released);
        if (released < 100) setImmediate(count);
      };
      setImmediate(count);
    };
    const waiting = Array.from({ length: 100 }, async () => {
      await run.writer!.waitFor(committed);
      released++;
    });
    await site.clock.advance(100);
    await Promise.all(waiting);
    expect(Math.max(...inTurns.map((count, i) => count - (inTurns[i - 1] ?? 0)))).toBeLessThan(80);
  });

  test("is not released by a record that does not reach the position", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"));
    const later = run.writer!.waitFor(position(1, 2));
    site.commit(run);
    expect(await site.outcome(later, 5_000)).toBe("pending");
    site.commit(run);
    expect(await site.outcome(later, 5_000)).toBeUndefined();
  });

  test("is served at once when the commit comes that it waits for", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"), { syncIntervalMs: HOUR });
    const waiting = run.writer!.waitFor(position(1, 1));
    expect(await site.outcome(waiting, 5_000)).toBe("pending");
    site.commit(run);
    expect(await site.outcome(waiting, 50)).toBeUndefined();
  });

  test("can give up, and the log goes on", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"));
    const abort = new AbortController();
    const waiting = run.writer!.waitFor(position(1, 9), abort.signal);
    abort.abort(new Error("enough"));
    expect(await site.outcome(waiting)).toEqual(new Error("enough"));
    expect(run.writer!.status.waiters).toBe(0);
    await expect(run.writer!.waitFor(position(1, 9), abort.signal)).rejects.toThrow("enough");
  });

  test("is told that the outcome is unknown when the log stops", async () => {
    using site = new Site();
    const run = await site.start(site.disk("a"));
    site.bucket.faults = { ...site.bucket.faults, lostRequest: 1 };
    const waiting = run.writer!.waitFor(site.commit(run));
    await site.clock.advance(1_000);
    const stopping = run.writer!.stop();
    expect(await site.outcome(waiting)).toMatchObject({ code: "SLU-4109" });
    expect(await site.outcome(stopping)).toBe(false);
    expect(run.database.frozen).toHaveLength(1);
    expect(site.clock.pending).toBe(0);
  });
});

test("a drain gets everything into the log that is committed by then, captured or not", async () => {
  using site = new Site();
  const run = await site.start(site.disk("a"), { syncIntervalMs: HOUR });
  run.database.commit(new Map([[1, new Uint8Array(512).fill(5)]]));
  expect(await site.outcome(run.writer!.stop(AbortSignal.timeout(600_000)))).toBe(true);
  expect(run.database.logState?.confirmed).toMatchObject({ txid: 2, position: position(1, 1) });
});

test("a drain that takes too long says so and leaves the rest sealed", async () => {
  using site = new Site();
  const run = await site.start(site.disk("a"));
  site.bucket.faults = { ...site.bucket.faults, lostRequest: 1 };
  site.commit(run);
  const abort = new AbortController();
  const stopping = run.writer!.stop(abort.signal);
  expect(await site.outcome(stopping, 60_000)).toBe("pending");
  abort.abort(new Error("timeout"));
  expect(await site.outcome(stopping)).toBe(false);
  expect(run.database.frozen).toHaveLength(1);
});

test("before an epoch runs out of numbers its primary takes over from itself", async () => {
  using site = new Site();
  const run = await site.start(site.disk("a"));
  await run.writer!.stop();
  const random = new Random(3);
  const upkeep = new Upkeep({
    context: run.context,
    database: run.database,
    ltx: inPlace,
    slots: new WorkSlots(1),
    levels: DEFAULT_LEVELS,
    snapshotIntervalMs: HOUR,
    retention: DEFAULT_RETENTION,
    listing: new LogListing(listed(site.bucket)),
    gap: undefined,
    waitFor: () => Promise.resolve(),
  });
  upkeep.start();
  const shipper = new Shipper({
    context: run.context,
    database: run.database,
    syncIntervalMs: 1_000,
    epochCommitsMax: 5,
    drawWriter: () => random.u64(),
    onConfirmed: (batch) => upkeep.confirmed(batch),
    onEnded: (error) => expect.unreachable(error.message),
  });
  shipper.start();
  let last = 0n;
  for (let i = 0; i < 12; i++) {
    last = site.commit(run);
    await site.clock.advance(1_200);
  }
  expect(last).toBe(position(11, 2));
  const epochs = site.history.records().map(({ fields }) => fields.epoch);
  expect(epochs).toEqual([1, 1, 1, 1, 1, 6, 6, 6, 6, 6, 11, 11, 11]);
  expect(await site.outcome(shipper.drain())).toBeUndefined();
  site.history.checkConfirmed(last, "a");
  await site.clock.advance(3 * HOUR);
  expect(site.keys("ltx/0/")).toHaveLength(3);
  site.history.checkFences();
  site.history.checkRestorable();
  await shipper.stop();
});

test("a snapshot that seals first, just when somebody waits, is no reason to stop", async () => {
  using site = new Site();
  const run = await site.start(site.disk("a"), { syncIntervalMs: HOUR });
  for (let i = 0; i < 5; i++) {
    const committed = site.commit(run);
    const snapshot = run.database.snapshot();
    const waiting = run.writer!.waitFor(committed);
    expect(await site.outcome(waiting)).toBeUndefined();
    (await snapshot).release();
  }
  expect(run.error).toBeUndefined();
});

test("a full disk delays the seal and loses nothing", async () => {
  using site = new Site();
  const run = await site.start(site.disk("a"));
  const freeze = run.database.freeze.bind(run.database);
  let failures = 3;
  run.database.freeze = () => (failures-- > 0 ? Promise.reject(new Error("ENOSPC")) : freeze());
  const committed = site.commit(run);
  expect(await site.outcome(run.writer!.waitFor(committed), 5_000)).toBeUndefined();
  expect(run.events.filter((event) => event.type === "retrying")).toHaveLength(3);
});

test("hundreds of idle logs set no timer and send no request", async () => {
  using site = new Site();
  const runs = Array.from({ length: 300 }, (_, i) => site.begin(site.disk(`db${i}`), { prefix: `db${i}` }));
  await site.clock.advance(60_000);
  expect(runs.filter((run) => run.writer === undefined)).toEqual([]);
  await site.clock.advance(3 * HOUR);
  expect(site.clock.pending).toBe(0);
  const requests = { ...site.bucket.requests };
  await site.clock.advance(48 * HOUR);
  expect(site.bucket.requests).toEqual(requests);
});

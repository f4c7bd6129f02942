import { appendFileSync } from "node:fs";
import { expect, test } from "vitest";
import { logContext } from "../../src/log/context.ts";
import { endLog } from "../../src/log/identity.ts";
import { LogLayout } from "../../src/log/layout.ts";
import { FLAG_NO_CHECKSUM, type LtxHeader } from "../../src/ltx/header.ts";
import { position } from "../../src/ltx/position.ts";
import { LifeClock } from "./sim/clock.ts";
import { newDisk } from "./sim/database.ts";
import { decode, encode } from "./sim/ltx.ts";
import { Site, type Run } from "./sim/site.ts";

const layout = new LogLayout("ltx-prefix");
const slot = (txid: number): string => layout.slotKey(txid);
const never = new AbortController().signal;

/** A record as Litestream writes it: no fields of Sluice. */
function litestreamRecord(txid: number, pgno = 1, content = 99): Uint8Array {
  const header: LtxHeader = {
    flags: FLAG_NO_CHECKSUM,
    pageSize: 512,
    pageCount: 1,
    minTxid: txid,
    maxTxid: txid,
    timestampMs: Date.UTC(2025, 0, 1) + txid,
    preApplyChecksum: 0n,
    walOffset: 32n,
    walSize: 4120n,
    walSalt1: 17,
    walSalt2: 19,
    nodeId: 0n,
    reserved: new Uint8Array(20),
  };
  return encode(header, new Map([[pgno, new Uint8Array(512).fill(content)]]));
}

const put = (site: Site, key: string, bytes: Uint8Array): void => void site.bucket.execute(key, bytes, {}, "hand");

function stop(run: Run): void {
  run.clock.kill();
}

test("an empty log is begun with all pages in slot 1, under an id of its own", async () => {
  using site = new Site();
  const run = await site.start(site.disk("a"));
  expect(run.error).toBeUndefined();
  expect(run.database.isOpen).toBe(true);
  const identity = JSON.parse(Buffer.from(site.bucket.objects.get("sluice.json")!.bytes).toString()) as object;
  expect(identity).toMatchObject({ logId: run.writer!.logId, version: 1, base: 0 });
  expect(run.database.logState).toMatchObject({ logId: run.writer!.logId, nodeId: "a" });
  const [record] = site.history.records();
  expect(record).toMatchObject({ txid: 1, fields: { position: position(0, 1), epoch: 1 } });
  expect(Buffer.concat([...record!.pages.values()])).toEqual(Buffer.concat([...run.database.disk.pages.values()]));
});

test("each start begins a new epoch behind the last record, and carries what was not sealed", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const first = await site.start(disk);
  await site.write(first, 3);
  const left = site.commit(first);
  stop(first);
  const second = await site.start(disk);
  expect(second.writer?.epoch).toBe(5);
  const takeover = site.history.records().at(-1)!;
  expect(takeover.fields).toMatchObject({ epoch: 5, position: left });
  expect(site.commit(second)).toBe(position(5, 1));
});

test("two copies with one state and one clock: exactly one gate opens", async () => {
  using site = new Site();
  const disk = site.disk("a");
  stop(await site.start(disk));
  const copy = site.clone(disk, "b");
  const [a, b] = [site.begin(disk), site.begin(copy)];
  await site.clock.advance(10_000);
  expect([a, b].filter((run) => run.database.isOpen)).toHaveLength(1);
  expect([a, b].filter((run) => run.error?.code === "SLU-4101")).toHaveLength(1);
});

test("… which the writer's random number decides: with one number for both, both open", async () => {
  using site = new Site();
  const disk = site.disk("a");
  stop(await site.start(disk));
  const copy = site.clone(disk, "b");
  const [a, b] = [site.begin(disk, { drawWriter: () => 7n }), site.begin(copy, { drawWriter: () => 7n })];
  await site.clock.advance(10_000);
  expect([a, b].filter((run) => run.database.isOpen)).toHaveLength(2);
});

test("a primary that slept for longer than level 0 is kept is told that its slot is taken", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const sleeper = await site.start(disk);
  await site.write(sleeper, 3);
  const copy = site.clone(disk, "b");
  const waiting = sleeper.writer!.waitFor(site.commit(sleeper));
  sleeper.clock.pause();
  const successor = await site.start(copy);
  expect(successor.writer?.epoch).toBe(5);
  await site.write(successor, 60);
  await site.clock.advance(2 * 60 * 60_000);
  expect(site.keys("ltx/0/")).toEqual([slot(5), slot(65)]);
  sleeper.clock.resume();
  expect(await site.outcome(waiting)).toMatchObject({ code: "SLU-4109" });
  expect(sleeper.error).toMatchObject({ code: "SLU-4101" });
  expect(await site.outcome(sleeper.writer!.waitFor(sleeper.database.position))).toMatchObject({ code: "SLU-4109" });
  site.history.checkRestorable();
});

test("a candidate whose takeover arrives after its slot was emptied withdraws it and opens nothing", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const primary = await site.start(disk);
  await site.write(primary, 3);
  let arrive: (() => void) | undefined;
  site.bucket.onWay = (client, way, key) =>
    client === "b" && way === "request" && key === slot(5) ? new Promise((resolve) => (arrive = resolve)) : undefined;
  const candidate = await site.start(site.clone(disk, "b"));
  expect(arrive).toBeDefined();
  await site.write(primary, 60);
  await site.clock.advance(2 * 60 * 60_000);
  expect(site.keys()).not.toContain(slot(5));
  arrive!();
  await site.clock.advance(1_000);
  expect(candidate.database.isOpen).toBe(false);
  expect(candidate.error).toMatchObject({ code: "SLU-4101" });
  expect(site.keys()).not.toContain(slot(5));
  site.history.checkRestorable();
});

test("so does one that wanted to begin the log, and comes when its first record was compacted away", async () => {
  using site = new Site();
  let arrive: (() => void) | undefined;
  site.bucket.onWay = (client, way, key) =>
    client === "b" && way === "request" && key === slot(1) ? new Promise((resolve) => (arrive = resolve)) : undefined;
  const late = await site.start(site.disk("b"));
  expect(arrive).toBeDefined();
  const first = await site.start(site.disk("a"));
  expect(first.writer?.logId).toBe(late.database.logState?.logId);
  await site.write(first, 5);
  await site.clock.advance(2 * 60 * 60_000);
  expect(site.keys()).not.toContain(slot(1));
  arrive!();
  await site.clock.advance(1_000);
  expect(late.error).toMatchObject({ code: "SLU-4101" });
  expect(site.keys()).not.toContain(slot(1));
});

test("a takeover that others already build on stays in the log, although its candidate opens nothing", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const primary = await site.start(disk);
  await site.write(primary, 1);
  stop(primary);
  const other = site.clone(disk, "c");
  let arrive: (() => void) | undefined;
  site.bucket.onWay = (client, way, key) =>
    client === "b" && way === "answer" && key === slot(3) ? new Promise((resolve) => (arrive = resolve)) : undefined;
  const candidate = await site.start(site.clone(disk, "b"));
  expect(arrive).toBeDefined();
  // Somebody who knows that record goes on behind it before the candidate hears of its success.
  other.logState = { ...other.logState!, confirmed: { ...other.logState!.confirmed, txid: 3 } };
  const successor = await site.start(other);
  expect(successor.writer?.epoch).toBe(4);
  arrive!();
  await site.clock.advance(1_000);
  expect(candidate.error).toMatchObject({ code: "SLU-4101" });
  expect(candidate.database.isOpen).toBe(false);
  expect(site.keys()).toContain(slot(3));
  site.history.checkRestorable();
});

test("a copy that the log has passed is refused, and writes nothing", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const first = await site.start(disk);
  const old = site.clone(disk, "b");
  await site.write(first, 2);
  const before = site.keys();
  const late = await site.start(old);
  expect(late.error).toMatchObject({ code: "SLU-4101" });
  expect(site.keys()).toEqual(before);
});

test("a log that ends in the same slot with another state is refused", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const run = await site.start(disk);
  await site.write(run, 2);
  stop(run);
  const confirmed = { ...disk.logState!.confirmed, position: position(1, 99) };
  const other = await site.start({ ...disk, logState: { ...disk.logState!, confirmed } });
  expect(other.error).toMatchObject({ code: "SLU-4101" });
});

test("a last record that was compacted away after it was listed is looked for in a new listing", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const first = await site.start(disk);
  await site.write(first, 2);
  stop(first);
  const client = site.bucket.client("a", new LifeClock(site.clock));
  const [list, get] = [client.list.bind(client), client.get.bind(client)];
  let lists = 0;
  client.list = (prefix, options) => {
    lists++;
    return list(prefix, options);
  };
  client.get = (key, options) => get(key.startsWith("ltx/") && lists === 1 ? "gone" : key, options);
  const next = site.begin(disk, { context: logContext(client, { clock: site.clock }) });
  await site.clock.advance(60_000);
  expect(next.writer?.epoch).toBe(4);
});

test("a file that is not what its name says is not believed", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const run = await site.start(disk);
  await site.write(run, 2);
  stop(run);
  put(site, slot(4), litestreamRecord(9));
  expect((await site.start(disk)).error).toMatchObject({ code: "SLU-4111" });
  put(site, slot(4), Buffer.alloc(300));
  expect((await site.start(disk)).error).toMatchObject({ code: "SLU-4111" });
});

test("a record is never older than the one before it, whatever the clock says", async () => {
  using site = new Site();
  const disk = site.disk("a");
  stop(await site.start(disk));
  const timestampMs = site.clock.now() + 3_600_000;
  disk.logState = { ...disk.logState!, confirmed: { ...disk.logState!.confirmed, timestampMs } };
  await site.start(disk);
  expect(decode("takeover", site.bucket.objects.get(slot(2))!.bytes).header.timestampMs).toBe(timestampMs);
});

test("a database without state is refused where a log is", async () => {
  using site = new Site();
  stop(await site.start(site.disk("a")));
  const stranger = await site.start(newDisk(`${site.dir}/b`));
  expect(stranger.error).toMatchObject({ code: "SLU-4104" });
  expect(stranger.database.logState).toBeUndefined();
});

test("a database of another log is refused, and may begin an empty one", async () => {
  using site = new Site();
  using elsewhere = new Site();
  const disk = site.disk("a");
  const run = await site.start(disk);
  await site.write(run, 2);
  stop(run);
  stop(await elsewhere.start(elsewhere.disk("x")));
  const swapped = await elsewhere.start(disk);
  expect(swapped.error).toMatchObject({ code: "SLU-4105" });
  using empty = new Site();
  put(empty, "sluice.json", elsewhere.bucket.objects.get("sluice.json")!.bytes);
  const begun = await empty.start(disk);
  expect(begun.error).toBeUndefined();
  expect(begun.writer?.epoch).toBe(1);
});

test("an ended log is not written to", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const run = await site.start(disk);
  const ending = endLog(run.context, never);
  await site.clock.advance(1_000);
  expect(await ending).toBe(true);
  stop(run);
  expect((await site.start(disk)).error).toMatchObject({ code: "SLU-4106" });
});

test("a log whose identity makes no sense is refused", async () => {
  using site = new Site();
  const disk = site.disk("a");
  stop(await site.start(disk));
  for (const text of ["", "{", "[]", '{"version":2}', '{"version":1,"logId":"zz"}']) {
    put(site, "sluice.json", Buffer.from(text));
    expect((await site.start(disk)).error).toMatchObject({ code: "SLU-4107" });
  }
});

test("an identity that was deleted comes back, where the records are the database's", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const run = await site.start(disk);
  await site.write(run, 2);
  stop(run);
  const { logId } = run.writer!;
  site.bucket.remove("sluice.json");
  const again = await site.start(disk);
  expect(again.writer).toMatchObject({ logId, epoch: 4 });
  stop(again);
  site.bucket.remove("sluice.json");
  const other = {
    ...disk,
    logState: { ...disk.logState!, confirmed: { ...disk.logState!.confirmed, timestampMs: 1 } },
  };
  expect((await site.start(other)).error).toMatchObject({ code: "SLU-4105" });
});

test("a rolled-back log is refused; told to, Sluice goes on behind the old number with a snapshot", async () => {
  using site = new Site();
  const disk = site.disk("a");
  for (const pgno of [2, 3]) disk.pages.set(pgno, new Uint8Array(512).fill(pgno));
  const run = await site.start(disk);
  await site.write(run, 9);
  stop(run);
  for (const txid of [8, 9, 10]) site.bucket.remove(slot(txid));
  const before = site.keys();
  expect((await site.start(disk)).error).toMatchObject({ code: "SLU-4102" });
  expect(site.keys()).toEqual(before);
  const accepted = await site.start(disk, { acceptRollback: true });
  expect(accepted.writer?.epoch).toBe(11);
  expect(decode("takeover", site.bucket.objects.get(slot(11))!.bytes).pages.size).toBe(3);
  expect(accepted.events).toContainEqual(expect.objectContaining({ type: "alarm" }));
  await site.clock.advance(1_000);
  expect(site.keys("ltx/9/")).toEqual([layout.key(9, 1, 1), layout.key(9, 1, 11)]);
  site.history.checkRestorable();
});

test("after a rollback nothing is confirmed before the snapshot has closed the hole", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const run = await site.start(disk);
  await site.write(run, 3);
  stop(run);
  for (const key of site.keys()) site.bucket.remove(key);
  let arrive: (() => void) | undefined;
  site.bucket.onWay = (_client, way, key) =>
    key.startsWith("ltx/9/") && way === "request" ? new Promise((resolve) => (arrive = resolve)) : undefined;
  const accepted = await site.start(disk, { acceptRollback: true });
  const waiting = accepted.writer!.waitFor(site.commit(accepted));
  expect(await site.outcome(waiting, 5_000)).toBe("pending");
  arrive!();
  expect(await site.outcome(waiting)).toBeUndefined();
  site.history.checkRestorable();
});

test("a record of another program behind Sluice's own is neither applied nor written over", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const run = await site.start(disk);
  await site.write(run, 2);
  put(site, slot(4), litestreamRecord(4));
  const waiting = run.writer!.waitFor(site.commit(run));
  expect(await site.outcome(waiting)).toMatchObject({ code: "SLU-4109" });
  expect(run.error).toMatchObject({ code: "SLU-4101" });
  stop(run);
  const again = await site.start({ ...disk, frozen: [], open: new Set() });
  expect(again.error).toMatchObject({ code: "SLU-4103" });
  expect(Buffer.from(site.bucket.objects.get(slot(4))!.bytes).equals(litestreamRecord(4))).toBe(true);
});

test("Litestream's log goes on from a database that was restored from it", async () => {
  using site = new Site();
  for (const txid of [1, 2, 3]) put(site, slot(txid), litestreamRecord(txid, 1, txid));
  const disk = site.disk("a");
  const confirmed = { txid: 3, position: position(0, 3), timestampMs: Date.UTC(2025, 0, 1) + 3 };
  disk.logState = { logId: "", nodeId: "", confirmed };
  disk.position = confirmed.position;
  disk.pages = new Map([[1, new Uint8Array(512).fill(3)]]);
  const run = await site.start(disk);
  expect(run.writer?.epoch).toBe(4);
  await site.write(run, 2);
  expect(site.keys("ltx/0/")).toHaveLength(6);
  const { base } = JSON.parse(Buffer.from(site.bucket.objects.get("sluice.json")!.bytes).toString()) as {
    base: number;
  };
  expect(base).toBe(3);
  stop(run);
  expect((await site.start(disk)).writer?.epoch).toBe(7);
});

test("… but not when Litestream has gone on meanwhile", async () => {
  using site = new Site();
  for (const txid of [1, 2, 3]) put(site, slot(txid), litestreamRecord(txid));
  const disk = site.disk("a");
  disk.logState = { logId: "", nodeId: "", confirmed: { txid: 2, position: position(0, 2), timestampMs: 0 } };
  disk.position = position(0, 2);
  expect((await site.start(disk)).error).toMatchObject({ code: "SLU-4101" });
  expect(site.keys("sluice")).toEqual([]);
});

test("a sealed batch that was changed on disk is not sent", async () => {
  using site = new Site();
  const disk = site.disk("a");
  const run = await site.start(disk);
  site.bucket.onWay = () => new Promise(() => undefined);
  site.commit(run);
  await site.clock.advance(2_000);
  stop(run);
  site.bucket.onWay = () => undefined;
  appendFileSync(disk.frozen[0]!.path, "x");
  expect((await site.start(disk)).error).toMatchObject({ code: "SLU-4108" });
  expect(site.keys("ltx/0/")).toEqual([slot(1)]);
});

test("killed after each single step of start, write and drain: the next start goes on", async () => {
  let taken = 0;
  for (let done = false; !done;) {
    using site = new Site();
    const disk = site.disk("a");
    const first = site.begin(disk);
    const limit = taken + 1;
    for (taken = 0; taken < limit && !done; taken++) {
      const confirmed = first.database.logState?.confirmed.txid ?? 0;
      if (first.database.isOpen && first.database.position < position(1, confirmed)) site.commit(first);
      done = confirmed >= 4 || !(await site.clock.step());
    }
    stop(first);
    const second = await site.start(disk);
    expect(second.error).toBeUndefined();
    const last = site.commit(second);
    expect(await site.outcome(second.writer!.waitFor(last))).toBeUndefined();
    site.history.checkConfirmed(last, "a");
    site.history.checkRestorable();
  }
  expect(taken).toBeGreaterThan(30);
});

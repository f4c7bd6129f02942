import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { append } from "../../src/log/append.ts";
import { systemClock } from "../../src/log/clock.ts";
import { logContext, type LogContext, type LogEvent } from "../../src/log/context.ts";
import { endLog, ensureIdentity, readIdentity } from "../../src/log/identity.ts";
import { listLog } from "../../src/log/listing.ts";
import { LogWriter } from "../../src/log/log-writer.ts";
import { ltxJobs } from "../../src/log/ltx-jobs.ts";
import { restore } from "../../src/log/restore.ts";
import { WorkSlots } from "../../src/log/work-slots.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { probeFencing } from "../../src/store/probe.ts";
import type { Body, ObjectStore, PutOutcome } from "../../src/store/store.ts";
import { Random } from "./sim/clock.ts";
import { newDisk, PAGE_SIZE, SimDatabase } from "./sim/database.ts";

const never = new AbortController().signal;
let dir: string;
let store: DirectoryStore;
let context: LogContext;
let events: LogEvent[];

beforeEach(() => {
  dir = mkdtempSync(path.join(tmpdir(), "sluice-log-"));
  store = new DirectoryStore(path.join(dir, "bucket"));
  events = [];
  context = logContext(store, { prefix: "app", onEvent: (event) => void events.push(event) });
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

function batch(txid: number, content: string): { txid: number; path: string; sizeBytes: number; timestampMs: number } {
  const file = path.join(dir, `${txid}-${content.slice(0, 8)}`);
  writeFileSync(file, content);
  return { txid, path: file, sizeBytes: Buffer.byteLength(content), timestampMs: 1_700_000_000_000 };
}

/** The store, but for the answers to conditional writes. */
function answering(
  answer: (put: () => Promise<PutOutcome>, key: string, body: Body) => Promise<PutOutcome>,
): LogContext {
  const changed: ObjectStore = {
    url: store.url,
    layout: store.layout,
    list: (prefix, options) => store.list(prefix, options),
    get: (key, options) => store.get(key, options),
    put: (key, body, options) => answer(() => store.put(key, body, options), key, body),
    delete: (keys, options) => store.delete(keys, options),
    close: () => store.close(),
  };
  return logContext(changed, { prefix: "app", onEvent: (event) => void events.push(event) });
}

describe("an append", () => {
  test("writes the sealed bytes into the slot, with the record's time", async () => {
    const sent = batch(7, "seven");
    expect(await append(context, sent, never)).toBe("written");
    const object = path.join(dir, "bucket/app/ltx/0/0000000000000007-0000000000000007.ltx");
    expect(readFileSync(object, "utf8")).toBe("seven");
    expect(statSync(object).mtimeMs).toBe(sent.timestampMs);
  });

  test("knows its own bytes in the slot, and nothing else", async () => {
    const large = "x".repeat(3_000_000);
    expect(await append(context, batch(1, large), never)).toBe("written");
    expect(await append(context, batch(1, large), never)).toBe("own");
    expect(await append(context, batch(1, `${large.slice(0, -1)}y`), never)).toBe("lost");
    expect(await append(context, batch(1, large.slice(0, -1)), never)).toBe("lost");
    expect(await append(context, batch(1, `${large}x`), never)).toBe("lost");
    await store.put(context.layout.slotKey(2), new Uint8Array(0));
    expect(await append(context, batch(2, "two"), never)).toBe("lost");
  });

  test("to a store that refuses nothing looks first, so that another writer's record is not overwritten", async () => {
    const overwriting = answering((_, key, body) => store.put(key, body));
    expect(await append(context, batch(1, "one"), never)).toBe("written");
    expect(await probeFencing(overwriting.store)).toMatchObject({ code: "SLU-3004" });
    expect(await append(overwriting, batch(1, "another"), never)).toBe("lost");
    expect(await append(overwriting, batch(1, "one"), never)).toBe("own");
    expect(await append(overwriting, batch(2, "two"), never)).toBe("written");
  });

  test("that was refused finds nothing in the slot: lost", async () => {
    const refusing = answering(async () => ({ outcome: "refused" }));
    expect(await append(refusing, batch(1, "one"), never)).toBe("lost");
  });

  test("whose answers are lost is tried until the store says that the slot is its own", async () => {
    let tries = 0;
    const deaf = answering(async (put) => {
      const outcome = await put();
      return ++tries < 4 ? { outcome: "undecided", cause: new Error("reset") } : outcome;
    });
    expect(await append(deaf, batch(1, "one"), never)).toBe("own");
    expect(events.map((event) => event.type)).toEqual(["retrying", "retrying", "retrying"]);
  });

  test("that the store can't take is undecided until it is stopped", async () => {
    const failing = answering(() => Promise.reject(new Error("EIO")));
    const abort = new AbortController();
    const appended = append(failing, batch(1, "one"), abort.signal);
    setTimeout(() => abort.abort(), 300);
    await expect(appended).rejects.toMatchObject({ code: "SLU-4109" });
    expect(events.length).toBeGreaterThan(0);
  });

  test("does not send a file that is not there as it was sealed", async () => {
    const sent = batch(1, "one");
    rmSync(sent.path);
    await expect(append(context, sent, never)).rejects.toMatchObject({ code: "SLU-4108" });
    writeFileSync(sent.path, "on");
    await expect(append(context, sent, never)).rejects.toMatchObject({ code: "SLU-4108" });
    expect(await listLog(store, context.layout)).toEqual([]);
  });
});

describe("an identity", () => {
  test("is given once, whoever starts the log at the same moment", async () => {
    const identities = await Promise.all(Array.from({ length: 8 }, () => ensureIdentity(context, {}, never)));
    expect(new Set(identities.map((identity) => identity.logId)).size).toBe(1);
    expect(await readIdentity(context, never)).toEqual(identities[0]);
    expect(identities[0]!.logId).toMatch(/^[0-9a-f]{32}$/);
  });

  test("is read back when the answer to its creation was lost", async () => {
    let tries = 0;
    const deaf = answering(async (put) => {
      const outcome = await put();
      return ++tries === 1 ? { outcome: "undecided", cause: new Error("reset") } : outcome;
    });
    const made = await ensureIdentity(deaf, { base: 4 }, never);
    expect(await readIdentity(context, never)).toEqual(made);
    expect(made.base).toBe(4);
  });

  test("ends once and for all", async () => {
    expect(await endLog(context, never)).toBe(false);
    const { logId } = await ensureIdentity(context, {}, never);
    expect(await endLog(context, never)).toBe(true);
    const ended = await readIdentity(context, never);
    expect(ended).toMatchObject({ logId, ended: expect.stringMatching(/^\d{4}-/) });
    expect(await endLog(context, never)).toBe(true);
    expect(await readIdentity(context, never)).toEqual(ended);
    expect(await ensureIdentity(context, {}, never)).toEqual(ended);
  });
});

test("listing: other objects are skipped, levels come upwards, and a slot to begin at leaves out older records", async () => {
  const names = ["9/1-3", "0/2-2", "0/3-3", "1/1-2", "0/1-1"];
  const key = (name: string): string => {
    const [level, min, max] = name.split(/[/-]/).map(Number);
    return context.layout.key(level!, min!, max!);
  };
  for (const name of names) await store.put(key(name), Buffer.from("x"));
  for (const other of ["app/ltx/0/readme.txt", "app/sluice.json", "app/ltx/x/y", "appendix/ltx/0/z"]) {
    await store.put(other, Buffer.from("x"));
  }
  const list = async (fromTxid?: number): Promise<string[]> =>
    (await listLog(store, context.layout, fromTxid === undefined ? {} : { fromTxid })).map(
      ({ level, minTxid, maxTxid }) => `${level}/${minTxid}-${maxTxid}`,
    );
  expect(await list()).toEqual(["0/1-1", "0/2-2", "0/3-3", "1/1-2", "9/1-3"]);
  expect(await list(3)).toEqual(["0/3-3", "1/1-2", "9/1-3"]);
});

/** The system's clock, ten times as fast, so that windows and retention pass within a test. */
const startMs = Date.now();
const fastClock = {
  now: (): number => Math.round(startMs + (Date.now() - startMs) * 10),
  schedule: (delayMs: number, run: () => void): (() => void) => systemClock.schedule(delayMs / 10, run),
  elapsedMs: () => systemClock.elapsedMs(),
  timeout: (delayMs: number) => systemClock.timeout(delayMs),
  isAlive: true,
};

test("a log on disk, with compactions, snapshots and deletions in real time, restores to the states it names", async () => {
  const disk = newDisk(path.join(dir, "node"));
  const states = new Map<bigint, Buffer>();
  const image = (pages: Map<number, Uint8Array>): Buffer =>
    Buffer.concat([...pages.keys()].sort((a, b) => a - b).map((pgno) => pages.get(pgno)!));
  const database = new SimDatabase(
    disk,
    fastClock,
    new Random(1),
    (name, pages) => void states.set(name, image(pages)),
  );
  const ended: unknown[] = [];
  const writer = await LogWriter.open(
    {
      context: { ...context, clock: fastClock },
      database,
      nodeId: "a",
      ltx: ltxJobs,
      slots: new WorkSlots(1),
      syncIntervalMs: 20,
      levels: [{ intervalMs: 2_000 }, { intervalMs: 10_000 }],
      snapshotIntervalMs: 15_000,
      retention: { l0RetentionMs: 5_000, snapshotRetentionMs: 10_000 },
      onEnded: (error) => ended.push(error),
    },
    never,
  );
  const seen = (type: string): boolean => events.some((event) => event.type === type);
  const levels = (): Set<number> => new Set(events.map((event) => (event.type === "compacted" ? event.level : 0)));
  const until = Date.now() + 30_000;
  for (let i = 1; Date.now() < until && !(seen("deleted") && levels().has(2)); i++) {
    const page = new Uint8Array(PAGE_SIZE).fill(i % 251);
    database.commit(new Map([[1 + (i % (disk.pages.size + (disk.pages.size < 40 ? 1 : 0))), page]]));
    await writer.sync();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  expect(await writer.stop(AbortSignal.timeout(10_000))).toBe(true);
  expect(ended).toEqual([]);
  expect([seen("deleted"), seen("snapshot"), levels()]).toEqual([true, true, new Set([0, 1, 2])]);
  const target = path.join(dir, "restored.db");
  const restored = await restore({ store, prefix: "app", path: target, integrityCheck: "none" });
  expect(restored).toMatchObject({ position: disk.position, logId: writer.logId });
  expect(readFileSync(target).equals(image(disk.pages))).toBe(true);
  const ends = [...new Set((await listLog(store, context.layout)).map((file) => file.maxTxid))];
  for (const txid of ends.filter((_, i) => i % Math.ceil(ends.length / 5) === 0)) {
    const older = path.join(dir, `restored-${txid}.db`);
    const { position } = await restore({ store, prefix: "app", path: older, txid, integrityCheck: "none" });
    expect(readFileSync(older).equals(states.get(position)!)).toBe(true);
  }
});

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Database } from "../../src/database/database.ts";
import { systemClock } from "../../src/log/clock.ts";
import { logContext, type LogEvent } from "../../src/log/context.ts";
import { LogWriter, type LogWriterOptions } from "../../src/log/log-writer.ts";
import { ltxJobs } from "../../src/log/ltx-jobs.ts";
import { restore } from "../../src/log/restore.ts";
import { WorkSlots } from "../../src/log/work-slots.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { Application } from "./sim/application.ts";

const never = new AbortController().signal;
let dir: string;
let store: DirectoryStore;
let app: Application;
let events: LogEvent[];

beforeEach(async () => {
  dir = mkdtempSync(path.join(tmpdir(), "sluice-real-"));
  store = new DirectoryStore(path.join(dir, "bucket"));
  events = [];
  app = await Application.start(path.join(dir, "app.db"));
  await app.run("create table t(id integer primary key, v)");
});
afterEach(async () => {
  await app.stop();
  rmSync(dir, { recursive: true, force: true });
});

async function begin(options: Partial<LogWriterOptions> = {}): Promise<{ database: Database; writer: LogWriter }> {
  const database = await Database.open(path.join(dir, "app.db"));
  const context = logContext(store, { onEvent: (event) => void events.push(event) });
  const writer = await LogWriter.open(
    {
      context,
      database,
      nodeId: "a",
      ltx: ltxJobs,
      slots: new WorkSlots(1),
      onEnded: (error) => expect.unreachable(error.message),
      ...options,
    },
    never,
  );
  return { database, writer };
}

/** The rows of a restored copy. */
async function restoredRows(name: string): Promise<unknown> {
  const file = path.join(dir, name);
  await restore({ store, prefix: "", path: file, integrityCheck: "full" });
  const copy = await Application.start(file);
  try {
    return await copy.run("select count(*), sum(id), sum(length(v)) from t");
  } finally {
    await copy.stop();
  }
}

test("what was confirmed of a live database comes back, over several lives", async () => {
  for (let life = 0; life < 3; life++) {
    const { database, writer } = await begin({ syncIntervalMs: 50 });
    for (let i = 0; i < 20; i++) {
      await app.run(`insert into t(v) values(randomblob(${100 + 400 * i}))`);
      if (i % 4 === 0) await writer.sync();
    }
    await writer.sync();
    expect(database.logState?.confirmed.position).toBe(database.position);
    expect(await restoredRows(`restored-${life}.db`)).toEqual(
      await app.run("select count(*), sum(id), sum(length(v)) from t"),
    );
    await app.run("update t set v = zeroblob(50) where id % 3 = 0");
    expect(await writer.stop(life === 1 ? AbortSignal.timeout(10_000) : undefined)).toBe(life === 1);
    await database.close({ merge: life === 0 });
  }
  const { database, writer } = await begin();
  await writer.sync();
  expect(await restoredRows("restored-last.db")).toEqual(
    await app.run("select count(*), sum(id), sum(length(v)) from t"),
  );
  await writer.stop();
  await database.close();
});

test("compactions, snapshots and deletions of a live database keep every state in reach", async () => {
  const startMs = Date.now();
  const clock = {
    now: (): number => Math.round(startMs + (Date.now() - startMs) * 10),
    schedule: (delayMs: number, run: () => void): (() => void) => systemClock.schedule(delayMs / 10, run),
    elapsedMs: () => systemClock.elapsedMs(),
    timeout: (delayMs: number) => systemClock.timeout(delayMs),
  };
  const { database, writer } = await begin({
    context: logContext(store, { clock, onEvent: (event) => void events.push(event) }),
    syncIntervalMs: 200,
    levels: [{ intervalMs: 2_000 }, { intervalMs: 8_000 }],
    snapshotIntervalMs: 10_000,
    retention: { l0RetentionMs: 4_000, snapshotRetentionMs: 8_000 },
  });
  const seen = (type: string): boolean => events.some((event) => event.type === type);
  const until = Date.now() + 30_000;
  while (Date.now() < until && !(seen("deleted") && seen("compacted"))) {
    await app.run("insert into t(v) values(randomblob(3000))");
    await app.run("delete from t where id % 7 = 3");
    await writer.sync();
  }
  expect([seen("deleted"), seen("compacted"), seen("snapshot")]).toEqual([true, true, true]);
  await writer.sync();
  expect(await restoredRows("restored.db")).toEqual(await app.run("select count(*), sum(id), sum(length(v)) from t"));
  await writer.stop();
  await database.close();
  expect(readFileSync(path.join(dir, "bucket/sluice.json"), "utf8")).toContain(writer.logId);
});

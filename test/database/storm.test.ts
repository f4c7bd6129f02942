import { readFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { runApp, scratch, startApp } from "./apps.ts";
import { Replay } from "./replay.ts";

let dir: ReturnType<typeof scratch>;
beforeEach(() => {
  dir = scratch("storm");
});
afterEach(() => dir.remove());

const seed = Number(process.env["SLUICE_TEST_SEED"] ?? Math.floor(Math.random() * 1e6));

/** Runs writers, readers and random kills; then the replay of what was captured must be the database. */
async function storm(options: {
  readonly pageSize: number;
  readonly autoVacuum?: string;
  readonly seconds?: number;
  readonly kills?: boolean;
  readonly big?: number;
}): Promise<Replay> {
  const path = dir.path("app.db");
  const { pageSize, seconds = 3, big = 200_000 } = options;
  const shape = ["--page-size", pageSize, "--auto-vacuum", options.autoVacuum ?? "NONE", "--big", big];
  runApp("storm", path, "--create", ...shape);
  // Small limits, so that backfills and restarts of the WAL happen all the time.
  const replay = await Replay.open(path, {
    backfillFrames: 50,
    restartBytes: 200 * pageSize,
    hardBytes: 2000 * pageSize,
  });
  const end = performance.now() + seconds * 1000;
  let life = seed;
  const writer = async (): Promise<void> => {
    while (performance.now() < end) {
      const left = (end - performance.now()) / 1000;
      const app = startApp("storm", path, "--seed", life++, "--seconds", left.toFixed(2), "--big", big);
      if (options.kills === true) setTimeout(() => app.kill(), 100 + ((life * 7919) % 900)).unref();
      const { code, output } = await app.ended;
      if (code !== null && code !== 0) throw new Error(output);
    }
  };
  const reader = startApp("check", path, "--seconds", seconds);
  await Promise.all([writer(), writer(), writer()]);
  expect(await reader.ended).toMatchObject({ code: 0 });
  expect(replay.losses).toEqual([]);
  expect(replay.failures).toEqual([]);
  replay.wal.stop();
  await replay.queue(async () => {});
  expect(await replay.wal.finish(5_000)).toBeDefined();
  replay.write(dir.path("replay.db"));
  replay.wal.release();
  const file = readFileSync(path);
  const image = readFileSync(dir.path("replay.db"));
  expect(image.equals(file)).toBe(true);
  expect(runApp("check", dir.path("replay.db"), "--integrity")).toMatch(/^ok/);
  return replay;
}

test(`what is captured is the database (seed ${seed})`, async () => {
  const replay = await storm({ pageSize: 4096 });
  expect(replay.commits).toBeGreaterThan(20);
  expect(replay.seals).toBeGreaterThan(3);
});

test(`the same with writers that are killed (seed ${seed})`, async () => {
  expect((await storm({ pageSize: 4096, kills: true })).commits).toBeGreaterThan(20);
});

test(`the same with auto_vacuum and small pages (seed ${seed})`, async () => {
  expect((await storm({ pageSize: 512, autoVacuum: "FULL", seconds: 2 })).commits).toBeGreaterThan(5);
});

test(`the same with incremental vacuum and large pages (seed ${seed})`, async () => {
  const replay = await storm({ pageSize: 65536, autoVacuum: "INCREMENTAL", seconds: 2, big: 2_000_000 });
  expect(replay.commits).toBeGreaterThan(5);
});

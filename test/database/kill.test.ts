import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type RunningApp, runApp, scratch, startApp, track, until } from "./apps.ts";
import { logImage } from "./log-image.ts";

let dir: ReturnType<typeof scratch>;
let path: string;
const running = new Set<RunningApp>();
beforeEach(() => {
  dir = scratch("kill");
  path = dir.path("app.db");
});
afterEach(async () => {
  for (const app of running) {
    app.kill();
    await app.ended;
  }
  running.clear();
  dir.remove();
});

const seed = Number(process.env["SLUICE_TEST_SEED"] ?? Math.floor(Math.random() * 1e6));

/** A generator of numbers from 0 to below 1 (mulberry32), so that a run can be repeated. */
function random(start: number): () => number {
  let state = start;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function keep(app: RunningApp): RunningApp {
  running.add(app);
  void app.ended.finally(() => running.delete(app));
  return app;
}

function startSluice(limits: object): RunningApp & { output: () => string } {
  const script = fileURLToPath(new URL("sluice-process.ts", import.meta.url));
  const child = spawn(process.execPath, [script, path, dir.path("log"), JSON.stringify(limits)]);
  let output = "";
  child.stdout.on("data", (data: Buffer) => (output += data.toString()));
  child.stderr.on("data", (data: Buffer) => (output += data.toString()));
  return { ...keep(track(child)), output: () => output };
}

async function storm(options: { readonly seconds: number; readonly pageSize: number }): Promise<void> {
  const rnd = random(seed + options.pageSize);
  runApp("storm", path, "--create", "--page-size", options.pageSize);
  const end = performance.now() + options.seconds * 1000;
  const limits = { backfillFrames: 60, restartBytes: 150 * options.pageSize, hardBytes: 3000 * options.pageSize };
  let life = seed;
  let lives = 0;
  const writer = async (): Promise<void> => {
    while (performance.now() < end) {
      const left = Math.max(0.1, (end - performance.now()) / 1000);
      const app = keep(startApp("storm", path, "--seed", life++, "--seconds", left.toFixed(2), "--big", 100_000));
      const killer = rnd() < 0.7 ? setTimeout(() => app.kill(), 100 + rnd() * 1500) : undefined;
      const { code, output } = await app.ended;
      clearTimeout(killer);
      if (code !== null && code !== 0) throw new Error(output);
    }
  };
  const sluice = async (): Promise<void> => {
    while (performance.now() < end) {
      const app = startSluice(limits);
      lives++;
      await new Promise((resolve) => setTimeout(resolve, 250 + rnd() * 900));
      app.kill();
      const { code } = await app.ended;
      if (code !== null) throw new Error(app.output());
    }
  };
  await Promise.all([writer(), writer(), sluice()]);
  const last = startSluice(limits);
  await until(() => last.output().includes("begun"), `the last life to begin: ${last.output()}`, 20_000);
  last.process.kill("SIGTERM");
  expect(await last.ended).toMatchObject({ code: 0 });
  expect(last.output()).not.toMatch(/failed|lost/);
  expect(lives).toBeGreaterThan(3);
  expect(existsSync(`${path}-wal`)).toBe(false);
  expect(logImage(dir.path("log")).equals(readFileSync(path))).toBe(true);
  expect(runApp("check", path, "--integrity")).toMatch(/^ok/);
}

test(`Sluice and applications killed at random: the log adds up to the database (seed ${seed})`, async () => {
  await expect(storm({ seconds: 8, pageSize: 4096 })).resolves.toBeUndefined();
});

test(`the same with pages of 512 bytes (seed ${seed})`, async () => {
  await expect(storm({ seconds: 5, pageSize: 512 })).resolves.toBeUndefined();
});

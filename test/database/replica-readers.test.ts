import { spawn } from "node:child_process";
import { copyFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, expect, test } from "vitest";
import { lacks, sqliteEnvironment, type SqliteVersion } from "../peers/peers.ts";
import { type RunningApp, scratch, track } from "./apps.ts";
import { BankSource, recordOf } from "./bank-source.ts";
import { random, testSeed } from "./random.ts";

let dir: ReturnType<typeof scratch>;
const running = new Set<RunningApp>();
let over = new AbortController();
beforeEach(() => {
  over = new AbortController();
  dir = scratch("readers");
});
afterEach(async () => {
  over.abort();
  for (const app of running) {
    app.kill();
    await app.ended;
  }
  running.clear();
  dir.remove();
});

function start(command: string, args: readonly (string | number)[], env: NodeJS.ProcessEnv = {}): RunningApp {
  const app = track(spawn(command, args.map(String), { env: { ...process.env, ...env } }));
  running.add(app);
  void app.ended.finally(() => running.delete(app));
  return app;
}

const app = (name: string): string => fileURLToPath(new URL(`../apps/${name}.py`, import.meta.url));

interface Storm {
  readonly pageSize: number;
  readonly commits: number;
  readonly versions: readonly SqliteVersion[];
  /** Kills the applier again and again, some times. */
  readonly kills: boolean;
}

/** Commits are applied under readers of several SQLite versions, none of which may find anything but a commit. */
async function storm({ pageSize, commits, versions, kills }: Storm): Promise<{ lives: number; restarts: number }> {
  const seed = testSeed + pageSize;
  const rnd = random(seed);
  const path = dir.path("replica.db");
  const bank = new BankSource(dir.path("source.db"), pageSize, rnd);
  copyFileSync(bank.source.path, path);
  const records = Array.from({ length: commits }, () => recordOf(bank.next()));
  writeFileSync(dir.path("record"), Buffer.concat(records));
  const readers = versions.map((version, i) =>
    start(
      "python3",
      [
        app("follow"),
        path,
        "--until",
        commits,
        "--seconds",
        50 * scale,
        "--seed",
        seed + i,
        "--hold",
        i === 0 ? 0.4 : 0.02,
      ],
      {
        ...sqliteEnvironment(version),
      },
    ),
  );
  const applier = fileURLToPath(new URL("applier-process.ts", import.meta.url));
  let lives = 0;
  let restarts = 0;
  while (!over.signal.aborted) {
    const life = start(process.execPath, [applier, path, dir.path("record"), 1]);
    lives++;
    // Now and then while it starts.
    const delayMs = 500 * rnd();
    if (kills && lives < 5) {
      if (rnd() < 0.2) setTimeout(() => life.kill(), delayMs);
      else life.process.stdout!.once("data", () => setTimeout(() => life.kill(), delayMs));
    }
    const { code, output } = await life.ended;
    if (code !== null) {
      expect(output).toMatch(/^begun\ndone \d+/);
      restarts += Number(output.split(" ")[1]);
      break;
    }
  }
  for (const [i, reader] of readers.entries()) {
    const { output } = await reader.ended;
    expect(`SQLite ${versions[i]}: ${output}`).toMatch(/: ok \d{2,}\n$/);
  }
  const db = new Sqlite(path);
  try {
    expect(db.serialize().equals(bank.source.bytes)).toBe(true);
    expect(db.pragma("integrity_check", { simple: true })).toBe("ok");
  } finally {
    db.close();
    bank.source.close();
  }
  return { lives, restarts };
}

const some: readonly SqliteVersion[] = ["3.14.1", "3.31.1", "3.54.1-debug"];
const others: readonly SqliteVersion[] = ["3.39.1", "3.50.4", "3.54.1"];
/** `SLUICE_READERS_SCALE` for long runs, with all page sizes. */
const scale = Number(process.env["SLUICE_READERS_SCALE"] ?? 1);
const pageSizes = scale > 1 ? [512, 1024, 4096, 65536] : undefined;
const patienceMs = 60_000 * scale;

test.skipIf(lacks(...some)).each(pageSizes ?? [4096])(
  `readers of a replica with pages of %i bytes find commits only (seed ${testSeed})`,
  async (pageSize) => {
    const commits = (pageSize > 4096 ? 300 : 1000) * scale;
    const { restarts } = await storm({ pageSize, commits, versions: some, kills: false });
    expect(restarts).toBeGreaterThan(0);
  },
  patienceMs,
);

test.skipIf(lacks(...others)).each(pageSizes ?? [1024])(
  `the same with pages of %i bytes when the applier is killed again and again (seed ${testSeed})`,
  async (pageSize) => {
    const commits = (pageSize > 4096 ? 300 : 700) * scale;
    const { lives } = await storm({ pageSize, commits, versions: others, kills: true });
    expect(lives).toBeGreaterThan(2);
  },
  patienceMs,
);

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { runApp, scratch, track, type RunningApp } from "../database/apps.ts";
import { Replay } from "../database/replay.ts";
import { lacks, sqliteEnvironment, type SqliteVersion, sqliteVersions } from "../peers/peers.ts";

const seed = Number(process.env["SLUICE_TEST_SEED"] ?? Math.floor(Math.random() * 1e6));
const SECONDS = 3;
const PAGE = 4096;
/** Commits that a storm has at least. */
const COMMITS = 5;

let dir: ReturnType<typeof scratch>;
beforeEach(() => {
  dir = scratch("builds");
});
afterEach(() => dir.remove());

/** An application of `test/apps`, or a few lines of Python, with a certain SQLite inside. */
function start(version: SqliteVersion, name: string, ...args: (string | number)[]): RunningApp {
  const file = fileURLToPath(new URL(`../apps/${name}.py`, import.meta.url));
  const env = { ...process.env, ...sqliteEnvironment(version) };
  return track(spawn("python3", [file, ...args.map(String)], { env }));
}

function python(version: SqliteVersion, code: string, ...args: string[]): RunningApp {
  return track(spawn("python3", ["-c", code, ...args], { env: { ...process.env, ...sqliteEnvironment(version) } }));
}

/** Writers of some builds, killed at random, a reader of another; what was captured must be the database. */
async function storm(writers: readonly SqliteVersion[], reader: SqliteVersion): Promise<Replay> {
  const path = dir.path("app.db");
  runApp("storm", path, "--create", "--page-size", PAGE);
  // Small limits, so that backfills and restarts of the WAL happen all the time.
  const replay = await Replay.open(path, { backfillFrames: 50, restartBytes: 200 * PAGE, hardBytes: 2000 * PAGE });
  const startMs = performance.now();
  let life = seed;
  // On a loaded machine a writer may be killed before its first commit: until there are some, each lives longer.
  let patience = 1;
  const write = async (version: SqliteVersion): Promise<void> => {
    while (performance.now() - startMs < SECONDS * 1000 || (replay.commits <= COMMITS && patience < 50)) {
      const app = start(version, "storm", path, "--seed", life++, "--seconds", SECONDS, "--big", 100_000);
      setTimeout(() => app.kill(), (300 + ((life * 7919) % 900)) * patience).unref();
      const { code, output } = await app.ended;
      if (code !== null && code !== 0) throw new Error(`${version}: ${output}`);
      if (replay.commits <= COMMITS) patience++;
    }
  };
  const reading = start(reader, "check", path, "--seconds", SECONDS);
  await Promise.all(writers.map(write));
  expect(await reading.ended).toMatchObject({ code: 0 });
  expect([replay.losses, replay.failures]).toEqual([[], []]);
  replay.wal.stop();
  await replay.queue(async () => {});
  expect(await replay.wal.finish(5_000)).toBeDefined();
  replay.wal.release();
  replay.write(dir.path("replay.db"));
  expect(readFileSync(dir.path("replay.db")).equals(readFileSync(path))).toBe(true);
  expect(runApp("check", dir.path("replay.db"), "--integrity")).toMatch(/^ok/);
  return replay;
}

describe.each(sqliteVersions)("SQLite %s", (version) => {
  const missing = lacks(version);

  test.skipIf(missing)(`writes and reads beside Sluice; what is captured is the database (seed ${seed})`, async () => {
    const says = await python(version, "import sqlite3; print(sqlite3.sqlite_version)").ended;
    expect(says.output.trim()).toBe(version.replace("-debug", ""));
    const replay = await storm([version, version], version);
    expect(replay.commits).toBeGreaterThan(COMMITS);
    expect(replay.seals).toBeGreaterThan(1);
  });

  test.skipIf(missing)("neither checkpoints nor restarts the WAL beside Sluice", async () => {
    const path = dir.path("app.db");
    runApp("storm", path, "--create", "--page-size", PAGE);
    const replay = await Replay.open(path, { backfillFrames: 1_000_000 });
    const { salt1, salt2 } = replay.wal.capture.header;
    const tried = `
import sqlite3, sys
for mode in ["passive", "full", "restart", "truncate"]:
    c = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
    c.execute("pragma wal_autocheckpoint=1")
    c.execute("insert into item(body, sum) values(zeroblob(9000), 0)")
    print(c.execute("pragma wal_checkpoint(" + mode + ")").fetchone()[0])
    c.close()`;
    // The last close of each connection wants to merge the WAL, too.
    const { output } = await python(version, tried, path).ended;
    expect(output.trim().split(/\s+/)).toEqual(["1", "1", "1", "1"]);
    replay.wal.captureNow();
    const { header, frame, image } = replay.wal.capture;
    // The first commit of a generation may draw salts; from then on they stay, and nothing was backfilled.
    expect(frame).toBeGreaterThan(8);
    expect(image.backfill).toBe(0);
    if (salt1 !== 0) expect([header.salt1, header.salt2]).toEqual([salt1, salt2]);
    expect(replay.restarts).toBe(0);
    replay.wal.release();
  });
});

test.skipIf(lacks("3.14.1", "3.39.1", "3.54.1"))(`builds of three ages at once (seed ${seed})`, async () => {
  expect((await storm(["3.14.1", "3.39.1", "3.54.1"], "3.39.1")).commits).toBeGreaterThan(COMMITS);
});

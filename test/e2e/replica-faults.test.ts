import { execFileSync, spawn } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Database } from "../../src/database/database.ts";
import { Replica } from "../../src/database/replica.ts";
import type { SluiceError } from "../../src/errors/error.ts";
import { Wire } from "../cluster/stream/wire.ts";
import { type RunningApp, startPython, track } from "../database/apps.ts";
import { random, testSeed } from "../database/random.ts";
import { sqliteEnvironment } from "../peers/peers.ts";
import { type NodeOptions, Nodes } from "./nodes.ts";
import { root } from "./site.ts";

/** Power losses in one run. */
const ROUNDS = Number(process.env["SLUICE_REPLICAS_ROUNDS"] ?? 1);

let nodes: Nodes;
const apps = new Set<RunningApp>();
const wires: Wire[] = [];
beforeEach(() => {
  nodes = new Nodes();
});
afterEach(async () => {
  for (const app of apps) {
    app.kill();
    await app.ended;
  }
  apps.clear();
  await nodes[Symbol.asyncDispose]();
  for (const wire of wires.splice(0)) await wire.close();
});

/** A reader leaves the others a little of the processor; a later `--pause` counts more. */
function transfers(what: "read" | "write", name: string, ...more: (string | number)[]): RunningApp {
  const script = path.join(root, "test/apps/transfers.py");
  const env = { ...process.env, ...sqliteEnvironment("3.54.1") };
  const app = track(
    spawn(
      "python3",
      [script, what, nodes.db(name), ...(what === "read" ? ["--pause", "0.001"] : []), ...more.map(String)],
      { env },
    ),
  );
  apps.add(app);
  return app;
}

async function primary(options?: NodeOptions): Promise<void> {
  await nodes.start("a", options);
  await nodes.until("a", "primary", ({ role }) => role === "primary");
}

async function two(options?: NodeOptions): Promise<void> {
  await primary();
  await transfers("write", "a", "--commits", 30).ended;
  await nodes.start("b", options);
  await nodes.reaches("b", "following");
}

/** When nobody writes, the node comes to have what the primary has. */
async function expectEqual(name = "b"): Promise<void> {
  await nodes.inStep("a", name);
  expect(await nodes.content(name)).toMatch(/ ok$/);
}

async function wireTo(name: string): Promise<Wire> {
  const wire = await Wire.open(await nodes.url(name));
  wires.push(wire);
  return wire;
}

/** Every file below a node's directory, and what is in it. */
function files(name: string): Map<string, string> {
  const all = readdirSync(nodes.at(name), { recursive: true, encoding: "utf8" }).toSorted();
  const plain = all.filter((file) => statSync(nodes.at(name, file)).isFile() && !file.endsWith("-shm"));
  return new Map(plain.map((file) => [file, readFileSync(nodes.at(name, file), "latin1")]));
}

test("an application that writes on a replica, and a second Sluice on its file", { timeout: 60_000 }, async () => {
  await two();
  expect(await nodes.refusal("b", "insert into state values(5)")).toMatch(/database is locked/);
  expect(await nodes.refusal("b", "pragma wal_checkpoint(truncate)", "create table x(y)")).toMatch(/locked/);
  const code = (opening: Promise<unknown>): Promise<unknown> =>
    opening.catch((error: unknown) => (error as SluiceError).code);
  expect(await code(Replica.open(nodes.db("b"), { limits: { openMs: 300 } }))).toBe("SLU-2003");
  expect(await code(Database.open(nodes.db("b"), { limits: { openMs: 300 } }))).toBe("SLU-2003");
  // The first goes on as if nothing had been.
  await transfers("write", "a", "--commits", 30).ended;
  expect(await nodes.refusal("b", "insert into state values(5)")).toMatch(/database is locked/);
  await expectEqual();
});

test(
  "links that are cut, silent and slow while the primary writes, and a primary that is killed",
  { timeout: 90_000 },
  async () => {
    const seed = testSeed;
    const rnd = random(seed);
    await primary();
    await transfers("write", "a", "--commits", 30).ended;
    const wire = await wireTo("a");
    await nodes.start("b", { primary: wire.url });
    await nodes.reaches("b", "following");
    const reader = transfers("read", "b", "--seconds", 4);
    const writer = transfers("write", "a", "--seconds", 3, "--pause", 0.001);
    for (let round = 0; round < 6; round++) {
      await delay(500 * rnd());
      const what = rnd();
      if (what < 0.4) wire.cut();
      else if (what < 0.7) {
        wire.stall();
        await delay(300);
        wire.flow();
      } else {
        wire.silence();
        await delay(300 * rnd());
        wire.cut();
        wire.flow();
      }
    }
    expect((await writer.ended).output, `seed ${seed}`).toMatch(/^commits/);
    nodes.kill("a");
    await nodes.over("a");
    await primary();
    await transfers("write", "a", "--commits", 30).ended;
    expect((await reader.ended).output, `seed ${seed}`).toMatch(/errors \{\}\nrounds [1-9]\d* bad 0\n$/);
    await expectEqual();
  },
);

test(
  "another secret, another log's database: refused with a code, and nothing is changed",
  { timeout: 90_000 },
  async () => {
    await primary({ lines: ["cluster: { secret: right-secret-0123456789 }"] });
    await transfers("write", "a", "--commits", 30).ended;
    const follower = { lines: ["cluster: { secret: wrong-secret-0123456789 }"] };
    // Without the primary it follows the log; the stream is never its.
    await nodes.start("b", follower);
    await expect.poll(() => nodes.output("b"), { timeout: 20_000 }).toContain("SLU-8201");
    expect((await nodes.status("a")).replicas ?? []).toEqual([]);
    await nodes.stop("b");
    // c was a primary of its own, with another store.
    const own = await nodes.url("c");
    const foreign = { primary: own, store: "other" };
    await nodes.start("c", foreign);
    await nodes.until("c", "primary", ({ role }) => role === "primary");
    await transfers("write", "c", "--commits", 10, "--seed", 7).ended;
    await nodes.reaches("c", "protected");
    expect(await nodes.stop("c")).toBe(0);
    const before = files("c").get("app.db")!;
    await nodes.start("c", { lines: ["cluster: { secret: right-secret-0123456789 }"] });
    await expect.poll(() => nodes.output("c"), { timeout: 20_000 }).toMatch(/SLU-(4105|8207)/);
    // Whichever is asked first says so, the primary or the log; nothing is served then.
    expect(await nodes.over("c")).not.toBe(0);
    expect(files("c").get("app.db")).toBe(before);
  },
);

test("a damaged WAL or wal-index at the start of a replica", { timeout: 120_000 }, async () => {
  await two();
  const rnd = random(testSeed);
  const damage: readonly ((file: string) => void)[] = [
    (file) => scribble(`${file}-wal`, rnd, 32),
    (file) => scribble(`${file}-shm`, rnd, 0),
    (file) => truncateSync(`${file}-wal`, Math.floor(statSync(`${file}-wal`).size * 0.6)),
    (file) => rmSync(`${file}-shm`),
  ];
  for (const one of damage) {
    await transfers("write", "a", "--commits", 60).ended;
    await expectEqual();
    nodes.kill("b");
    await nodes.over("b");
    expect(statSync(`${nodes.db("b")}-wal`).size).toBeGreaterThan(10_000);
    one(nodes.db("b"));
    await nodes.start("b");
    await nodes.reaches("b", "following");
    await expectEqual();
  }
});

function scribble(file: string, rnd: () => number, from: number): void {
  const bytes = readFileSync(file);
  for (let i = 0; i < 20; i++) bytes[from + Math.floor(rnd() * (bytes.length - from))]! ^= 1 + Math.floor(rnd() * 255);
  writeFileSync(file, bytes);
}

test(
  "killed at chosen calls in the midst of applying: each life goes on from a committed state",
  { timeout: 180_000 },
  async () => {
    await two();
    const kill = path.resolve(import.meta.dirname, "kill-in-call.ts");
    const writer = transfers("write", "a", "--seconds", 100, "--pause", 0.002);
    const reader = transfers("read", "b", "--seconds", 100, "--pause", 0.002);
    await nodes.stop("b");
    for (const [file, nth, when] of [
      ["app.db-wal$", 7, "half"],
      ["app.db-wal$", 20, "after"],
      ["app.db-shm$", 30, "after"],
      ["/applied$", 6, "half"],
      ["app.db$", 1, "half"],
      ["app.db$", 9, "after"],
    ] as const) {
      const point = JSON.stringify({ call: "writeSync", file, nth, when });
      await nodes.start("b", { env: { SLUICE_KILL: point, NODE_OPTIONS: `--import=${kill}` } });
      expect(await nodes.over("b"), `${point}\n${nodes.output("b")}`).toBe("SIGKILL");
    }
    await nodes.start("b");
    await nodes.reaches("b", "following");
    writer.process.kill("SIGTERM");
    await writer.ended;
    await expectEqual();
    expect(reader.process.exitCode).toBe(null);
    // Everything that it has found bad was printed at once.
    reader.process.kill("SIGTERM");
    expect((await reader.ended).output).toBe("");
  },
);

test(
  "a power loss that leaves old blocks among the new: a committed state, and it goes on from there",
  { timeout: 60_000 + 60_000 * ROUNDS },
  async () => {
    await two();
    const seed = testSeed;
    const rnd = random(seed);
    const file = nodes.db("b");
    for (let round = 0; round < ROUNDS; round++) {
      const writer = transfers("write", "a", "--seconds", 100, "--pause", 0.001);
      await delay(300 + 500 * rnd());
      const old = nodes.at("old");
      nodes.kill("b", "SIGSTOP");
      for (const suffix of ["", "-wal"]) copyFileSync(file + suffix, old + suffix);
      nodes.kill("b", "SIGCONT");
      await delay(600 * rnd());
      nodes.kill("b");
      await nodes.over("b");
      writer.process.kill("SIGTERM");
      await writer.ended;
      losePower(file, old, rnd);
      if (rnd() < 0.5) truncateSync(nodes.at("b", ".app.db-sluice", "applied"), 0);
      // What SQLite makes of it, without Sluice.
      mkdirSync(nodes.at("seen"), { recursive: true });
      for (const suffix of ["", "-wal"]) copyFileSync(file + suffix, nodes.db("seen") + suffix);
      const seen = await transfers("read", "seen", "--seconds", 0.2).ended;
      expect(seen.output, `seed ${seed}`).toMatch(/errors \{\}\nrounds [1-9]\d* bad 0\n$/);
      rmSync(nodes.at("seen"), { recursive: true });
      const reader = transfers("read", "b", "--seconds", 1.5);
      await nodes.start("b");
      await nodes.reaches("b", "following");
      expect((await reader.ended).output, `seed ${seed}`).toMatch(/errors \{\}\nrounds [1-9]\d* bad 0\n$/);
      await expectEqual();
    }
  },
);

/**
 * What was written since `old` may be on the disk or not, block for block, as far as it wasn't synced: the database file since
 * the WAL began anew, and frames that no backfill has reached. The wal-index is never on a disk.
 */
function losePower(file: string, old: string, rnd: () => number): void {
  const [wal, walBefore] = [readFileSync(`${file}-wal`), readFileSync(`${old}-wal`)];
  const backfilled = readFileSync(`${file}-shm`).readUInt32LE(96);
  mix(wal, walBefore, 32 + backfilled * (24 + 4096), rnd);
  writeFileSync(`${file}-wal`, wal);
  if (wal.subarray(0, 32).equals(walBefore.subarray(0, 32))) {
    const [db, dbBefore] = [readFileSync(file), readFileSync(old)];
    mix(db, dbBefore, 0, rnd);
    writeFileSync(file, db);
  }
  rmSync(`${file}-shm`);
}

function mix(now: Buffer, before: Buffer, from: number, rnd: () => number): void {
  const share = rnd();
  for (let at = Math.ceil(from / 4096) * 4096; at < now.length; at += 4096) {
    if (rnd() > share) continue;
    const end = Math.min(now.length, at + 4096);
    now.fill(0, at, end);
    if (at < before.length) before.copy(now, at, at, Math.min(end, before.length));
  }
}

test(
  "a long reader on the replica: commits go on coming, and the WAL begins anew after it",
  { timeout: 90_000 },
  async () => {
    await two();
    const reader = startPython(
      nodes.db("b"),
      `db.execute("begin"); first = db.execute("select n from state").fetchone()
print("reading", flush=True); sys.stdin.read()
print(first == db.execute("select n from state").fetchone(), db.execute("pragma integrity_check").fetchone())`,
    );
    apps.add(reader);
    await new Promise((resolve) => reader.process.stdout!.once("data", resolve));
    const blob =
      "insert into transfer(a, note) with recursive n(i) as (select 1 union all select i+1 from n where i<4000) select 1, zeroblob(20000) from n";
    await nodes.sql("a", blob);
    await expect
      .poll(() => nodes.sql("b", "select count(*) from transfer where length(note) = 20000"), { timeout: 20_000 })
      .toBe("[(4000,)]");
    const walBytes = async (): Promise<number> => (await nodes.status("b")).databases[0]!.walBytes!;
    expect(await walBytes()).toBeGreaterThan(80_000_000);
    reader.process.stdin!.end();
    expect((await reader.ended).output).toMatch(/^reading\nTrue \('ok',\)\n$/);
    for (const end = Date.now() + 30_000; (await walBytes()) > 5_000_000; await delay(100)) {
      expect(Date.now()).toBeLessThan(end);
      await nodes.sql("a", "update state set n = n");
    }
    await expectEqual();
  },
);

test(
  "the log is followed where that is wanted, and while the primary can't be reached",
  { timeout: 90_000 },
  async () => {
    await primary();
    await transfers("write", "a", "--commits", 30).ended;
    const wire = await wireTo("a");
    await nodes.start("b", { primary: wire.url });
    await nodes.start("c", { db: "source: store" });
    await nodes.reaches("b", "following");
    await nodes.reaches("c", "following");
    const names = async (): Promise<string[]> => ((await nodes.status("a")).replicas ?? []).map(({ name }) => name);
    await expect.poll(names, { timeout: 10_000 }).toContain("b");
    wire.down(true);
    await transfers("write", "a", "--commits", 30).ended;
    await expectEqual("b");
    await expectEqual("c");
    expect(await names()).not.toContain("b");
    wire.down(false);
    await expect.poll(names, { timeout: 15_000 }).toContain("b");
    await transfers("write", "a", "--commits", 30).ended;
    await expectEqual("b");
    await expectEqual("c");
  },
);

test(
  "a full disk on a replica: readers stay where they are, nobody can write, and it goes on",
  { timeout: 90_000 },
  async (context) => {
    mkdirSync(nodes.at("b"));
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=40m", "tmpfs", nodes.at("b")], { stdio: "ignore" });
    } catch {
      context.skip(true, "needs the right to mount a small file system");
    }
    try {
      await two();
      await expectEqual();
      const { bavail, bsize } = statfsSync(nodes.at("b"));
      writeFileSync(nodes.at("b", "filler"), Buffer.alloc(bavail * bsize - 60_000));
      const before = await nodes.content("b");
      const grow = "insert into transfer(a, note) select 1, randomblob(1000000)";
      await nodes.sql("a", grow);
      await nodes.until("b", "SLU-2008", ({ databases: [database] }) => database?.error?.code === "SLU-2008");
      for (let i = 0; i < 4; i++) {
        expect(await nodes.refusal("b", "update state set n = 5")).toMatch(/database is locked|disk is full/);
        expect(await nodes.content("b")).toBe(before);
      }
      rmSync(nodes.at("b", "filler"));
      await expectEqual();
      await nodes.reaches("b", "following");
      await transfers("write", "a", "--commits", 30).ended;
      await expectEqual();
    } finally {
      execFileSync("umount", ["-l", nodes.at("b")]);
    }
  },
);

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { ServedNode } from "../../src/cli/node-view.ts";
import { Node } from "../../src/cluster/node.ts";
import type { NodeOptions } from "../../src/cluster/node-options.ts";
import type { Config } from "../../src/config/config.ts";
import { parseConfig } from "../../src/config/load.ts";
import { resolveConfig } from "../../src/config/resolve.ts";
import { logContext } from "../../src/log/context.ts";
import { endLog } from "../../src/log/identity.ts";
import { createLog } from "../../src/observe/log.ts";
import { Metrics } from "../../src/observe/metrics.ts";
import { DirectoryStore } from "../../src/store/directory.ts";

let dir: string;
let nodes: Node[];

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-node-"));
  nodes = [];
});

afterEach(async () => {
  for (const node of nodes) await node.stop();
  rmSync(dir, { recursive: true, force: true });
});

function at(...parts: string[]): string {
  return path.join(dir, ...parts);
}

function config(text: string): Config {
  const { value, problems } = parseConfig(text, {});
  expect(problems).toEqual([]);
  const resolved = resolveConfig(value!, at("sluice.yml"), {});
  if (!("dbs" in resolved)) throw new Error(JSON.stringify(resolved));
  return resolved;
}

function node(text: string, options: Partial<NodeOptions> = {}): Node {
  const made = new Node({
    config: config(text),
    log: createLog({ level: "error" }),
    metrics: new Metrics(),
    restoreMissing: true,
    ...options,
  });
  nodes.push(made);
  return made;
}

async function end(made: Node): Promise<readonly string[]> {
  nodes = nodes.filter((other) => other !== made);
  return made.stop();
}

/** An application of its own process: SQLite's locks belong to processes. */
function sql(file: string, ...statements: string[]): string {
  const script = `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
for s in sys.argv[2:]: r = c.execute(s).fetchall()
print(r)`;
  return execFileSync("python3", ["-c", script, file, ...statements], { encoding: "utf8" }).trim();
}

const one = `dbs: [ { path: data/app.db, store: store } ]`;
const many = `dbs: [ { dir: data, recursive: true, store: store } ]`;
const soon = (): AbortSignal => AbortSignal.timeout(20_000);

test("a database that its application creates later is protected from then on", async () => {
  const made = node(one);
  await made.start();
  expect(made.status.databases[0]?.state).toBe("waiting");
  sql(at("data/app.db"), "create table t(a)", "insert into t values(7)");
  await made.sync(at("data/app.db"), "store", soon());
  await end(made);
  rmSync(at("data"), { recursive: true });
  await node(one).start();
  expect(sql(at("data/app.db"), "select a from t")).toBe("[(7,)]");
});

test("a database that can't be opened yet keeps waiting who asks for durability, and no longer", async () => {
  const made = node(one);
  await made.start();
  const view = new ServedNode(made, "a", 0);
  expect(view.positions()).toEqual([]);
  // It isn't in WAL mode yet, and locked: that can't be changed under its application.
  const script = `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
c.execute("create table t(a)")
c.execute("begin exclusive")
print("locked", flush=True)
sys.stdin.readline()
c.execute("commit")`;
  const holder = spawn("python3", ["-c", script, at("data/app.db")], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    await once(holder.stdout, "data");
    expect(view.positions()).toEqual([{ db: "app.db", position: 0n }]);
    await vi.waitFor(() => expect(made.status.databases[0]?.state).toBe("opening"), 20_000);
    let isDurable = false;
    const durable = view.waitDurable("app.db", 0n, "store", soon()).then(() => (isDurable = true));
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(isDurable).toBe(false);
    holder.stdin.end("\n");
    await durable;
    expect(made.status.databases[0]?.state).toBe("protected");
  } finally {
    holder.kill();
  }
});

test("a whole directory comes back on an empty disk, with what appeared while it was watched", async () => {
  mkdirSync(at("data/x"), { recursive: true });
  sql(at("data/a.db"), "create table t(a)", "insert into t values(1)");
  const made = node(many);
  await made.start();
  sql(at("data/x/b.db"), "create table t(a)", "insert into t values(2)");
  await vi.waitFor(
    () => expect(made.status.databases.map(({ state }) => state)).toEqual(["protected", "protected"]),
    15_000,
  );
  await end(made);
  rmSync(at("data"), { recursive: true });
  await node(many).start();
  expect([sql(at("data/a.db"), "select a from t"), sql(at("data/x/b.db"), "select a from t")]).toEqual([
    "[(1,)]",
    "[(2,)]",
  ]);
});

test("a forgotten database of a directory stays away, and keeps no other from coming back", async () => {
  mkdirSync(at("data"));
  for (const name of ["kept.db", "old.db"]) sql(at("data", name), "create table t(a)");
  const first = node(many);
  await first.start();
  for (const name of ["kept.db", "old.db"]) await first.sync(at("data", name), "store", soon());
  await end(first);
  rmSync(at("data"), { recursive: true });
  await endLog(logContext(new DirectoryStore(at("store")), { prefix: "old.db" }), soon());
  const second = node(many);
  await second.start();
  expect(existsSync(at("data/kept.db"))).toBe(true);
  expect(existsSync(at("data/old.db"))).toBe(false);
  expect(second.status.databases.map(({ name }) => name)).toEqual(["data/kept.db"]);
});

test("one database of a directory that can't be protected doesn't keep the others from it", async () => {
  mkdirSync(at("data"));
  for (const name of ["a", "b"]) sql(at(`data/${name}.db`), "create table t(a)");
  await node(many).start();
  await end(nodes[0]!);
  rmSync(at("data/.a.db-sluice"), { recursive: true });
  const made = node(many);
  await made.start();
  const states = made.status.databases.map(({ path: file, state, error }) => [path.basename(file), state, error?.code]);
  expect(states.toSorted(([a], [b]) => (a! < b! ? -1 : 1))).toEqual([
    ["a.db", "failed", "SLU-4104"],
    ["b.db", "protected", undefined],
  ]);
});

test("a database that leaves the directory leaves the node", async () => {
  mkdirSync(at("data"));
  for (const name of ["a", "b"]) sql(at(`data/${name}.db`), "create table t(a)");
  const made = node(many);
  await made.start();
  rmSync(at("data/a.db"));
  await vi.waitFor(() => expect(made.paths).toEqual([at("data/b.db")]), 15_000);
});

test("a file that is replaced under the node is captured as it is now", async () => {
  mkdirSync(at("data"));
  sql(at("data/app.db"), "create table t(a)", "insert into t values(1)");
  const made = node(one);
  await made.start();
  sql(at("other.db"), "create table u(b)", "insert into u values('new')");
  renameSync(at("other.db"), at("data/app.db"));
  for (const suffix of ["-wal", "-shm"]) rmSync(at(`data/app.db${suffix}`), { force: true });
  await vi.waitFor(() => expect(made.status.databases[0]?.state).not.toBe("protected"), 10_000);
  await vi.waitFor(() => expect(made.status.databases[0]?.state).toBe("protected"), 20_000);
  await made.sync(at("data/app.db"), "store", soon());
  await end(made);
  rmSync(at("data"), { recursive: true });
  await node(one).start();
  expect(sql(at("data/app.db"), "select b from u")).toBe("[('new',)]");
});

test("who was passed by another writer stops; with --adopt it goes on, and its file is in the quarantine", async () => {
  mkdirSync(at("data"));
  sql(at("data/app.db"), "create table t(a)", "insert into t values(1)");
  await node(one).start();
  await end(nodes[0]!);
  renameSync(at("data"), at("away"));
  const other = node(one);
  await other.start();
  sql(at("data/app.db"), "insert into t values(2)");
  await end(other);
  rmSync(at("data"), { recursive: true });
  renameSync(at("away"), at("data"));
  sql(at("data/app.db"), "insert into t values(3)");

  await expect(node(one).start()).rejects.toMatchObject({ code: "SLU-4101" });
  expect(sql(at("data/app.db"), "select a from t")).toBe("[(1,), (3,)]");
  await end(nodes[0]!);

  await node(one, { adopt: true }).start();
  expect(sql(at("data/app.db"), "select a from t")).toBe("[(1,), (2,)]");
  const quarantine = at("data/.app.db-sluice/quarantine");
  const kept = path.join(quarantine, readdirSync(quarantine)[0]!, "app.db");
  expect(sql(kept, "select a from t")).toBe("[(1,), (3,)]");
});

test("a database without history is refused where the log has one", async () => {
  mkdirSync(at("data"));
  sql(at("data/app.db"), "create table t(a)");
  await node(one).start();
  await end(nodes[0]!);
  rmSync(at("data/.app.db-sluice"), { recursive: true });
  await expect(node(one).start()).rejects.toMatchObject({ code: "SLU-4104" });
});

test("what an application did while nobody looked is captured at the next start", async () => {
  mkdirSync(at("data"));
  sql(at("data/app.db"), "create table t(a)", "insert into t values(1)");
  await node(one).start();
  await end(nodes[0]!);
  sql(at("data/app.db"), "insert into t values(2)", "vacuum");
  const made = node(one);
  await made.start();
  await end(made);
  rmSync(at("data"), { recursive: true });
  await node(one).start();
  expect(sql(at("data/app.db"), "select a from t")).toBe("[(1,), (2,)]");
});

test("on an empty disk with a store that can't answer, nothing starts", async () => {
  mkdirSync(at("store"));
  const made = node(`dbs: [ { path: data/app.db, store: "s3://bucket/app?endpoint=http://127.0.0.1:9" } ]
access-key-id: a
secret-access-key: b`);
  await expect(made.start()).rejects.toMatchObject({ code: "SLU-4113" });
  expect(existsSync(at("data/app.db"))).toBe(false);
});

test("with the database on disk and the store away, the application may start, and the commits are kept", async () => {
  mkdirSync(at("data"));
  sql(at("data/app.db"), "create table t(a)");
  const made = node(`shutdown-sync-timeout: 1s
dbs: [ { path: data/app.db, store: "s3://bucket/app?endpoint=http://127.0.0.1:9" } ]
access-key-id: a
secret-access-key: b`);
  await made.start();
  expect(made.status.databases[0]?.state).toBe("taking-over");
  sql(at("data/app.db"), "insert into t values(1)");
  expect(await end(made)).toEqual([expect.stringContaining("are on this disk and not in the store")]);
  expect(sql(at("data/app.db"), "select a from t")).toBe("[(1,)]");
});

test("who waits while a takeover can't reach the store goes on when it's back", async () => {
  mkdirSync(at("data"));
  sql(at("data/app.db"), "create table t(a)");
  writeFileSync(at("store"), "in the way");
  const made = node(one);
  const started = made.start();
  await vi.waitFor(() => expect(made.status.databases[0]?.state).toBe("taking-over"), 20_000);
  const view = new ServedNode(made, "a", 0);
  // No name that the log has not confirmed.
  expect(view.positions()).toEqual([{ db: "app.db", position: 0n }]);
  let isDurable = false;
  const durable = view.waitDurable("app.db", 0n, "store", soon()).then(() => (isDurable = true));
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(isDurable).toBe(false);
  rmSync(at("store"));
  await durable;
  await started;
  expect(made.status.databases[0]?.state).toBe("protected");
});

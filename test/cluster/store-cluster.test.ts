import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { stateDirOf } from "../../src/database/database.ts";
import { quarantined } from "../../src/database/quarantined.ts";
import { ServedNode } from "../../src/cli/node-view.ts";
import { StaticLease } from "../../src/lease/static-lease.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { TestCluster } from "./nodes.ts";

let cluster: TestCluster;
beforeEach(() => {
  cluster = new TestCluster();
});
afterEach(() => cluster.remove());

const patient = { timeout: 20_000, interval: 20 };

test("a node doesn't join a cluster over a store that lets two writers create one object", async () => {
  const real = Object.getOwnPropertyDescriptor(DirectoryStore.prototype, "put")!.value as DirectoryStore["put"];
  const unconditional = vi.spyOn(DirectoryStore.prototype, "put").mockImplementation(function put(
    this: DirectoryStore,
    key,
    body,
  ) {
    return real.call(this, key, body);
  });
  try {
    await expect(cluster.make("a").start()).rejects.toMatchObject({ code: "SLU-3004" });
    await cluster.stop("a");
    // Where the configuration says who is primary it is told, and the node goes on.
    const register = new StaticLease("http://a:1", "http://a:1");
    await cluster.make("a", { register }).start();
    await expect.poll(() => cluster.primary, patient).toBe("a");
  } finally {
    unconditional.mockRestore();
  }
});

test("one node leads, another follows through the log, and takes over when the first is gone", async () => {
  await cluster.make("a").start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "create table t(x)", "insert into t values('from a')");
  const b = cluster.make("b");
  await b.start();
  expect(b.role).toBe("replica");
  await expect.poll(() => cluster.sqlBeside("b", 1, "select x from t"), patient).toBe("[('from a',)]");
  await expect(cluster.sqlBeside("b", 0.1, "insert into t values(1)")).rejects.toThrow(/locked/);
  await cluster.stop("a");
  await expect.poll(() => cluster.primary, patient).toBe("b");
  await cluster.sqlBeside("b", 10, "insert into t values('from b')");
  const a = cluster.make("a");
  await a.start();
  await expect.poll(() => cluster.sqlBeside("a", 1, "select x from t"), patient).toBe("[('from a',), ('from b',)]");
  await expect(cluster.sqlBeside("a", 0.1, "insert into t values(1)")).rejects.toThrow(/locked/);
});

test("a lost disk comes back as a replica's", async () => {
  await cluster.make("a").start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "create table t(x)", "insert into t values('one')");
  await cluster.make("b").start();
  await expect.poll(() => cluster.sqlBeside("b", 1, "select x from t"), patient).toBe("[('one',)]");
  await cluster.stop("b");
  rmSync(cluster.at("b"), { recursive: true });
  await cluster.make("b").start();
  expect(await cluster.sqlBeside("b", 1, "select x from t")).toBe("[('one',)]");
});

test("a node whose last commits left the history puts them aside, and goes on from the log's newest state", async () => {
  mkdirSync(cluster.at("store"));
  symlinkSync("store", cluster.at("way"));
  const failures: string[] = [];
  const a = cluster.make("a", {}, "{ path: a/app.db, store: way, source: store }");
  await a.start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "create table t(x)", "create table u(x)", "insert into t values('kept')");
  await a.sync(cluster.db("a"), "store", AbortSignal.timeout(20_000));
  a.databases[0]!.on("log", (event) => event.type === "alarm" && failures.push(String(event.error)));
  // The store is away for this node alone; until its lease lapses it may commit.
  renameSync(cluster.at("way"), cluster.at("way.away"));
  writeFileSync(cluster.at("way"), "");
  await cluster.sqlBeside("a", 10, "insert into u values('left behind')");
  cluster.leases.get("a")!.isBroken = true;
  // Two epochs.
  for (const values of [["one", "two"], ["three"]]) {
    const b = cluster.make("b");
    await b.start();
    await expect.poll(() => cluster.primary, patient).toBe("b");
    for (const value of values) {
      await cluster.sqlBeside("b", 10, `insert into t values('${value}')`);
      await b.sync(cluster.db("b"), "store", AbortSignal.timeout(20_000));
    }
    await cluster.stop("b");
  }
  await expect.poll(() => a.databases[0]!.state, patient).toBe("following");
  const applied: bigint[] = [];
  a.databases[0]!.on("applied", (position) => applied.push(position));
  rmSync(cluster.at("way"));
  renameSync(cluster.at("way.away"), cluster.at("way"));
  const rows = "[('kept',), ('one',), ('two',), ('three',)]";
  await expect.poll(() => cluster.sqlBeside("a", 1, "select x from t union all select x from u"), patient).toBe(rows);
  expect(quarantined(stateDirOf(cluster.db("a"))).length).toBe(1);
  // What was planned behind the difference has had its turn when it leads.
  cluster.leases.get("a")!.isBroken = false;
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "insert into t values('four')");
  expect(failures).toEqual([]);
  expect(applied).toEqual(applied.toSorted((x, y) => (x < y ? -1 : 1)));
});

test("a read that has seen more waits while a node takes over, until it has placed what the log has", async () => {
  const a = cluster.make("a");
  await a.start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "create table t(x)");
  symlinkSync("store", cluster.at("way"));
  const b = cluster.make("b", {}, "{ path: b/app.db, store: way, source: store }");
  await b.start();
  // The log is away for this node alone, until it is about to lead.
  renameSync(cluster.at("way"), cluster.at("way.away"));
  writeFileSync(cluster.at("way"), "");
  await cluster.sqlBeside("a", 10, "insert into t values(1)");
  const [seen] = await new ServedNode(a, "a", 0).positions();
  await cluster.stop("a");
  await expect.poll(() => b.databases[0]!.role, { ...patient, interval: 1 }).toBe("primary");
  const applied = (position: bigint): Promise<string> =>
    new ServedNode(b, "b", 0).waitApplied("app.db", position, AbortSignal.timeout(20_000));
  const reads = applied(seen!.position);
  rmSync(cluster.at("way"));
  renameSync(cluster.at("way.away"), cluster.at("way"));
  expect(await reads).toBe("reached");
  await expect.poll(() => cluster.primary, patient).toBe("b");
  // Before it has committed anything itself, too.
  expect(await applied(seen!.position + 1n)).toBe("lost");
  expect(await applied(seen!.position + (1n << 40n))).toBe("unknown");
});

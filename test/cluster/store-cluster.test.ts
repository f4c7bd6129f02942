import { rmSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { TestCluster } from "./nodes.ts";

let cluster: TestCluster;
beforeEach(() => {
  cluster = new TestCluster();
});
afterEach(() => cluster.remove());

const patient = { timeout: 20_000, interval: 20 };

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

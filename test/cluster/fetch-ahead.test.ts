import { afterEach, beforeEach, expect, test } from "vitest";
import { TestCluster } from "./nodes.ts";

let cluster: TestCluster;
beforeEach(() => {
  cluster = new TestCluster();
});
afterEach(() => cluster.remove());

const patient = { timeout: 30_000, interval: 20 };
/** The log gets nothing by itself. */
const lazy = (name: string): string => `{ path: ${name}/app.db, store: store, sync-interval: 1h }`;

const positionOf = (name: string): string | undefined => cluster.nodes.get(name)!.status.databases[0]?.position;

/** `a` leads; `b` may take over and has the first row only; `c` may not, and has every row, which the log hasn't. */
async function apart(): Promise<void> {
  await (await cluster.connect("a", {}, lazy("a"))).start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "create table t(x)", "insert into t values(1)");
  await cluster.nodes.get("a")!.sync(cluster.db("a"), "store", AbortSignal.timeout(10_000));
  await (await cluster.connect("b", {}, lazy("b"))).start();
  await (await cluster.connect("c", { candidate: false }, lazy("c"))).start();
  await expect.poll(() => cluster.nodes.get("a")!.replicas.length, patient).toBe(2);
  await expect.poll(() => [positionOf("b"), positionOf("c")], patient).toEqual([positionOf("a"), positionOf("a")]);
  await expect.poll(() => cluster.peers.get("b")!.known.ids.toSorted(), patient).toEqual(["a", "c"]);
  cluster.peers.get("b")!.client.follow(undefined);
  await cluster.sqlBeside("a", 10, "insert into t values(2)", "insert into t values(3)");
  await expect.poll(() => positionOf("c"), patient).toBe(positionOf("a"));
  expect(positionOf("b")).not.toBe(positionOf("c"));
}

async function leads(name: string): Promise<void> {
  await expect.poll(() => cluster.primary, patient).toBe(name);
}

const quarantined = (name: string): number | undefined =>
  cluster.nodes.get(name)!.status.databases[0]?.quarantined.entries;

test("who takes over gets what another node has more, which the log hasn't", async () => {
  await apart();
  cluster.cutOff("a");
  await leads("b");
  expect(await cluster.sqlBeside("b", 5, "select x from t")).toBe("[(1,), (2,), (3,)]");
  // And it counts: it is in the log, and others go on from it.
  await cluster.sqlBeside("b", 10, "insert into t values(4)");
  await cluster.nodes.get("b")!.sync(cluster.db("b"), "store", AbortSignal.timeout(10_000));
  await expect.poll(() => positionOf("c"), patient).toBe(positionOf("b"));
  await expect.poll(() => positionOf("a"), patient).toBe(positionOf("b"));
  for (const name of ["a", "b", "c"]) expect(quarantined(name)).toBe(0);
  expect(await cluster.sqlBeside("a", 5, "select count(*) from t")).toBe("[(4,)]");
});

test("… also what only the primary before it has, when that has stepped down and is in reach", async () => {
  await apart();
  await cluster.stop("c");
  cluster.leases.get("a")!.isBroken = true;
  await leads("b");
  expect(await cluster.sqlBeside("b", 5, "select x from t")).toBe("[(1,), (2,), (3,)]");
  cluster.leases.get("a")!.isBroken = false;
  await cluster.sqlBeside("b", 10, "insert into t values(4)");
  await expect.poll(() => positionOf("a"), patient).toBe(positionOf("b"));
  expect(quarantined("a")).toBe(0);
});

import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { TestCluster } from "./nodes.ts";

let cluster: TestCluster;
beforeEach(() => {
  cluster = new TestCluster();
});
afterEach(() => cluster.remove());

const patient = { timeout: 20_000, interval: 20 };

/** A short lease only where one is to be lost: on a loaded machine that happens by itself, too. */
async function three(ttlMs = 10_000): Promise<void> {
  await (await cluster.connect("a", { ttlMs })).start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "create table t(x)", "insert into t values(1)");
  await Promise.all(["b", "c"].map(async (name) => (await cluster.connect(name, { ttlMs })).start()));
}

test("commits are on the replicas within milliseconds, before the log has them", async () => {
  await three();
  for (const name of ["b", "c"]) {
    await expect.poll(() => cluster.nodes.get(name)!.status.databases[0]?.state, patient).toBe("following");
  }
  const positions = (): (string | undefined)[] =>
    [...cluster.nodes.values()].map(({ status }) => status.databases[0]?.position);
  for (let i = 0; i < 20; i++) await cluster.sqlBeside("a", 10, `insert into t values(${i})`);
  await expect.poll(() => new Set(positions()).size, { timeout: 5_000, interval: 5 }).toBe(1);
  for (const name of ["b", "c"]) expect(await cluster.sqlBeside(name, 1, "select count(*) from t")).toBe("[(21,)]");
});

test("a handover: the successor leads, the old primary follows it, nothing is lost", async () => {
  await three();
  await expect.poll(() => cluster.nodes.get("a")!.replicas.length, patient).toBe(2);
  for (const [from, to] of [
    ["a", "b"],
    ["b", "c"],
    ["c", "a"],
  ] as const) {
    await cluster.sqlBeside(from, 10, "insert into t values(2)");
    await cluster.nodes.get(from)!.handOver(to);
    await expect.poll(() => cluster.primary, patient).toBe(to);
    await expect.poll(() => cluster.nodes.get(to)!.replicas.length, patient).toBe(2);
  }
  for (const name of ["a", "b", "c"]) {
    await expect.poll(() => cluster.sqlBeside(name, 1, "select count(*) from t"), patient).toBe("[(4,)]");
  }
});

test("databases of a directory come to the replicas, and go with the primary's", async () => {
  const dbs = (name: string): string => `{ dir: ${name}/data, store: store, recursive: true }`;
  const db = (name: string, file: string): string => cluster.at(name, "data", file);
  for (const name of ["a", "b"]) mkdirSync(cluster.at(name, "data", "sub"), { recursive: true });
  await (await cluster.connect("a", {}, dbs("a"))).start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlIn(db("a", "one.db"), 10, "create table t(x)", "insert into t values(1)");
  await (await cluster.connect("b", {}, dbs("b"))).start();
  await cluster.sqlIn(db("a", "sub/two.db"), 10, "create table t(x)", "insert into t values(2)");
  // To connect creates a file where there is none, which the replica then takes for one that isn't its.
  const read = async (file: string): Promise<string> =>
    existsSync(db("b", file)) ? cluster.sqlIn(db("b", file), 1, "select x from t").catch(() => "") : "";
  await expect.poll(() => read("one.db"), patient).toBe("[(1,)]");
  await expect.poll(() => existsSync(db("b", "sub/two.db")), patient).toBe(true);
  await expect.poll(() => read("sub/two.db"), patient).toBe("[(2,)]");
  for (const suffix of ["", "-wal", "-shm"]) rmSync(db("a", `one.db${suffix}`), { force: true });
  await expect.poll(() => existsSync(db("b", "one.db")), patient).toBe(false);
  expect(readdirSync(cluster.at("b", "data", ".one.db-sluice", "quarantine"))).toHaveLength(1);
  expect(await read("sub/two.db")).toBe("[(2,)]");
});

test("durability at `replica`: members are named, acknowledge, and go first", async () => {
  await three(2_000);
  const a = cluster.nodes.get("a")!;
  await expect.poll(() => a.replicas.length, patient).toBe(2);
  const database = a.databases[0]!;
  const soon = (): AbortSignal => AbortSignal.timeout(10_000);
  await cluster.sqlBeside("a", 10, "insert into t values(2)");
  // The first wait names them; from then on the log need not be asked.
  await a.sync(cluster.db("a"), "replica", soon());
  await expect.poll(() => database.database!.namedMembers, patient).toEqual([[expect.any(Number), expect.any(Number)]]);
  await cluster.sqlBeside("a", 10, "insert into t values(3)");
  const position = await a.sync(cluster.db("a"), "replica", soon());
  for (const name of ["b", "c"]) {
    expect(cluster.nodes.get(name)!.databases[0]!.replica!.position).toBeGreaterThanOrEqual(position);
  }
  // Without the members nobody goes on but who wrote the record, in the same boot of the machine.
  await a.sync(cluster.db("a"), "store", soon());
  await (await cluster.connect("d")).start();
  const d = cluster.nodes.get("d")!;
  await expect.poll(() => d.databases[0]?.state, patient).toBe("following");
  await cluster.stop("b");
  await cluster.stop("c");
  cluster.leases.get("a")!.isBroken = true;
  const states: string[] = [];
  d.on("event", (event) => {
    if (event.type === "role") states.push(event.state);
  });
  await expect.poll(() => states, patient).toContain("taking-over");
  await expect.poll(() => states.at(-1), patient).toBe("following");
  expect(states).not.toContain("leading");
  // `promote --force` says that the members are gone for good: this once.
  d.force();
  expect(d.isForced).toBe(true);
  await expect.poll(() => cluster.primary, patient).toBe("d");
  expect(d.isForced).toBe(false);
  expect(await cluster.sqlBeside("d", 1, "select count(*) from t")).toBe("[(3,)]");
});

test("metrics and status say who is primary, and how far each replica is behind", async () => {
  await three();
  const [a, b] = [cluster.nodes.get("a")!, cluster.nodes.get("b")!];
  await expect
    .poll(() => a.replicas.map(({ name, lagMs }) => `${name} ${lagMs}`).toSorted(), patient)
    .toEqual(["b 0", "c 0"]);
  const text = await cluster.metrics.get("a")!.text();
  expect(text).toMatch(/^sluice_primary 1$/m);
  expect(text).toMatch(/^sluice_replication_lag_seconds\{replica="b"\} 0$/m);
  expect(text).toMatch(/^sluice_replicas 2$/m);
  expect(await cluster.metrics.get("b")!.text()).toMatch(/^sluice_primary 0$/m);
  expect(b.status).toMatchObject({
    role: "replica",
    state: "following",
    primary: { name: "a" },
    lagMs: expect.any(Number),
  });
  expect(a.status).toMatchObject({ role: "primary", state: "leading", lease: { isHeld: true } });
});

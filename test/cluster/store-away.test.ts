import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { SluiceError } from "../../src/errors/error.ts";
import { FileLease } from "../../src/lease/file-lease.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { TestCluster } from "./nodes.ts";

let cluster: TestCluster;
let isAway: boolean;
beforeEach(() => {
  cluster = new TestCluster();
  isAway = false;
  const away = (): SluiceError => new SluiceError("SLU-3101", "the store is away");
  // The file of a lease lies in a directory of its own.
  const hit = (store: DirectoryStore): boolean => isAway && store.url.endsWith("/store");
  const methods = Object.getOwnPropertyDescriptors(DirectoryStore.prototype);
  const [put, get, list] = [methods.put.value!, methods.get.value!, methods.list.value!];
  vi.spyOn(DirectoryStore.prototype, "put").mockImplementation(function (this: DirectoryStore, ...args) {
    return hit(this) ? Promise.resolve({ outcome: "undecided", cause: away() }) : put.apply(this, args);
  });
  vi.spyOn(DirectoryStore.prototype, "get").mockImplementation(function (this: DirectoryStore, ...args) {
    return hit(this) ? Promise.reject(away()) : get.apply(this, args);
  });
  vi.spyOn(DirectoryStore.prototype, "list").mockImplementation(async function* (this: DirectoryStore, ...args) {
    if (hit(this)) throw away();
    yield* list.apply(this, args);
  });
});
afterEach(async () => {
  isAway = false;
  await cluster.remove();
  vi.restoreAllMocks();
});

const patient = { timeout: 30_000, interval: 20 };
const after = (ms: number): AbortSignal => AbortSignal.timeout(ms);
const count = (name: string): Promise<string> => cluster.sqlBeside(name, 5, "select count(*) from t");

async function two(register: (name: string) => { readonly register?: FileLease }): Promise<void> {
  await (await cluster.connect("a", { ...register("a"), handoffTimeoutMs: 1_500 })).start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "create table t(x)", "insert into t values(1)");
  await cluster.nodes.get("a")!.sync(cluster.db("a"), "store", after(10_000));
  await (await cluster.connect("b", register("b"))).start();
  await expect.poll(() => cluster.nodes.get("a")!.replicas.length, patient).toBe(1);
}

test("lease `store`: writes stop with the lease, reads go on, and with the store all is as it was", async () => {
  await two(() => ({}));
  isAway = true;
  await cluster.sqlBeside("a", 10, "insert into t values(2)");
  await expect.poll(() => cluster.primary, patient).toBeUndefined();
  await expect(cluster.sqlBeside("a", 0.2, "insert into t values(3)")).rejects.toThrow(/locked/);
  for (const name of ["a", "b"]) expect(await count(name)).toBe("[(2,)]");
  isAway = false;
  await expect.poll(() => cluster.primary, patient).toBeDefined();
  const primary = cluster.primary!;
  await cluster.sqlBeside(primary, 10, "insert into t values(4)");
  await cluster.nodes.get(primary)!.sync(cluster.db(primary), "store", after(10_000));
  for (const name of ["a", "b"]) await expect.poll(() => count(name), patient).toBe("[(3,)]");
});

test("a lease elsewhere: writes go on and reach the replicas, `store` waits, and nobody else can lead", async () => {
  await two(() => ({ register: new FileLease(cluster.at("lease")) }));
  const a = cluster.nodes.get("a")!;
  isAway = true;
  // For longer than the lease's two seconds.
  for (const end = performance.now() + 3_000; performance.now() < end;)
    await cluster.sqlBeside("a", 1, "insert into t values(2)");
  const written = await count("a");
  await expect.poll(() => count("b"), patient).toBe(written);
  await expect(a.sync(cluster.db("a"), "store", after(300))).rejects.toMatchObject({ name: "TimeoutError" });
  await expect(a.handOver("b")).rejects.toMatchObject({ code: "SLU-8105" });
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "insert into t values(3)");
  isAway = false;
  await a.sync(cluster.db("a"), "store", after(20_000));
  await a.handOver("b");
  await expect.poll(() => cluster.primary, patient).toBe("b");
  expect(await count("b")).toBe(await count("a"));
});

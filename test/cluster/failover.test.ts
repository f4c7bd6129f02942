import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { restore } from "../../src/log/restore.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { TestCluster } from "./nodes.ts";

let cluster: TestCluster;
beforeEach(() => {
  cluster = new TestCluster();
});
afterEach(async () => {
  vi.restoreAllMocks();
  await cluster.remove();
});

const patient = { timeout: 30_000, interval: 20 };
const after = (ms: number): AbortSignal => AbortSignal.timeout(ms);
const rows = (count: number): string[] => Array.from({ length: count }, (_, i) => `insert into t values(${i})`);

/** `a` leads a database whose log gets nothing by itself, and `b` has all of it. */
async function two(): Promise<void> {
  const lazy = (name: string): string => `{ path: ${name}/app.db, store: store, sync-interval: 1h }`;
  await (await cluster.connect("a", {}, lazy("a"))).start();
  await expect.poll(() => cluster.primary, patient).toBe("a");
  await cluster.sqlBeside("a", 10, "create table t(x)");
  await cluster.nodes.get("a")!.sync(cluster.db("a"), "store", after(10_000));
  await (await cluster.connect("b", {}, lazy("b"))).start();
  await inStep();
}

const positionOf = (name: string): string | undefined => cluster.nodes.get(name)!.status.databases[0]?.position;

async function inStep(): Promise<void> {
  await expect.poll(() => positionOf("b") !== undefined && positionOf("b") === positionOf("a"), patient).toBe(true);
}

/** From now on what is created in the store is there, and nobody is told. */
function loseAnswers(): { readonly landed: () => number; readonly end: () => void } {
  const real = Object.getOwnPropertyDescriptor(DirectoryStore.prototype, "put")!.value as DirectoryStore["put"];
  let landed = 0;
  const spy = vi.spyOn(DirectoryStore.prototype, "put").mockImplementation(async function put(
    this: DirectoryStore,
    key,
    body,
    options,
  ) {
    const answer = await real.call(this, key, body, options);
    if (!key.endsWith(".ltx")) return answer;
    if (answer.outcome === "written") landed++;
    return { outcome: "undecided", cause: new Error("no answer") };
  });
  return { landed: () => landed, end: () => spy.mockRestore() };
}

test("a record with the first 60 of 100 live commits: the candidate keeps the other 40, and they are the next record", async () => {
  await two();
  const a = cluster.nodes.get("a")!;
  await cluster.sqlBeside("a", 10, ...rows(60));
  const answers = loseAnswers();
  // Not durable, also when it's asked again and nothing was committed since; and unknown when the primary steps down.
  await expect(a.sync(cluster.db("a"), "store", after(1_000))).rejects.toMatchObject({ name: "TimeoutError" });
  await expect(a.sync(cluster.db("a"), "store", after(200))).rejects.toMatchObject({ name: "TimeoutError" });
  const waiting = a.sync(cluster.db("a"), "store", after(60_000)).catch((error: unknown) => error);
  await expect.poll(answers.landed, patient).toBe(1);
  await cluster.sqlBeside("a", 10, ...rows(40));
  await inStep();
  cluster.cutOff("a");
  expect(await waiting).toMatchObject({ code: "SLU-4109" });
  answers.end();
  await expect.poll(() => cluster.primary, patient).toBe("b");
  expect(await cluster.sqlBeside("b", 5, "select count(*) from t")).toBe("[(100,)]");
  const store = new DirectoryStore(cluster.at("store"));
  await restore({ store, prefix: "", path: cluster.at("restored.db"), integrityCheck: "full" });
  expect(await cluster.sqlIn(cluster.at("restored.db"), 5, "select count(*) from t")).toBe("[(100,)]");
  // Nothing of it was anybody's mistake.
  await expect.poll(() => positionOf("a"), patient).toBe(positionOf("b"));
  for (const name of ["a", "b"]) {
    expect(cluster.nodes.get(name)!.status.databases[0]!.quarantined.entries).toBe(0);
  }
});

test("a transaction that doesn't end while the lease is lost costs its process a kill, and is rolled back", async () => {
  await two();
  const script = `
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
db.execute("begin immediate"); db.execute("insert into t values('never')")
print("in it", flush=True); time.sleep(60); db.execute("commit")`;
  const app = spawn("python3", ["-c", script, cluster.db("a")], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(app, "exit");
  await once(app.stdout, "data");
  cluster.leases.get("a")!.isBroken = true;
  expect(await ended).toEqual([null, "SIGKILL"]);
  await expect.poll(() => cluster.primary, patient).toBe("b");
  await cluster.sqlBeside("b", 10, "insert into t values('after')");
  cluster.leases.get("a")!.isBroken = false;
  await expect.poll(() => positionOf("a"), patient).toBe(positionOf("b"));
  for (const name of ["a", "b"]) expect(await cluster.sqlBeside(name, 5, "select x from t")).toBe("[('after',)]");
  expect(await cluster.metrics.get("a")!.text()).toMatch(/sluice_errors_total\{.*SLU-8107.*\} 1/);
});

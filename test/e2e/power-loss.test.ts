import { cpSync, rmSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Nodes } from "./nodes.ts";

let nodes: Nodes;
beforeEach(() => {
  nodes = new Nodes();
});
afterEach(() => nodes[Symbol.asyncDispose]());

const patient = { timeout: 30_000, interval: 50 };
const rows = (name: string): Promise<string> => nodes.sql(name, "select x from t").catch(() => "");

test("a primary that lost its last commits with the power gets them back from a replica before it goes on", async () => {
  // The log gets nothing by itself, and nobody else takes the lease meanwhile.
  const options = { lease: "{ type: store, ttl: 1m }", db: "sync-interval: 1h" };
  await nodes.start("a", options);
  await nodes.until("a", "primary", ({ role }) => role === "primary");
  await nodes.sql("a", "create table t(x)");
  await nodes.reaches("a", "protected");
  await nodes.sql("a", "insert into t values(1)");
  await nodes.sync("a");
  await nodes.start("b", options);
  await nodes.until("a", "a replica", ({ replicas }) => replicas.length === 1);
  await nodes.sql("a", "insert into t values(2)");
  await expect.poll(() => rows("b"), patient).toBe("[(1,), (2,)]");
  // The disk as it will be after the power loss: synced, but not to the end.
  const disk = nodes.at("disk");
  cpSync(nodes.at("a"), disk, { recursive: true });
  await nodes.sql("a", "insert into t values(3)", "insert into t values(4)");
  await expect.poll(() => rows("b"), patient).toBe("[(1,), (2,), (3,), (4,)]");
  nodes.kill("a");
  await nodes.over("a");
  rmSync(nodes.at("a"), { recursive: true });
  cpSync(disk, nodes.at("a"), { recursive: true });
  rmSync(nodes.at("a", "app.db-shm"));

  await nodes.start("a", options);
  await nodes.reaches("a", "protected");
  expect(await rows("a")).toBe("[(1,), (2,), (3,), (4,)]");
  await nodes.sql("a", "insert into t values(5)");
  await nodes.sync("a");
  await expect.poll(() => rows("b"), patient).toBe("[(1,), (2,), (3,), (4,), (5,)]");
  for (const name of ["a", "b"])
    expect(await nodes.status(name)).toMatchObject({ databases: [{ quarantined: { entries: 0 } }] });
});

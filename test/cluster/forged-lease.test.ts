import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { SignedRegister } from "../../src/lease/signed-register.ts";
import { StoreLease } from "../../src/lease/store-lease.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { TestCluster } from "./nodes.ts";

let cluster: TestCluster;

beforeEach(() => {
  cluster = new TestCluster();
});
afterEach(() => cluster.remove());

test("a lease that somebody wrote into the bucket brings nobody to his server, and runs out", async () => {
  let asked = 0;
  const evil = createServer((_, response) => response.end()).listen(0, "127.0.0.1");
  evil.on("connection", () => asked++);
  await once(evil, "listening");
  const url = `http://127.0.0.1:${(evil.address() as AddressInfo).port}`;
  const forged = { nodeId: "x", life: "x", nodeName: "one", advertise: url, proxy: url, generation: 1, counter: 1 };
  mkdirSync(cluster.at("store"), { recursive: true });
  writeFileSync(cluster.at("store", "lease.json"), JSON.stringify({ ...forged, ttlMs: 2_000 }));
  const register = new SignedRegister(new StoreLease(new DirectoryStore(cluster.at("store"))), "right");
  const node = await cluster.connect("one", { register });
  const seen: (string | undefined)[] = [];
  node.on("role", () => seen.push(node.primary?.advertise));
  await node.start();
  await expect.poll(() => node.reign, { timeout: 30_000 }).toBeDefined();
  expect(seen).not.toContain(url);
  expect(asked).toBe(0);
  evil.close();
});

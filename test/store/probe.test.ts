import { mkdtemp, readdir, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CountingStore, type StoreCall } from "../../src/store/counting.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { probeFencing } from "../../src/store/probe.ts";
import type { ObjectStore, PutOptions } from "../../src/store/store.ts";
import { lacks } from "../peers/peers.ts";
import { bytes, keysOf } from "./conformance.ts";
import { S3Server } from "./s3-server.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), "sluice-probe-"));
});
afterAll(() => rm(root, { recursive: true, force: true }));

/** A directory, except for what is replaced: a store that breaks one promise. */
function broken(change: (store: DirectoryStore) => Partial<ObjectStore>): ObjectStore {
  const store = new DirectoryStore(path.join(root, String(Math.random())));
  return {
    url: store.url,
    layout: store.layout,
    list: (...args) => store.list(...args),
    get: (...args) => store.get(...args),
    put: (...args) => store.put(...args),
    delete: (...args) => store.delete(...args),
    close: () => store.close(),
    ...change(store),
  };
}

test("a directory keeps writers apart; the probe leaves nothing and is done once", async () => {
  const dir = path.join(root, "good");
  let calls = 0;
  const store = new CountingStore(new DirectoryStore(dir), () => calls++);
  expect(await probeFencing(store)).toBeUndefined();
  const first = calls;
  expect(first).toBeGreaterThanOrEqual(16);
  expect(await probeFencing(store)).toBeUndefined();
  expect(calls).toBe(first);
  expect((await readdir(dir)).filter((name) => name !== ".sluice.lock")).toEqual([]);
});

test("a store that looks before it writes, with a gap between: found by the race", async () => {
  const store = broken((real) => ({
    put: async (key, body, options: PutOptions = {}) => {
      if (options.condition !== "absent") return real.put(key, body, options);
      if ((await keysOf(real.list(key))).includes(key)) return { outcome: "refused" };
      return real.put(key, body);
    },
  }));
  expect(await probeFencing(store)).toMatchObject({ code: "SLU-3004", message: expect.stringContaining("of 16") });
});

test.each([
  ["ignores all conditions", "of 16", (real: DirectoryStore) => ({ put: (key, body) => real.put(key, body) })],
  ["lists what is new only later", "not listed", () => ({ list: async function* () {} })],
  [
    "refuses and writes all the same",
    "replaced",
    (real: DirectoryStore) => ({
      put: async (key, body, options) => {
        const outcome = await real.put(key, body, options);
        if (outcome.outcome === "refused") await real.put(key, Buffer.alloc(100));
        return outcome;
      },
    }),
  ],
  [
    "knows no exchange",
    "old etag",
    (real: DirectoryStore) => ({
      put: (key, body, options) => real.put(key, body, options?.condition === "absent" ? options : {}),
    }),
  ],
] as const satisfies readonly (readonly [string, string, (real: DirectoryStore) => Partial<ObjectStore>])[])(
  "a store that %s has no fencing",
  async (_, words, change) => {
    const found = await probeFencing(broken(change));
    expect(found).toMatchObject({ code: "SLU-3004", message: expect.stringContaining(words) });
  },
);

test("no answer is no result: thrown, and asked again the next time", async () => {
  let isAway = true;
  const store = broken((real) => ({
    put: async (key, body, options) =>
      isAway ? { outcome: "undecided", cause: new Error("away") } : real.put(key, body, options),
  }));
  await expect(probeFencing(store)).rejects.toMatchObject({ code: "SLU-3101" });
  isAway = false;
  expect(await probeFencing(store)).toBeUndefined();
});

test("each call is told of when it ends: what, how much, and why it failed", async () => {
  const calls: StoreCall[] = [];
  const store = new CountingStore(new DirectoryStore(path.join(root, "counted")), (call) => calls.push(call));
  await store.put("a", Buffer.alloc(10));
  await bytes(await store.get("a"));
  await store.get("b").catch(() => undefined);
  await keysOf(store.list(""));
  await store.delete(["a"]);
  expect(calls).toMatchObject([
    { operation: "put", bytes: 10, failure: undefined },
    { operation: "get", bytes: 10, failure: undefined },
    { operation: "get", bytes: 0, failure: "SLU-3404" },
    { operation: "list", bytes: 0, failure: undefined },
    { operation: "delete", bytes: 0, failure: undefined },
  ]);
});

const skip = lacks("weed");
describe.skipIf(skip)("SeaweedFS", () => {
  let server: S3Server;
  beforeAll(async () => {
    server = await S3Server.start();
  });
  afterAll(() => server?.stop());

  // The finding that clusters on SeaweedFS rest on; one server, version as in test/peers/install.sh.
  test("keeps writers apart, also for uploads in parts", async () => {
    const store = server.open("probe");
    expect(await probeFencing(store)).toBeUndefined();
    expect(await store.honoursConditionOnParts()).toBe(true);
    expect(await keysOf(store.list(""))).toEqual([]);
    await store.close();
  });
});

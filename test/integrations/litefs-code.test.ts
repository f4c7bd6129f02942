import { writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { lacks } from "../peers/peers.ts";
import { FlyProxy } from "./fly-proxy.ts";
import { TwoSites } from "./simulated.ts";

/** Far below the sites' busy timeout of 40 s, far above what a loaded machine needs. */
const AT_ONCE_MS = 20_000;

describe.skipIf(lacks("django"))("a Django site written for LiteFS, behind a stand-in for Fly.io's proxy", () => {
  let sites: TwoSites;
  let proxy: FlyProxy;

  beforeAll(async () => {
    sites = await TwoSites.start("oldsite", "machine-a");
    const machines = {
      "machine-a": { url: sites.primary.url, region: "fra" },
      "machine-b": { url: sites.replica.url, region: "ord" },
    };
    proxy = await FlyProxy.start(machines, "machine-b");
  });

  afterAll(async () => {
    await proxy?.[Symbol.asyncDispose]();
    await sites?.[Symbol.asyncDispose]();
  });

  async function ask(where: string, entry?: unknown): Promise<{ status: number; body: unknown }> {
    const response = await fetch(proxy.url + where, {
      ...(entry === undefined ? {} : { method: "POST", body: JSON.stringify(entry) }),
      signal: AbortSignal.timeout(AT_ONCE_MS),
    });
    expect(response.headers.get("fly-replay")).toBeNull();
    return { status: response.status, body: await response.json() };
  }

  test("reads stay, writes are replayed on the primary, also in a GET", async () => {
    expect(await ask("/totals")).toEqual({ status: 200, body: { entries: 0, total: 0 } });
    expect(proxy.replays).toEqual([]);
    expect(await ask("/entries", { key: "k", value: "v" })).toEqual({ status: 201, body: { key: "k", value: "v" } });
    expect(await ask("/count")).toEqual({ status: 200, body: { visits: 1 } });
    expect(await ask("/count")).toEqual({ status: 200, body: { visits: 2 } });
    expect(proxy.replays.map(({ from, to }) => `${from} to ${to}`)).toEqual(Array(3).fill("machine-b to machine-a"));
    // It's there on the primary, and nowhere else.
    expect(await ask("/totals")).toEqual({ status: 200, body: { entries: 0, total: 0 } });
    proxy.nearest = "machine-a";
    expect(await ask("/totals")).toEqual({ status: 200, body: { entries: 1, total: 1 } });
    expect(await ask("/count")).toEqual({ status: 200, body: { visits: 3 } });
    expect(proxy.replays.length).toBe(3);
  });

  test("machines that send a request to and fro are stopped", async () => {
    proxy.nearest = "machine-b";
    writeFileSync(path.join(sites.dir, "b/.primary"), "machine-b\n");
    const response = await fetch(`${proxy.url}/count`, { signal: AbortSignal.timeout(AT_ONCE_MS) });
    expect([response.status, await response.text()]).toEqual([502, "replayed too often"]);
  });
});

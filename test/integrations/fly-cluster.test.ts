import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { lacks } from "../peers/peers.ts";
import { FlyProxy } from "./fly-proxy.ts";
import { LiveNode } from "./live-node.ts";
import type { Kind } from "./plain-site.ts";

/** Far above what a loaded machine needs. */
const LIMIT_MS = 30_000;

describe.skipIf(lacks("django"))("real nodes without a front door, behind a stand-in for Fly.io's proxy", () => {
  let base: string;
  let proxy: FlyProxy;
  const machines: Record<string, { url: string; region: string }> = {};
  const nodes: LiveNode[] = [];

  beforeEach(async () => {
    base = mkdtempSync(path.join(os.tmpdir(), "sluice-fly-"));
    proxy = await FlyProxy.start(machines, "machine-a");
  });

  afterEach(async () => {
    await Promise.all(nodes.splice(0).map((node) => node.kill()));
    await proxy[Symbol.asyncDispose]();
    rmSync(base, { recursive: true });
  });

  async function start(name: string, kind: Kind): Promise<LiveNode> {
    const node = await LiveNode.start(base, name, kind);
    nodes.push(node);
    machines[name] = { url: node.url, region: "fra" };
    return node;
  }

  /** One request of a client that is nearest to `near`. */
  async function ask(near: LiveNode, where: string, options: RequestInit = {}): Promise<Response> {
    proxy.nearest = near.name;
    const response = await fetch(proxy.url + where, { signal: AbortSignal.timeout(LIMIT_MS), ...options });
    expect(response.headers.get("fly-replay")).toBeNull();
    return response;
  }

  const entry = (key: string): RequestInit => ({ method: "POST", body: JSON.stringify({ key, value: key }) });

  test("a site written for LiteFS works unchanged, also when the primary dies", { timeout: 120_000 }, async () => {
    const a = await start("machine-a", "oldsite");
    const b = await start("machine-b", "oldsite");
    expect([a.isReplica, b.isReplica]).toEqual([false, true]);
    expect((await ask(b, "/entries", entry("one"))).status).toBe(201);
    expect(await (await ask(b, "/count")).json()).toEqual({ visits: 1 });
    expect(proxy.replays).toEqual([
      { from: "machine-b", to: "machine-a" },
      { from: "machine-b", to: "machine-a" },
    ]);
    // It comes to the replica, which reads by itself.
    await vi.waitFor(async () => expect((await ask(b, "/entries/one")).status).toBe(200), LIMIT_MS);
    expect(proxy.replays.length).toBe(2);

    await a.kill();
    await b.promoted();
    await vi.waitFor(async () => expect((await ask(b, "/entries", entry("two"))).status).toBe(201), LIMIT_MS);
    expect(proxy.replays.length).toBe(2);

    const again = await start("machine-a", "oldsite");
    expect(again.isReplica).toBe(true);
    expect((await ask(again, "/entries", entry("three"))).status).toBe(201);
    expect(proxy.replays.at(-1)).toEqual({ from: "machine-a", to: "machine-b" });
    await vi.waitFor(
      async () => expect(await (await ask(again, "/totals")).json()).toEqual({ entries: 3, total: 3 }),
      LIMIT_MS,
    );
  });

  test("django-sluice: clients read their own writes on a replica", { timeout: 120_000 }, async () => {
    const a = await start("machine-a", "flysite");
    const b = await start("machine-b", "flysite");
    expect([a.isReplica, b.isReplica]).toEqual([false, true]);
    let cookie = "";
    const keep = (response: Response): Response => {
      const set = response.headers.getSetCookie().map((each) => each.split(";")[0] ?? "");
      if (set.length > 0) cookie = set.join("; ");
      return response;
    };
    for (let i = 1; i <= 20; i++) {
      expect(keep(await ask(b, "/entries", entry(`${i}`))).status).toBe(201);
      expect(cookie).toMatch(/sluice_position=default-[0-9a-f]{16}/);
      expect((await ask(b, `/entries/${i}`, { headers: { cookie } })).status).toBe(200);
    }
    // The POSTs were replayed, and no read.
    expect(proxy.replays.length).toBe(20);
    // A session is written in a GET.
    expect(await keep(await ask(b, "/")).json()).toEqual({ visits: 1 });
    expect(await (await ask(b, "/", { headers: { cookie } })).json()).toEqual({ visits: 2 });
    expect(proxy.replays.length).toBe(22);
  });
});

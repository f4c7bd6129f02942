import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createLog } from "../../src/observe/log.ts";
import { Metrics } from "../../src/observe/metrics.ts";
import { FrontDoor } from "../../src/proxy/server.ts";
import { lacks } from "../peers/peers.ts";
import { Cluster } from "../proxy/cluster.ts";
import { proxyConfig } from "../proxy/nodes.ts";
import { TwoSites } from "./simulated.ts";

/** Far below the sites' busy timeout, far above what a loaded machine needs. */
const AT_ONCE_MS = 9_000;

describe.skipIf(lacks("django"))("the Django example behind Sluice's front doors", () => {
  let sites: TwoSites;
  const doors: FrontDoor[] = [];
  let replicaUrl: string;

  beforeAll(async () => {
    sites = await TwoSites.start("mysite", "a");
    const cluster = new Cluster();
    for (const [name, { url }] of [["a", sites.primary] as const, ["b", sites.replica] as const]) {
      const view = cluster.node(name);
      const config = proxyConfig(`app: ${url}`, sites.dir);
      const log = createLog({ level: "silent" });
      const door = new FrontDoor({ config, view, metrics: new Metrics().proxy, log, secret: "a secret of all" });
      replicaUrl = `http://127.0.0.1:${await door.listen()}`;
      view.proxy = new URL(replicaUrl);
      doors.push(door);
    }
    cluster.promote(cluster.nodes.get("a"));
  });

  afterAll(async () => {
    await Promise.all(doors.map((door) => door.stop(0)));
    await sites?.[Symbol.asyncDispose]();
  });

  async function ask(where: string, options: RequestInit = {}): Promise<Response> {
    const signal = AbortSignal.timeout(AT_ONCE_MS);
    const response = await fetch(replicaUrl + where, { redirect: "manual", signal, ...options });
    expect(response.headers.get("sluice-replay")).toBeNull();
    return response;
  }

  test("reads are answered by the replica, writes by the primary, also a session's in a GET", async () => {
    const body = JSON.stringify({ key: "k", value: "v" });
    expect((await ask("/entries", { method: "POST", body })).status).toBe(201);
    expect(await (await ask("/totals")).json()).toEqual({ entries: 0, total: 0 });
    expect(await (await fetch(`${sites.primary.url}/totals`)).json()).toEqual({ entries: 1, total: 1 });

    const first = await ask("/");
    expect(await first.json()).toEqual({ visits: 1 });
    const cookie = first.headers.getSetCookie().find((each) => each.startsWith("sessionid=")) ?? "";
    expect(await (await ask("/", { headers: { cookie } })).json()).toEqual({ visits: 2 });
  });

  test("the admin's pages", async () => {
    const login = await ask("/admin/login/");
    expect([login.status, (await login.text()).includes("csrfmiddlewaretoken")]).toEqual([200, true]);
    expect((await ask("/admin/")).headers.get("location")).toBe("/admin/login/?next=/admin/");
  });
});

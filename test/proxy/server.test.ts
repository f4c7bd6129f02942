import os from "node:os";
import { afterEach, describe, expect, test } from "vitest";
import { explainProxy } from "../../src/config/explain-proxy.ts";
import { createLog } from "../../src/observe/log.ts";
import { Metrics } from "../../src/observe/metrics.ts";
import type { IncomingMessage } from "node:http";
import type { Door } from "../../src/proxy/door.ts";
import { ownAnswer } from "../../src/proxy/own.ts";
import { FrontDoor } from "../../src/proxy/server.ts";
import { echo, Nodes, proxyConfig, until } from "./nodes.ts";

let started: Nodes | undefined;
const start = async (...args: Parameters<typeof Nodes.start>): Promise<Nodes> => (started = await Nodes.start(...args));
afterEach(async () => {
  await started?.[Symbol.asyncDispose]();
  started = undefined;
});

describe("health", () => {
  test("is 200 while this node can serve, 503 with the reason otherwise", async () => {
    const nodes = await start(2);
    const health = async (page = "health") => {
      const { status, json } = await nodes.ask(nodes.b, "GET", `/.sluice/${page}`);
      return [status, (json as unknown as { reason: string }).reason];
    };
    expect(await health()).toEqual([200, undefined]);
    nodes.b.view.problem = "app.db is being restored";
    expect(await health()).toEqual([503, "app.db is being restored"]);
    nodes.b.view.problem = undefined;
    nodes.b.view.lag = 10_001;
    expect(await health()).toEqual([503, "this replica is 10001 ms behind, more than 10000 ms"]);
    nodes.b.view.lag = undefined;
    expect((await health())[0]).toBe(503);
    nodes.b.view.lag = 10_000;
    expect(await health()).toEqual([200, undefined]);
    expect(await health("ready")).toEqual([200, undefined]);
    nodes.cluster.promote(undefined);
    expect(await health()).toEqual([200, undefined]);
    expect(await health("ready")).toEqual([503, "there is no primary"]);
    expect(nodes.b.seen).toEqual([]);
  });

  test("says the role, and has no other pages", async () => {
    const nodes = await start(2, { proxy: "max-lag: 0s" });
    nodes.b.view.lag = 1e9;
    const role = async (i: number) => (await nodes.ask(nodes.all[i]!, "GET", "/.sluice/health?x")).json;
    expect(await role(0)).toMatchObject({ ok: true, role: "primary" });
    expect(await role(1)).toMatchObject({ ok: true, role: "replica" });
    for (const [method, page] of [
      ["POST", "health"],
      ["GET", "secrets"],
    ] as const)
      expect((await nodes.ask(nodes.a, method, `/.sluice/${page}`)).status).toBe(404);
    expect(nodes.a.seen).toEqual([]);
  });
});

describe("where it listens", () => {
  const addresses = Object.values(os.networkInterfaces()).flatMap((all) => all ?? []);

  test.skipIf(!addresses.some(({ address }) => address === "::1"))("a port alone is IPv4's and IPv6's", async () => {
    const nodes = await start(1, { proxy: "listen: :0" });
    for (const host of ["127.0.0.1", "[::1]"])
      expect((await fetch(`http://${host}:${nodes.a.port}/`)).status, host).toBe(200);
    expect(explainProxy(proxyConfig("app: http://a\nlisten: :8080", "/tmp"))["listen"]).toBe(":8080");
  });
});

describe("a stop", () => {
  test("lets what is under way end, takes no new connection, and closes the old ones", async () => {
    let answer = (): void => undefined;
    const nodes = await start(1, { app: (request, response, node) => (answer = () => echo(request, response, node)) });
    const asked = nodes.ask(nodes.a, "POST", "/");
    await until(() => nodes.a.seen.length === 1);
    const stopped = nodes.a.door.stop(10_000);
    await expect(nodes.raw(nodes.a, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")).resolves.toBe("");
    answer();
    const reply = await asked;
    expect([reply.status, reply.headers.connection]).toEqual([200, "close"]);
    await stopped;
  });

  test("is said to who asks for health meanwhile", async () => {
    let answer = (): void => undefined;
    const nodes = await start(1, { app: (_, response) => (answer = () => void response.end("done")) });
    const head = "HTTP/1.1\r\nHost: a\r\n\r\n";
    const back = nodes.raw(nodes.a, `GET / ${head}GET /.sluice/health ${head}`);
    await until(() => nodes.a.seen.length === 1);
    const stopped = nodes.a.door.stop(10_000);
    const health = ownAnswer(
      { ...nodes.a, isDraining: true } as unknown as Door,
      { url: "/.sluice/health", method: "GET" } as IncomingMessage,
    );
    expect(health).toMatchObject({ status: 503, body: expect.stringMatching("stopping") as string });
    answer();
    expect(await back).toMatch(/^HTTP\/1\.1 200 /);
    await stopped;
  });

  test("after its grace answers held writes with 503, and breaks off what the application has", async () => {
    const nodes = await start(1, { app: () => undefined });
    const inApplication = nodes.ask(nodes.a, "POST", "/1").catch((error: Error) => error);
    await until(() => nodes.a.seen.length === 1);
    nodes.cluster.leaseOver = true;
    const held = nodes.ask(nodes.a, "POST", "/2");
    await new Promise((resolve) => setTimeout(resolve, 30));
    await nodes.a.door.stop(30);
    const reply = await held;
    expect([reply.status, reply.json.code]).toEqual([503, "SLU-7013"]);
    expect(await inApplication).toBeInstanceOf(Error);
    expect(nodes.a.seen).toEqual(["POST /1"]);
  });
});

test("an address that is taken is an error with a code", async () => {
  const nodes = await start(1);
  const config = proxyConfig(`listen: 127.0.0.1:${nodes.a.port}\napp: http://127.0.0.1:1`, nodes.dir);
  const options = {
    config,
    view: nodes.a.view,
    metrics: new Metrics().proxy,
    log: createLog({ level: "silent" }),
    secret: "s",
  };
  await expect(new FrontDoor(options).listen()).rejects.toMatchObject({ code: "SLU-7001" });
});

test("an application on a Unix socket", async () => {
  const nodes = await start(1);
  nodes.a.app.close();
  await new Promise((resolve) => nodes.a.app.listen(`${nodes.dir}/app.sock`, () => resolve(undefined)));
  const config = proxyConfig(`app: unix:${nodes.dir}/app.sock`, nodes.dir);
  const options = {
    config,
    view: nodes.a.view,
    metrics: new Metrics().proxy,
    log: createLog({ level: "silent" }),
    secret: "s",
  };
  const door = new FrontDoor(options);
  const port = await door.listen();
  expect((await nodes.ask({ ...nodes.a, port }, "POST", "/x", { body: "hello" })).json.body).toBe("hello");
  await door.stop(0);
});

test("metrics count requests, errors, waits, replays and what is unknown", async () => {
  const nodes = await start(2, { proxy: "durability: store\ndurability-timeout: 20ms" });
  await nodes.ask(nodes.b, "GET", "/");
  await nodes.ask(nodes.b, "POST", "/");
  nodes.cluster.settle();
  await nodes.ask(nodes.b, "POST", "/");
  const text = async (i: number): Promise<string> => nodes.all[i]!.metrics.text();
  await expect.poll(() => text(1)).toMatch(/sluice_proxy_requests_total\{mode="write",by="primary",status="5xx"\} 1/);
  expect(await text(1)).toMatch(/sluice_proxy_requests_total\{mode="read",by="local",status="2xx"\} 1/);
  expect(await text(0)).toMatch(/sluice_proxy_errors_total\{code="SLU-7003"\} 1/);
  expect(await text(0)).toMatch(/sluice_proxy_unknown_total 1/);
  expect(await text(0)).toMatch(/sluice_proxy_wait_seconds_count\{for="durability"\} 2/);
  expect(await text(0)).toMatch(/sluice_proxy_request_seconds_count\{mode="write"\} 2/);
});

describe("the configuration", () => {
  const problem = (proxy: string): string => {
    try {
      return JSON.stringify(proxyConfig(proxy, "/tmp"));
    } catch (error) {
      return (error as Error).message;
    }
  };
  const APP = "app: http://127.0.0.1:8000";

  test("has its defaults", () => {
    expect(proxyConfig(APP, "/tmp")).toMatchObject({
      app: { host: "127.0.0.1", port: 8000 },
      durability: "local",
      readYourWrites: true,
      holdReads: false,
      maxLagMs: 10_000,
      forward: "proxy",
      bodyBytesMax: Number.POSITIVE_INFINITY,
      trustedProxies: ["127.0.0.0/8", "::1/128"],
    });
    expect(proxyConfig("app: http://localhost/", "/tmp").app).toEqual({ host: "localhost", port: 80 });
    expect(proxyConfig("app: http://[::1]:81", "/tmp").app).toEqual({ host: "::1", port: 81 });
    expect(proxyConfig("app: unix:/run/app.sock", "/tmp").app).toEqual({ socketPath: "/run/app.sock" });
    expect(proxyConfig(`${APP}\ntrusted-proxies: [private, 1.2.3.4]`, "/tmp").trustedProxies).toContain("10.0.0.0/8");
  });

  test("is the same when it is read from its explanation", () => {
    for (const more of ["", "advertise: http://other:1\nmax-body-size: 5MB\nroutes: [{ path: /x, mode: pass }]"]) {
      const config = proxyConfig(`${APP}\n${more}`, "/tmp");
      const lines = Object.entries(explainProxy(config)).filter(([, value]) => value !== undefined);
      const text = lines.map(([key, value]) => `${key}: ${JSON.stringify(value)}`).join("\n");
      expect(proxyConfig(text, "/tmp")).toEqual(config);
    }
  });

  test("announces the node's address with the front door's port, or what it is told to", () => {
    expect(proxyConfig(`${APP}\nlisten: :8080`, "/tmp").advertise).toBe("http://10.0.0.7:8080");
    expect(proxyConfig(`${APP}\nadvertise: http://other:1`, "/tmp").advertise).toBe("http://other:1");
  });

  test.each([
    ["app: https://127.0.0.1:8000", /app: .*neither http/],
    ["app: http://127.0.0.1:99999", /app: /],
    [`${APP}\nlisten: nowhere`, /listen: "nowhere" is no address/],
    [`${APP}\nadvertise: https://a`, /advertise: front doors reach each other over http/],
    [`${APP}\ntrusted-proxies: [10.0.0.0/33]`, /trusted-proxies\.0: "10\.0\.0\.0\/33"/],
    [`${APP}\ntrusted-proxies: [everybody]`, /trusted-proxies\.0: "everybody"/],
    [`${APP}\nroutes: [{ path: "x" }]`, /routes\.0\.path/],
    [`${APP}\ndurabilty: store`, /did you mean \\"durability\\"/],
    [`${APP}\ndurability: disk`, /durability/],
  ])("says what is wrong in %s", (proxy, message) => {
    expect(problem(proxy)).toMatch(message);
  });
});

import { Agent } from "node:http";
import { connect, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { Attempt } from "../../src/proxy/attempt.ts";
import { HopSigner } from "../../src/proxy/hop.ts";
import { matchedPath, Routes } from "../../src/proxy/route.ts";
import { type App, ask, echo, Nodes, until } from "./nodes.ts";

let nodes: Nodes | undefined;
afterEach(async () => {
  await nodes?.[Symbol.asyncDispose]();
  nodes = undefined;
});

const whoAnswers: App = (_, response, node) => response.setHeader("x-node", node.view.name).end();

describe("a replica's front door", () => {
  test.each(["GET", "HEAD", "OPTIONS"])("has %s answered by its own application", async (method) => {
    nodes = await Nodes.start(2, { app: whoAnswers });
    const reply = await nodes.ask(nodes.b, method, "/x?y=1");
    expect(reply.status).toBe(200);
    expect(reply.headers["x-node"]).toBe("b");
    expect(nodes.a.seen).toEqual([]);
  });

  test.each(["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])("forwards %s to the primary", async (method) => {
    nodes = await Nodes.start(2);
    const reply = await nodes.ask(nodes.b, method, "/x?y=1", { body: "hello", headers: { "x-own": "1" } });
    expect(reply.status).toBe(200);
    expect(reply.json).toMatchObject({ node: "a", method, url: "/x?y=1", body: "hello" });
    expect(reply.json.headers["x-own"]).toBe("1");
    expect(nodes.b.seen).toEqual([]);
  });

  test("sends everything to the primary while its own application isn't started, and waits for the primary's", async () => {
    nodes = await Nodes.start(2, { app: whoAnswers, starting: true });
    const { a, b } = nodes;
    const asked = [nodes.ask(b, "GET", "/x"), nodes.ask(b, "POST", "/x"), nodes.ask(a, "GET", "/x")];
    expect((await nodes.ask(b, "GET", "/.sluice/health")).json).toMatchObject({ reason: "this node is starting" });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect([...a.seen, ...b.seen]).toEqual([]);
    a.door.started();
    for (const reply of await Promise.all(asked)) expect(reply.headers["x-node"]).toBe("a");
    expect((await nodes.ask(b, "GET", "/x")).headers["x-node"]).toBe("a");
    b.door.started();
    expect((await nodes.ask(b, "GET", "/x")).headers["x-node"]).toBe("b");
  });

  test("forwards a write without a body, over and over on one connection", async () => {
    nodes = await Nodes.start(2);
    for (let i = 0; i < 20; i++) expect((await nodes.ask(nodes.b, "POST", `/${i}`)).json.node).toBe("a");
    expect(nodes.a.seen).toHaveLength(20);
  });

  test("finds the new primary when the old one no longer is it, and nobody has told this node", async () => {
    nodes = await Nodes.start(3);
    nodes.b.view.believes = nodes.a.view;
    nodes.cluster.promote(nodes.c.view);
    const asked = nodes.ask(nodes.b, "POST", "/x", { body: "hello" });
    await new Promise((resolve) => setTimeout(resolve, 150));
    nodes.b.view.believes = undefined;
    expect((await asked).json).toMatchObject({ node: "c", body: "hello" });
    expect(nodes.a.seen).toEqual([]);
  });

  test("never forwards what another front door has forwarded", async () => {
    nodes = await Nodes.start(3, { proxy: "primary-timeout: 300ms" });
    // Each of b and c takes the other for the primary.
    nodes.b.view.believes = nodes.c.view;
    nodes.c.view.believes = nodes.b.view;
    const reply = await nodes.ask(nodes.b, "POST", "/x", { body: "hello" });
    expect(reply.status).toBe(503);
    expect(reply.json.code).toBe("SLU-7002");
    expect([...nodes.a.seen, ...nodes.b.seen, ...nodes.c.seen]).toEqual([]);
    // The client's is all that b was asked.
    await expect.poll(() => nodes!.requests(nodes!.b)).toBe(1);
  });

  test("is not believed with another secret", async () => {
    nodes = await Nodes.start(2, { secrets: ["the secret of a", "the secret of b"] });
    const reply = await nodes.ask(nodes.b, "POST", "/x");
    expect(reply.status).toBe(403);
    expect(reply.json.code).toBe("SLU-7007");
    expect(nodes.a.seen).toEqual([]);
  });

  test("with `forward: fly-replay` answers with Fly.io's header, and forwards what comes a second time", async () => {
    nodes = await Nodes.start(2, { proxy: "forward: fly-replay" });
    const reply = await nodes.ask(nodes.b, "POST", "/x", { body: "hello" });
    expect(reply.headers["fly-replay"]).toBe("instance=a");
    expect(reply.status).toBe(409);
    expect(nodes.a.seen).toEqual([]);
    const again = await nodes.ask(nodes.b, "POST", "/x", {
      body: "hello",
      headers: { "fly-replay-src": "instance=c" },
    });
    expect(again.json).toMatchObject({ node: "a", body: "hello" });
  });
});

describe("while there is no primary", () => {
  test("a write waits for one", async () => {
    nodes = await Nodes.start(2);
    nodes.cluster.promote(undefined);
    const asked = nodes.ask(nodes.b, "POST", "/x", { body: "hello" });
    await new Promise((resolve) => setTimeout(resolve, 50));
    nodes.cluster.promote(nodes.b.view);
    expect((await asked).json).toMatchObject({ node: "b", body: "hello" });
  });

  test("a write gets 503 with Retry-After in the end, reads go on", async () => {
    nodes = await Nodes.start(2, { proxy: "primary-timeout: 100ms" });
    nodes.cluster.promote(undefined);
    const reply = await nodes.ask(nodes.b, "POST", "/x", { body: "hello" });
    expect(reply.status).toBe(503);
    expect(reply.json.code).toBe("SLU-7002");
    expect(reply.headers["retry-after"]).toBe("1");
    expect(reply.headers["sluice-outcome"]).toBeUndefined();
    expect((await nodes.ask(nodes.b, "GET", "/x")).status).toBe(200);
    expect(nodes.b.seen).toEqual(["GET /x"]);
  });

  test("a primary whose lease has run out by the clock holds writes until it is renewed", async () => {
    nodes = await Nodes.start(1, { proxy: "primary-timeout: 10m" });
    nodes.cluster.leaseOver = true;
    const asked = nodes.ask(nodes.a, "POST", "/x");
    await new Promise((resolve) => setTimeout(resolve, 120));
    expect(nodes.a.seen).toEqual([]);
    // No event says so: the clock does.
    nodes.cluster.leaseOver = false;
    expect((await asked).status).toBe(200);
  });

  test("a primary that can't be connected to is nobody", async () => {
    nodes = await Nodes.start(2, { proxy: "primary-timeout: 200ms" });
    nodes.a.view.proxy = new URL("http://127.0.0.1:1");
    const reply = await nodes.ask(nodes.b, "POST", "/x", { body: "hello" });
    expect([reply.status, reply.json.code]).toEqual([503, "SLU-7002"]);
  });

  test("the held writes of a client that left are not sent", async () => {
    nodes = await Nodes.start(1);
    nodes.cluster.leaseOver = true;
    const client = connect(nodes.a.port, "127.0.0.1");
    client.write("POST /gone HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    await new Promise((resolve) => setTimeout(resolve, 50));
    client.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
    nodes.cluster.leaseOver = false;
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(nodes.a.seen).toEqual([]);
  });
});

describe("during a handoff", () => {
  test("writes are held, those under way end first, and none fails", async () => {
    let release = (): void => undefined;
    nodes = await Nodes.start(2, {
      app: (request, response, node) => {
        if (request.url === "/slow") release = () => echo(request, response, node);
        else echo(request, response, node);
      },
    });
    const slow = nodes.ask(nodes.a, "POST", "/slow");
    await until(() => nodes!.a.seen.length === 1);
    const pause = nodes.a.door.pauseWrites();
    let isIdle = false;
    void pause.idle.then(() => (isIdle = true));
    const held = [nodes.ask(nodes.a, "POST", "/1"), nodes.ask(nodes.b, "POST", "/2", { body: "two" })];
    expect((await nodes.ask(nodes.a, "GET", "/read")).status).toBe(200);
    expect(isIdle).toBe(false);
    release();
    await pause.idle;
    expect((await slow).status).toBe(200);
    expect(nodes.a.seen).toEqual(["POST /slow", "GET /read"]);
    nodes.cluster.promote(nodes.b.view);
    pause.resume();
    for (const reply of await Promise.all(held)) expect([reply.status, reply.json.node]).toEqual([200, "b"]);
  });

  test("that is broken off, the held writes go to the same application", async () => {
    nodes = await Nodes.start(1, { proxy: "primary-timeout: 10m" });
    const pause = nodes.a.door.pauseWrites();
    await pause.idle;
    const held = nodes.ask(nodes.a, "POST", "/1");
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(nodes.a.seen).toEqual([]);
    pause.resume();
    expect((await held).json.node).toBe("a");
  });
});

describe("routes", () => {
  const routes = new Routes([
    { path: "/static/*", mode: "pass", durability: undefined },
    { path: "/api/*/undo", mode: "read", durability: undefined },
    { path: "/api/*", mode: "write", durability: "store" },
    { path: "/exact", mode: undefined, durability: "replica" },
  ]);

  test.each([
    ["GET", "/", "read", undefined],
    ["POST", "/", "write", undefined],
    ["POST", "/static/a/b.css", "pass", undefined],
    ["POST", "/static", "write", undefined],
    ["GET", "/static/../api/x", "write", "store"],
    ["GET", "/static/%2e%2E/api/x", "write", "store"],
    ["GET", "//api//x", "write", "store"],
    ["GET", "/%61pi/x?static", "write", "store"],
    ["POST", "/api/1/undo", "read", undefined],
    ["POST", "/api/1/undo/2", "write", "store"],
    ["GET", "/exact?a=/static/", "read", "replica"],
    ["POST", "/exact", "write", "replica"],
    ["POST", "/exact/", "write", undefined],
    ["GET", "*", "read", undefined],
  ])("%s %s is %s with %s", (method, target, mode, durability) => {
    expect(routes.of(method, target)).toEqual({ mode, durability });
  });

  test("patterns with many stars take no exponential time", () => {
    const many = new Routes([{ path: `/${"*a".repeat(30)}`, mode: "pass", durability: undefined }]);
    expect(many.of("GET", `/${"a".repeat(5000)}b`).mode).toBe("read");
  });

  test("paths keep a last slash and what is no percent-encoding", () => {
    expect(matchedPath("/a/%zz/./")).toBe("/a/%zz/");
    expect(matchedPath("/..")).toBe("/");
  });

  test("say what is passed, read and written", async () => {
    nodes = await Nodes.start(2, {
      proxy: 'routes: [{ path: "/pass/*", mode: pass }, { path: "/report/*", mode: write }]',
      app: whoAnswers,
    });
    const node = async (method: string, target: string) =>
      (await nodes!.ask(nodes!.b, method, target)).headers["x-node"];
    expect(await node("POST", "/pass/x")).toBe("b");
    expect(await node("GET", "/report/x")).toBe("a");
    expect(await node("GET", "/other")).toBe("b");
  });
});

describe("an application that isn't there", () => {
  test("is waited for, then 502, and the request was not sent", async () => {
    nodes = await Nodes.start(1);
    nodes.a.app.close();
    nodes.a.app.closeAllConnections();
    const reply = await nodes.ask(nodes.a, "POST", "/x", { body: "x" });
    expect([reply.status, reply.json.code]).toEqual([502, "SLU-7004"]);
    expect(reply.headers["sluice-outcome"]).toBeUndefined();
  });

  test("is waited for while it starts", async () => {
    nodes = await Nodes.start(1, { proxy: "app-timeout: 10s" });
    const { app, appPort } = nodes.a;
    app.close();
    app.closeAllConnections();
    const asked = nodes.ask(nodes.a, "POST", "/x", { body: "hello" });
    await new Promise((resolve) => setTimeout(resolve, 150));
    app.listen(appPort, "127.0.0.1");
    expect((await asked).json.body).toBe("hello");
    expect(nodes.a.seen).toHaveLength(1);
  });

  test("breaks off: a write is unknown and never sent again, a read is 502", async () => {
    nodes = await Nodes.start(2, { app: (request) => void request.socket.destroy() });
    const reply = await nodes.ask(nodes.a, "POST", "/x", { body: "x" });
    expect([reply.status, reply.json.code]).toEqual([502, "SLU-7005"]);
    expect(reply.headers["sluice-outcome"]).toBe("unknown");
    expect(nodes.a.seen).toEqual(["POST /x"]);
    const read = await nodes.ask(nodes.b, "GET", "/x");
    expect([read.status, read.headers["sluice-outcome"]]).toEqual([502, undefined]);
    expect(nodes.b.seen).toEqual(["GET /x"]);
  });

  test("closes an idle connection: a read is sent on another one, a write never was on it", async () => {
    const served = new WeakSet<Socket>();
    nodes = await Nodes.start(1, {
      app: (request, response, node) => {
        const { socket } = request;
        if (served.has(socket)) socket.destroy();
        else echo(request, response, node);
        served.add(socket);
      },
    });
    for (const method of ["GET", "GET", "POST", "GET", "POST", "POST"])
      expect((await ask(nodes.a.port, method, "/")).status).toBe(200);
    expect(nodes.a.seen.filter((each) => each.startsWith("POST"))).toHaveLength(3);
  });

  test("of a primary that dies with a forwarded write: 504, unknown, never sent again", async () => {
    nodes = await Nodes.start(2, { app: () => undefined });
    const asked = nodes.ask(nodes.b, "POST", "/x", { body: "x" });
    await until(() => nodes!.a.seen.length === 1);
    await nodes.a.door.stop(0);
    const reply = await asked;
    expect(reply.status).toBe(504);
    expect(reply.headers["sluice-outcome"]).toBe("unknown");
    expect([...nodes.a.seen, ...nodes.b.seen]).toEqual(["POST /x"]);
  });
});

test("a connection that doesn't come is given up, and nothing was sent", async () => {
  const agent = new Agent({ lookup: () => undefined });
  const attempt = new Attempt({
    to: { host: "nowhere.test", port: 80 },
    agent,
    method: "POST",
    target: "/",
    headers: ["Host", "a"],
    connectTimeoutMs: 30,
  });
  attempt.request.end();
  await expect(attempt.answer).rejects.toMatchObject({ wasSent: false });
});

test("a forwarded write that a former primary never answers is unknown after a while", async () => {
  nodes = await Nodes.start(3, { proxy: "durability-timeout: 100ms", app: () => undefined });
  const asked = nodes.ask(nodes.b, "POST", "/x", { body: "x" });
  await until(() => nodes!.a.seen.length === 1);
  // The old primary's front door is cut off, too: it doesn't notice.
  nodes.a.view.reign = () => 1;
  nodes.cluster.promote(nodes.c.view);
  const reply = await asked;
  expect([reply.status, reply.json.code, reply.headers["sluice-outcome"]]).toEqual([504, "SLU-7012", "unknown"]);
  expect([...nodes.b.seen, ...nodes.c.seen]).toEqual([]);
});

describe("a forwarding front door's word", () => {
  const hop = {
    from: "b",
    client: "1.2.3.4, ::1",
    proto: "https",
    mode: "write",
    expects: true,
    host: "a&b%",
  } as const;
  const signer = new HopSigner("secret");

  test("comes back as it was", () => {
    expect(signer.verify(signer.sign(hop, "POST", "/x"), "POST", "/x")).toEqual(hop);
  });

  test("counts for one method, one target and one secret", () => {
    const signed = signer.sign(hop, "POST", "/x");
    expect(signer.verify(signed, "PUT", "/x")).toBeUndefined();
    expect(signer.verify(signed, "POST", "/y")).toBeUndefined();
    expect(new HopSigner("other").verify(signed, "POST", "/x")).toBeUndefined();
    expect(signer.verify(signed.replace("write", "read"), "POST", "/x")).toBeUndefined();
    expect(signer.verify("", "POST", "/x")).toBeUndefined();
  });
});

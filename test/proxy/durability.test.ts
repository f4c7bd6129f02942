import { once } from "node:events";
import { request as send, type IncomingMessage } from "node:http";
import { afterEach, describe, expect, test } from "vitest";
import { echo, Nodes, until } from "./nodes.ts";

let started: Nodes | undefined;
const start = async (...args: Parameters<typeof Nodes.start>): Promise<Nodes> => (started = await Nodes.start(...args));
afterEach(async () => {
  await started?.[Symbol.asyncDispose]();
  started = undefined;
});

/** Whether it is still open after a while in which it would have ended. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const late = new Promise((resolve) => setTimeout(resolve, 80, "late"));
  return (await Promise.race([promise.then(() => "done"), late])) === "late";
}

describe("a write's answer waits", () => {
  test.each([
    ["by default", "durability: store", {}, "/"],
    ["by its route", 'routes: [{ path: "/checkout/*", durability: store }]', {}, "/checkout/1"],
    ["by its header", "", { "sluice-durability": "store" }, "/"],
    [
      "by its header, past a lower route",
      'routes: [{ path: "/*", durability: replica }]',
      { "sluice-durability": "store" },
      "/",
    ],
    [
      "by its route, past a lower header",
      'routes: [{ path: "/*", durability: store }]',
      { "sluice-durability": "local" },
      "/",
    ],
  ])("for the store %s, through whichever node", async (_, proxy, headers, target) => {
    const nodes = await start(2, { proxy });
    nodes.cluster.settle("replica");
    const asked = [nodes.a, nodes.b].map((node) => nodes.ask(node, "POST", target, { headers }));
    for (const each of asked) expect(await isPending(each)).toBe(true);
    expect(nodes.a.seen).toHaveLength(2);
    nodes.cluster.settle("replica", "store");
    for (const reply of await Promise.all(asked)) {
      expect(reply.status).toBe(200);
      expect(reply.headers["sluice-durable"]).toBe("store");
    }
  });

  test("for replicas; a route may ask for less than the default", async () => {
    const nodes = await start(1, { proxy: 'durability: replica\nroutes: [{ path: "/log", durability: local }]' });
    nodes.cluster.settle();
    expect((await nodes.ask(nodes.a, "POST", "/log")).headers["sluice-durable"]).toBe("local");
    const asked = nodes.ask(nodes.a, "POST", "/");
    expect(await isPending(asked)).toBe(true);
    nodes.cluster.settle("replica");
    expect((await asked).headers["sluice-durable"]).toBe("replica");
  });

  test("for what anybody has committed, also when it is an error", async () => {
    const nodes = await start(1, {
      proxy: "durability: store",
      app: (_, response) => response.writeHead(404).end("no"),
    });
    nodes.cluster.settle();
    nodes.cluster.commit(nodes.a.view, "app.db");
    const asked = nodes.ask(nodes.a, "POST", "/");
    expect(await isPending(asked)).toBe(true);
    nodes.cluster.settle("store");
    expect((await asked).status).toBe(404);
  });

  test("not at all for what is durable already, and many wait together", async () => {
    const nodes = await start(1, { proxy: "durability: store" });
    expect((await nodes.ask(nodes.a, "POST", "/")).status).toBe(200);
    nodes.cluster.settle();
    const asked = Array.from({ length: 50 }, () => nodes.ask(nodes.a, "POST", "/"));
    await until(() => nodes.a.seen.length === 51);
    nodes.cluster.settle("store");
    for (const reply of await Promise.all(asked)) expect(reply.status).toBe(200);
  });
});

describe("an outcome is unknown, and the application's answer withheld", () => {
  test("when the time is over", async () => {
    const nodes = await start(2, { proxy: "durability: store\ndurability-timeout: 50ms" });
    nodes.cluster.settle();
    const reply = await nodes.ask(nodes.b, "POST", "/", { body: "x" });
    expect([reply.status, reply.json.code]).toEqual([504, "SLU-7003"]);
    expect(reply.headers["sluice-outcome"]).toBe("unknown");
    expect(nodes.a.seen).toEqual(["POST /"]);
  });

  test("when the commit leaves the history", async () => {
    const nodes = await start(2, { proxy: "durability: store" });
    nodes.cluster.settle();
    const asked = nodes.ask(nodes.a, "POST", "/");
    await until(() => nodes.a.seen.length === 1);
    nodes.cluster.promote(nodes.b.view, 1);
    const reply = await asked;
    expect([reply.status, reply.headers["sluice-outcome"]]).toEqual([504, "unknown"]);
  });

  test("when the node is not the primary any longer, or another time, though nothing was to be waited for", async () => {
    let answer = (): void => undefined;
    const nodes = await start(2, {
      proxy: "durability-timeout: 10m",
      app: (request, response, node) => (answer = () => echo(request, response, node)),
    });
    for (const again of [false, true]) {
      const asked = nodes.ask(nodes.a, "POST", "/");
      await until(() => nodes.a.seen.length > 0);
      answer();
      nodes.cluster.promote(nodes.b.view);
      if (again) nodes.cluster.promote(nodes.a.view);
      const reply = await asked;
      expect([reply.status, reply.json.code]).toEqual([504, "SLU-7003"]);
      expect(reply.headers["sluice-outcome"]).toBe("unknown");
      nodes.cluster.promote(nodes.a.view);
      nodes.a.seen.length = 0;
    }
  });

  test("when the commits can't be captured any more", async () => {
    const nodes = await start(1, { proxy: "durability: store" });
    const positions = nodes.a.view.positions.bind(nodes.a.view);
    nodes.a.view.positions = () => {
      if (nodes.a.seen.length > 0) throw new Error("the disk is gone");
      return positions();
    };
    const reply = await nodes.ask(nodes.a, "POST", "/");
    expect([reply.status, reply.headers["sluice-outcome"]]).toEqual([504, "unknown"]);
  });

  test("not yet when the lease is late: it may be renewed", async () => {
    let answer = (): void => undefined;
    const nodes = await start(1, { app: (request, response, node) => (answer = () => echo(request, response, node)) });
    const asked = nodes.ask(nodes.a, "POST", "/");
    await until(() => nodes.a.seen.length > 0);
    nodes.cluster.leaseOver = true;
    answer();
    expect(await isPending(asked)).toBe(true);
    nodes.cluster.leaseOver = false;
    expect((await asked).status).toBe(200);
  });
});

test("a handoff waits until answers are released, after the application has answered", async () => {
  const nodes = await start(2, { proxy: "durability: store" });
  nodes.cluster.settle();
  const asked = nodes.ask(nodes.a, "POST", "/");
  await until(() => nodes.a.seen.length > 0);
  const pause = nodes.a.door.pauseWrites();
  await pause.idle;
  expect(await isPending(pause.released)).toBe(true);
  nodes.cluster.settle("store");
  await pause.released;
  nodes.cluster.promote(nodes.b.view);
  pause.resume();
  expect((await asked).status).toBe(200);
});

test.each([
  ["that goes on sending is under way to its end", {}, true],
  ["that has said how much comes is not", { "content-length": "6" }, false],
])("to a handoff, an application %s", async (_, headers, isUnderWay) => {
  let more = (): void => undefined;
  const nodes = await start(1, {
    app: (_, response) => {
      response.writeHead(200, headers);
      response.write("one");
      more = () => void response.end("two");
    },
  });
  const asked = nodes.ask(nodes.a, "POST", "/");
  await until(() => nodes.a.seen.length > 0);
  // Its head is through when the first of two writes is.
  await new Promise((resolve) => setTimeout(resolve, 50));
  const pause = nodes.a.door.pauseWrites();
  expect(await isPending(pause.idle)).toBe(isUnderWay);
  expect(await isPending(pause.released)).toBe(isUnderWay);
  more();
  await pause.released;
  pause.resume();
  expect((await asked).body).toBe("onetwo");
});

test("to a handoff, an answer with a length that waits is only to be released", async () => {
  let more = (): void => undefined;
  const nodes = await start(1, {
    proxy: "durability: store",
    app: (_, response) => {
      response.writeHead(200, { "content-length": "6" });
      response.write("one");
      more = () => void response.end("two");
    },
  });
  nodes.cluster.commit(nodes.a.view, "app.db");
  nodes.cluster.settle();
  const asked = nodes.ask(nodes.a, "POST", "/");
  await until(() => nodes.a.seen.length > 0);
  const pause = nodes.a.door.pauseWrites();
  await pause.idle;
  more();
  expect(await isPending(pause.released)).toBe(true);
  nodes.cluster.settle("store");
  await pause.released;
  expect((await asked).body).toBe("onetwo");
});

describe("a stream", () => {
  async function stream(
    nodes: Nodes,
    target: string,
  ): Promise<{ chunks: string[]; ended: Promise<unknown>; status: number }> {
    const request = send({ host: "127.0.0.1", port: nodes.a.port, method: "POST", path: target });
    request.end();
    const [response] = (await once(request, "response")) as [IncomingMessage];
    const chunks: string[] = [];
    response.on("data", (chunk: Buffer) => chunks.push(chunk.toString()));
    const ended = new Promise((resolve) => {
      response.on("end", () => resolve("end"));
      response.on("error", () => resolve("broken"));
    });
    return { chunks, ended, status: response.statusCode! };
  }

  test.each([
    ["with chunks", {}, ["one", "two"]],
    ["with a length", { "content-length": "6" }, ["one", ""]],
  ])("%s waits for its first byte, and again before its last", async (_, headers, [first, second]) => {
    let more = (): void => undefined;
    const nodes = await start(1, {
      proxy: "durability: store",
      app: (_, response, node) => {
        response.writeHead(200, headers);
        response.write("one");
        more = () => {
          node.view.cluster.commit(node.view, "app.db");
          response.end("two");
        };
      },
    });
    nodes.cluster.commit(nodes.a.view, "app.db");
    nodes.cluster.settle();
    const streaming = stream(nodes, "/");
    await until(() => nodes.a.seen.length > 0);
    expect(await isPending(streaming)).toBe(true);
    nodes.cluster.settle("store");
    const { chunks, ended } = await streaming;
    await until(() => chunks.join("") === first);
    nodes.cluster.settle();
    more();
    expect(await isPending(ended)).toBe(true);
    expect(chunks.join("")).toBe(first! + second!);
    nodes.cluster.settle("store");
    expect(await ended).toBe("end");
    expect(chunks.join("")).toBe("onetwo");
  });

  test("whose last commit is not confirmed is broken off", async () => {
    let more = (): void => undefined;
    const nodes = await start(1, {
      proxy: "durability: store\ndurability-timeout: 100ms",
      app: (_, response, node) => {
        response.write("one");
        more = () => {
          node.view.cluster.commit(node.view, "app.db");
          response.end("two");
        };
      },
    });
    const { ended } = await stream(nodes, "/");
    nodes.cluster.settle();
    more();
    expect(await ended).toBe("broken");
  });

  test("of server-sent events waits for nothing", async () => {
    const nodes = await start(1, {
      proxy: "durability: store\nhold-reads: true",
      app: (_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.write("data: 1\n\n");
      },
    });
    nodes.cluster.settle();
    nodes.cluster.commit(nodes.a.view, "app.db");
    const { chunks } = await stream(nodes, "/");
    await expect.poll(() => chunks.join("")).toBe("data: 1\n\n");
  });
});

describe("a read", () => {
  test("waits for nothing, unless it or its route asks", async () => {
    const nodes = await start(1, { proxy: 'durability: store\nroutes: [{ path: "/bank", durability: store }]' });
    nodes.cluster.commit(nodes.a.view, "app.db");
    nodes.cluster.settle();
    const reply = await nodes.ask(nodes.a, "GET", "/");
    expect(reply.headers).not.toHaveProperty("sluice-durable");
    const asked = [
      nodes.ask(nodes.a, "GET", "/bank"),
      nodes.ask(nodes.a, "GET", "/", { headers: { "sluice-durability": "store" } }),
    ];
    for (const each of asked) expect(await isPending(each)).toBe(true);
    nodes.cluster.settle("store");
    for (const each of await Promise.all(asked)) expect(each.headers["sluice-durable"]).toBe("store");
  });

  test("with `hold-reads` waits on every node until what it saw is durable", async () => {
    const nodes = await start(2, { proxy: "hold-reads: true" });
    nodes.cluster.settle();
    nodes.cluster.commit(nodes.a.view, "app.db");
    const asked = [nodes.a, nodes.b].map((node) => nodes.ask(node, "GET", "/"));
    for (const each of asked) expect(await isPending(each)).toBe(true);
    nodes.cluster.settle("replica");
    for (const each of await Promise.all(asked)) expect(each.status).toBe(200);
    expect(nodes.b.seen).toEqual(["GET /"]);
  });

  test("with `hold-reads` that waits too long gets 503", async () => {
    const nodes = await start(2, { proxy: "hold-reads: true\ndurability-timeout: 60ms" });
    nodes.cluster.settle();
    nodes.cluster.commit(nodes.a.view, "app.db");
    const late = await nodes.ask(nodes.b, "GET", "/");
    expect([late.status, late.json.code, late.headers["retry-after"]]).toEqual([503, "SLU-7011", "1"]);
    expect(late.headers).not.toHaveProperty("sluice-outcome");
  });

  test("in pass mode is nobody's business", async () => {
    const nodes = await start(1, {
      proxy: 'hold-reads: true\nroutes: [{ path: "/static/*", mode: pass, durability: store }]',
    });
    nodes.cluster.commit(nodes.a.view, "app.db");
    nodes.cluster.settle();
    const captures = nodes.a.view.captures;
    const reply = await nodes.ask(nodes.a, "POST", "/static/x", { headers: { "sluice-durability": "store" } });
    expect(reply.status).toBe(200);
    expect(reply.headers).not.toHaveProperty("sluice-durable");
    expect(nodes.a.view.captures).toBe(captures);
  });
});

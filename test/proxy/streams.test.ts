import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { type ClientRequest, type IncomingMessage, request as send } from "node:http";
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import { afterEach, describe, expect, test } from "vitest";
import { freeing } from "../../src/proxy/free.ts";
import { type App, echo, Nodes, type TestNode, until } from "./nodes.ts";

let started: Nodes | undefined;
const start = async (...args: Parameters<typeof Nodes.start>): Promise<Nodes> => (started = await Nodes.start(...args));
const sockets: Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await started?.[Symbol.asyncDispose]();
  started = undefined;
});

/** Without a byte, before an answer is taken to be missing. */
const PATIENCE_MS = 20_000;
const END = "\r\n\r\n";

function open(
  node: TestNode,
  method: string,
  path: string,
  headers: Record<string, string | number> = {},
): ClientRequest {
  return send({ host: "127.0.0.1", port: node.port, method, path, headers });
}

async function answerOf(
  request: ClientRequest,
): Promise<{ response: IncomingMessage; text: () => string; ended: Promise<string> }> {
  const [response] = (await once(request, "response")) as [IncomingMessage];
  let text = "";
  response.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  const ended = new Promise<string>((resolve) => {
    response.on("end", () => resolve(text));
    response.on("error", () => resolve("broken"));
  });
  return { response, text: () => text, ended };
}

const hashing: App = (request, response) => {
  const hash = createHash("sha256");
  let bytes = 0;
  request.on("data", (chunk: Buffer) => {
    hash.update(chunk);
    bytes += chunk.length;
  });
  request.on("end", () => response.end(`${bytes} ${hash.digest("hex")}`));
};

describe("a body through a replica", () => {
  test.each([
    ["with a length", true],
    ["in chunks", false],
  ])("of 30 MB %s comes through as it is", async (_, hasLength) => {
    const nodes = await start(2, { app: hashing });
    const parts = Array.from({ length: 30 }, () => randomBytes(1_000_000));
    const hash = createHash("sha256");
    for (const part of parts) hash.update(part);
    const request = open(nodes.b, "PUT", "/", hasLength ? { "content-length": 30_000_000 } : {});
    const answer = answerOf(request);
    for (const part of parts) if (!request.write(part)) await once(request, "drain");
    request.end();
    expect(await (await answer).ended).toBe(`30000000 ${hash.digest("hex")}`);
    expect(nodes.b.seen).toEqual([]);
  });

  test("and an answer of 30 MB come at the speed of the slowest", async () => {
    let written = 0;
    const nodes = await start(2, {
      app: (_, response) => {
        const part = Buffer.alloc(65_536, "x");
        const more = (): void => {
          while (written < 30_000_000) {
            written += part.length;
            if (!response.write(part)) return void response.once("drain", more);
          }
          response.end();
        };
        more();
      },
    });
    const request = open(nodes.b, "POST", "/");
    request.end();
    const [response] = (await once(request, "response")) as [IncomingMessage];
    await new Promise((resolve) => setTimeout(resolve, 300));
    // Sockets and buffers between them hold some; the rest waits in the application.
    expect(written).toBeLessThan(25_000_000);
    let bytes = 0;
    for await (const chunk of response) bytes += (chunk as Buffer).length;
    expect(bytes).toBe(written);
  });

  test("has its trailers, and the answer has its own", async () => {
    const nodes = await start(2, {
      app: (request, response) => {
        request.resume().on("end", () => {
          response.writeHead(200, { trailer: "x-sum" });
          response.write(JSON.stringify(request.trailers));
          response.addTrailers({ "x-sum": "42" });
          response.end();
        });
      },
    });
    const request = open(nodes.b, "POST", "/", {
      "transfer-encoding": "chunked",
      trailer: "x-md5",
      te: "trailers",
      connection: "te",
    });
    const answer = answerOf(request);
    request.write("x");
    request.addTrailers({ "x-md5": "abc", "Sluice-Role": "evil", "X-Forwarded-For": "6.6.6.6" });
    request.end();
    const { response, ended } = await answer;
    expect(JSON.parse(await ended)).toEqual({ "x-md5": "abc" });
    expect(response.trailers).toEqual({ "x-sum": "42" });
  });

  test("that is longer than the limit is refused: by its length at once, in chunks when it is", async () => {
    const nodes = await start(2, { app: hashing, proxy: "max-body-size: 100KB" });
    for (const hasLength of [true, false]) {
      const request = open(nodes.b, "POST", "/", hasLength ? { "content-length": 200_000 } : {});
      request.on("error", () => undefined);
      const answer = answerOf(request);
      request.write(Buffer.alloc(200_000));
      const { response, ended } = await answer;
      expect(response.statusCode).toBe(413);
      expect(await ended).toMatch(/SLU-7008/);
      request.destroy();
    }
    const fits = open(nodes.b, "POST", "/", { "content-length": 100_000 });
    fits.end(Buffer.alloc(100_000));
    expect(await (await answerOf(fits)).ended).toMatch(/^100000 /);
  });

  test("that the application refuses half-way: the client gets its answer", async () => {
    const nodes = await start(2, {
      app: (_, response) => void response.writeHead(422, { connection: "close" }).end("no"),
    });
    for (let i = 0; i < 5; i++) {
      const request = open(nodes.b, "POST", "/", { "content-length": 100_000_000 });
      request.on("error", () => undefined);
      const answer = answerOf(request);
      const stop = setInterval(() => request.write(Buffer.alloc(300_000)), 1);
      const { response, ended } = await answer;
      clearInterval(stop);
      expect([response.statusCode, await ended]).toEqual([422, "no"]);
      request.destroy();
    }
  });

  test("of which the application has refused the rest isn't sent on, and is read from the client", async () => {
    let got = 0;
    const nodes = await start(2, {
      app: (request, response) => {
        request.on("data", (chunk: Buffer) => (got += chunk.length));
        response.writeHead(422).end("no");
      },
    });
    for (const node of [nodes.a, nodes.b]) {
      got = 0;
      const request = open(node, "POST", "/", { "content-length": 5_000_000 });
      request.flushHeaders();
      request.write("x");
      const { response, ended } = await answerOf(request);
      expect([response.statusCode, await ended]).toEqual([422, "no"]);
      request.end(Buffer.alloc(4_999_999));
      await once(request, "finish");
      expect((await nodes.ask(nodes.a, "GET", "/")).status).toBe(422);
      expect(got).toBeLessThan(1_000_000);
    }
  });

  test("of a client that leaves ends at the application, too", async () => {
    let aborted = 0;
    const nodes = await start(2, { app: (request) => void request.on("close", () => aborted++).resume() });
    const request = open(nodes.b, "POST", "/", { "content-length": 1000 });
    request.on("error", () => undefined);
    request.write("x");
    await until(() => nodes.a.seen.length === 1);
    request.destroy();
    await expect.poll(() => aborted).toBe(1);
  });
});

test("a large chunk's memory is given back when it is written, and not before", () => {
  const chunk = Buffer.alloc(100_000);
  freeing(chunk)!(new Error("the system may still hold it"));
  expect(chunk.length).toBe(100_000);
  freeing(chunk)!();
  expect(chunk.length).toBe(0);
  expect(freeing(Buffer.alloc(100))).toBeUndefined();
  expect(freeing(Buffer.alloc(100_000).subarray(1))).toBeUndefined();
});

describe("Expect: 100-continue", () => {
  test.each([
    ["on the primary", 0],
    ["through a replica", 1],
  ])("is the application's to answer %s", async (_, which) => {
    let go: (() => void) | undefined;
    const nodes = await start(2);
    nodes.a.app.on("checkContinue", (request: IncomingMessage, response) => {
      go = () => {
        response.writeContinue();
        echo(request, response, nodes.a);
      };
    });
    const request = open(nodes.all[which]!, "POST", "/", { "content-length": 5, expect: "100-continue" });
    request.flushHeaders();
    let continued = false;
    request.on("continue", () => {
      continued = true;
      request.end("hello");
    });
    await until(() => go !== undefined);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(continued).toBe(false);
    go!();
    expect(JSON.parse(await (await answerOf(request)).ended)).toMatchObject({ node: "a", body: "hello" });
    expect(continued).toBe(true);
  });

  test("that the application refuses: the body is not asked for, and the connection ends", async () => {
    const nodes = await start(2);
    nodes.a.app.on("checkContinue", (_, response) => response.writeHead(413).end("no"));
    const back = await nodes.raw(
      nodes.b,
      `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue${END}`,
    );
    expect(back).toMatch(/^HTTP\/1\.1 413 [^]*Connection: close[^]*no/i);
  });

  test("of an application that doesn't know it is answered by the front door after a while", async () => {
    const nodes = await start(1);
    nodes.a.app.on("checkContinue", (request: IncomingMessage, response) => echo(request, response, nodes.a));
    const request = open(nodes.a, "POST", "/", { "content-length": 5, expect: "100-continue" });
    request.flushHeaders();
    request.on("continue", () => request.end("hello"));
    expect(JSON.parse(await (await answerOf(request)).ended)).toMatchObject({ body: "hello" });
  });
});

describe("streams of the application", () => {
  test("such as server-sent events come as they are sent, through a replica, too", async () => {
    let push = (text: string): void => void text;
    const nodes = await start(2, {
      proxy: 'routes: [{ path: "/events", mode: write }]',
      app: (_, response) => {
        response.writeHead(200, { "content-type": "text/event-stream" });
        response.flushHeaders();
        push = (text) => void response.write(text);
      },
    });
    const request = open(nodes.b, "GET", "/events");
    request.end();
    const { text } = await answerOf(request);
    for (const event of ["data: 1\n\n", "data: 2\n\n"]) {
      push(event);
      await expect.poll(text).toMatch(new RegExp(`${event.trim()}\n\n$`));
    }
    // A stream that never ends is no write under way.
    const pause = nodes.a.door.pauseWrites();
    await pause.idle;
    pause.resume();
    request.destroy();
  });

  test("early hints are passed on", async () => {
    const nodes = await start(2, {
      app: (_, response) => {
        response.writeEarlyHints({ link: "</x.css>; rel=preload" });
        setTimeout(() => response.end("x"), 20);
      },
    });
    const back = await nodes.raw(nodes.b, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0${END}`);
    expect(back).toMatch(/^HTTP\/1\.1 103 [^]*link: <\/x\.css>[^]*HTTP\/1\.1 200 /i);
  });

  test("an answer that breaks off breaks off for the client, too", async () => {
    const nodes = await start(2, {
      app: (_, response) => {
        response.writeHead(200, { "content-length": 100 });
        response.write("half");
        setTimeout(() => response.destroy(), 30);
      },
    });
    for (const node of [nodes.a, nodes.b]) {
      const request = open(node, "POST", "/");
      request.end();
      expect(await (await answerOf(request)).ended).toBe("broken");
    }
  });
});

describe("connections", () => {
  test("stay open; requests that are sent at once are answered in order", async () => {
    const nodes = await start(2, {
      app: (request, response) => void setTimeout(() => response.end(request.url), request.url === "/1" ? 60 : 0),
    });
    const requests = ["GET /1", "POST /2", "GET /3"].map(
      (each) => `${each} HTTP/1.1\r\nHost: a\r\nContent-Length: 0${END}`,
    );
    const back = await nodes.raw(nodes.b, requests.join(""));
    expect(back.match(/\/\d$|\/\d(?=HTTP)/g)).toEqual(["/1", "/2", "/3"]);
    expect(back).not.toMatch(/connection: close/i);
  });

  test("have one request at the application at a time, however many were sent at once", async () => {
    let inside = 0;
    let most = 0;
    const nodes = await start(1, {
      app: (_, response) => {
        most = Math.max(most, ++inside);
        setTimeout(() => {
          inside--;
          response.end();
        }, 2);
      },
    });
    // The last one ends the connection, and with it the wait for answers, however slow the machine.
    const all = (count: number, body: string): string => {
      const request = (more: string): string =>
        `POST / HTTP/1.1\r\nHost: a\r\n${more}Content-Length: ${body.length}${END}${body}`;
      return request("").repeat(count - 1) + request("Connection: close\r\n");
    };
    const back = await nodes.raw(nodes.a, all(50, ""), PATIENCE_MS);
    expect(back.match(/^HTTP\/1\.1 200/gm)).toHaveLength(50);
    expect(most).toBe(1);
    // A body comes through after that, too.
    const bodies = await nodes.raw(nodes.a, all(5, "x".repeat(100_000)), PATIENCE_MS);
    expect(bodies.match(/^HTTP\/1\.1 200/gm)).toHaveLength(5);
  });

  test("that send more and more while none is answered are ended", async () => {
    const nodes = await start(1, { app: () => undefined });
    const socket = connect(nodes.a.port, "127.0.0.1");
    sockets.push(socket);
    socket.on("error", () => undefined);
    const ended = once(socket, "close");
    socket.write(`GET / HTTP/1.1\r\nHost: a${END}`.repeat(100));
    await until(() => nodes.a.seen.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(socket.closed).toBe(false);
    socket.write(`GET / HTTP/1.1\r\nHost: a${END}`);
    await ended;
    await expect.poll(() => nodes.requests(nodes.a)).toBe(101);
    expect(nodes.a.seen).toHaveLength(1);
  });

  test("that end with requests waiting leave none behind", async () => {
    const nodes = await start(1, { app: (request, response) => void setTimeout(() => response.end(request.url), 50) });
    const socket = connect(nodes.a.port, "127.0.0.1");
    socket.write(`GET / HTTP/1.1\r\nHost: a${END}`.repeat(10));
    await until(() => nodes.a.seen.length === 1);
    socket.destroy();
    await nodes.a.door.stop(60_000);
    expect(nodes.a.seen).toHaveLength(1);
    await expect.poll(() => nodes.requests(nodes.a)).toBe(10);
  });

  test("of HTTP/1.0 get an answer that they understand", async () => {
    const nodes = await start(1, {
      app: (_, response) => {
        response.write("a");
        response.end("b");
      },
    });
    const back = await nodes.raw(nodes.a, `GET / HTTP/1.0${END}`);
    expect(back).toMatch(/\r\n\r\nab$/);
    expect(back).not.toMatch(/transfer-encoding/i);
  });

  test("of clients that send or take nothing are ended, those that wait for the application are not", async () => {
    const nodes = await start(1, {
      proxy: "client-timeout: 300ms",
      app: (request, response) => {
        if (request.url === "/slow") setTimeout(() => response.end("late"), 2500);
        else if (request.url === "/big") response.end(Buffer.alloc(20_000_000));
        else request.resume().on("end", () => response.end("done"));
      },
    });
    const slow = nodes.ask(nodes.a, "GET", "/slow");
    const started = performance.now();
    const [head, body] = await Promise.all([
      nodes.raw(nodes.a, "GET / HTTP/1.1\r\nHost:"),
      nodes.raw(nodes.a, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10${END}abc`),
    ]);
    expect(head).toMatch(/^HTTP\/1\.1 408 /);
    expect(body).toMatch(/^HTTP\/1\.1 408 /);
    const lazy = connect(nodes.a.port, "127.0.0.1");
    sockets.push(lazy);
    lazy.write(`GET /big HTTP/1.1\r\nHost: a${END}`);
    await expect.poll(() => lazy.readableLength, { timeout: 5000 }).toBe(0);
    const ended = once(lazy, "close");
    lazy.on("error", () => undefined);
    await new Promise((resolve) => setTimeout(resolve, 1800));
    lazy.resume();
    await ended;
    expect(lazy.bytesRead).toBeLessThan(20_000_000);
    expect((await slow).body).toBe("late");
    expect(performance.now() - started).toBeGreaterThan(2000);
  });
});

describe("WebSockets", () => {
  /** Shouts back what it hears; says where it is. */
  const shout = (nodes: Nodes): void => {
    for (const { app, view } of nodes.all)
      app.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
        const says = `X-Node: ${view.name}\r\nX-From: ${String(request.headers["x-forwarded-for"])}`;
        socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${says}${END}`);
        const back = (data: Buffer): void => void socket.write(data.toString().toUpperCase());
        if (head.length > 0) back(head);
        socket.on("data", back);
        socket.on("error", () => socket.destroy());
        socket.on("end", () => socket.end());
      });
  };

  async function upgrade(node: TestNode, path: string, first = ""): Promise<{ socket: Socket; text: () => string }> {
    const socket = connect(node.port, "127.0.0.1");
    sockets.push(socket);
    let text = "";
    socket.on("data", (data: Buffer) => (text += data.toString()));
    socket.on("error", () => undefined);
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket${END}${first}`,
    );
    await until(() => text.includes(END) || socket.closed, "an answer");
    return { socket, text: () => text };
  }

  test.each([
    ["here", "/ws", "b"],
    ["through a route to the primary", "/primary/ws", "a"],
  ])("are joined in both directions: %s", async (_, path, name) => {
    const nodes = await start(2, { proxy: 'routes: [{ path: "/primary/*", mode: write }]' });
    shout(nodes);
    const { socket, text } = await upgrade(nodes.b, path, "first ");
    expect(text()).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/);
    expect(text()).toMatch(new RegExp(`X-Node: ${name}\r\nX-From: 127.0.0.1`));
    socket.write("hello");
    await expect.poll(text).toMatch(/FIRST HELLO$/);
    socket.end();
    await once(socket, "close");
  });

  test("that are asked for before an earlier answer has come get theirs after it", async () => {
    const nodes = await start(1, { app: (_, response) => void setTimeout(() => response.end("first"), 50) });
    shout(nodes);
    const wish = `GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket${END}`;
    const back = await nodes.raw(nodes.a, `GET / HTTP/1.1\r\nHost: a${END}${wish}hello`);
    expect(back).toMatch(/^HTTP\/1\.1 200 [^]*firstHTTP\/1\.1 101 [^]*HELLO$/);
  });

  test("end with a stop when the requests under way have ended", async () => {
    let answer = (): void => undefined;
    const nodes = await start(1, { app: (_, response) => (answer = () => void response.end("done")) });
    shout(nodes);
    const { socket } = await upgrade(nodes.a, "/");
    const asked = nodes.ask(nodes.a, "GET", "/");
    await until(() => nodes.a.seen.length === 1);
    const stopped = nodes.a.door.stop(60_000);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(socket.closed).toBe(false);
    answer();
    expect((await asked).body).toBe("done");
    await stopped;
    await until(() => socket.closed);
  });

  test("carry a lot, both ways at once", async () => {
    const nodes = await start(2, { proxy: 'routes: [{ path: "/*", mode: write }]' });
    shout(nodes);
    const { socket, text } = await upgrade(nodes.b, "/");
    for (let i = 0; i < 100; i++) socket.write("x".repeat(50_000));
    await expect.poll(() => text().length, { timeout: 10_000 }).toBeGreaterThan(5_000_000);
  });

  test("are the only other protocol: a wish for HTTP/2 is not passed on, its request is served", async () => {
    const nodes = await start(2);
    const wish = `Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA`;
    const back = await nodes.raw(nodes.b, `POST / HTTP/1.1\r\nHost: a\r\n${wish}\r\nContent-Length: 5${END}hello`);
    expect(back).toMatch(/^HTTP\/1\.1 200 [^]*"body":"hello"/);
    expect(back).not.toMatch(/h2c|http2-settings/i);
  });

  test("that nobody asked for are no answer", async () => {
    const nodes = await start(1, {
      app: (request) =>
        void request.socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x${END}`),
    });
    expect((await nodes.ask(nodes.a, "GET", "/")).json.code).toBe("SLU-7005");
  });

  test("that the application refuses get its answer", async () => {
    const nodes = await start(1, { app: (_, response) => void response.writeHead(403, { "x-why": "so" }).end("no") });
    const { socket, text } = await upgrade(nodes.a, "/");
    await until(() => socket.closed);
    expect(text()).toMatch(/^HTTP\/1\.1 403 [^]*x-why: so[^]*no$/i);
  });

  test("that the application wants on the primary go there", async () => {
    const nodes = await start(2);
    nodes.b.app.on("upgrade", (_request, socket: Duplex) => {
      socket.end(`HTTP/1.1 409 Conflict\r\nSluice-Replay: primary\r\nContent-Length: 0\r\nConnection: close${END}`);
    });
    nodes.a.app.on("upgrade", (_request, socket: Duplex) => {
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Node: a${END}early`,
      );
    });
    expect((await upgrade(nodes.b, "/")).text()).toMatch(/101 [^]*X-Node: a[^]*early$/);
  });

  test("get 502 without an application, 503 without a primary, and are ended by a stop", async () => {
    const nodes = await start(1, { proxy: 'primary-timeout: 50ms\nroutes: [{ path: "/primary", mode: write }]' });
    shout(nodes);
    const { socket } = await upgrade(nodes.a, "/");
    nodes.cluster.promote(undefined);
    expect((await upgrade(nodes.a, "/primary")).text()).toMatch(/^HTTP\/1\.1 503 [^]*SLU-7002/);
    nodes.a.app.close();
    expect((await upgrade(nodes.a, "/")).text()).toMatch(/^HTTP\/1\.1 502 [^]*SLU-7004/);
    await nodes.a.door.stop(60_000);
    await until(() => socket.closed);
  });
});

import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type IncomingMessage, request } from "node:http";
import { connect, type Socket } from "node:net";
import os from "node:os";
import path from "node:path";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { AdminServer } from "../../src/admin/server.ts";
import { Node } from "../../src/cluster/node.ts";
import type { Config } from "../../src/config/config.ts";
import { configFor } from "../../src/config/resolve.ts";
import { Metrics } from "../../src/observe/metrics.ts";
import { Lead, Place } from "../cluster/stream/nodes.ts";

const SECRET = "correct horse battery";
let dir: string;
let node: Node;
let admin: AdminServer;
let place: Place;
let lead: Lead;
let local: number;
let guarded: number;

beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-strangers-"));
  const config = configFor(path.join(dir, "app.db"), `file://${dir}/store`, {}) as Config;
  node = new Node({ config, log: pino({ enabled: false }), metrics: new Metrics(), restoreMissing: false });
  place = new Place();
  lead = await Lead.open(place, [], { secret: SECRET });
  admin = new AdminServer({ node, metrics: new Metrics(), secret: SECRET, onUpgrade: lead.server.handleUpgrade });
  local = await admin.listen({ host: "127.0.0.1", port: 0 });
  guarded = await admin.listen({ host: "0.0.0.0", port: 0 });
});

afterAll(async () => {
  await admin.close();
  await place.remove();
  rmSync(dir, { recursive: true });
});

async function status(port: number, headers: Record<string, string>, method = "GET"): Promise<number> {
  const asked = request({ port, host: "127.0.0.1", path: "/v1/status", method, headers, agent: false });
  asked.end(method === "POST" ? "{}" : undefined);
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  response.resume();
  return response.statusCode!;
}

describe("a web page in a browser on this machine", () => {
  const bearer = { authorization: `Bearer ${SECRET}` };

  test.each([
    ["whose name has come to mean 127.0.0.1", { host: "evil.example" }],
    ["the same with a port", { host: "evil.example:20202" }],
    ["that sends a form", { origin: "https://evil.example" }],
    ["of no origin", { origin: "null" }],
    ["that loads it as an image", { "sec-fetch-site": "cross-site" }],
    ["of another program of this machine", { "sec-fetch-site": "same-site" }],
  ] as [string, Record<string, string>][])("%s is refused", async (_, headers) => {
    expect(await status(local, headers)).toBe(403);
    expect(await status(local, headers, "POST")).toBe(403);
    expect(await status(local, { ...headers, ...bearer })).toBe(200);
  });

  test.each(["127.0.0.1:1", "localhost", "[::1]:1", "db1:20202", "one.localhost"])(
    "programs that say %s are not",
    async (host) => expect(await status(local, { host })).toBe(200),
  );

  test("can't join the stream of a cluster without a secret", async () => {
    const open = await Lead.open(place, [], {});
    const outcome = async (origin: string | undefined): Promise<string> => {
      const socket = new WebSocket(
        `${open.url.replace("http", "ws")}/v1/stream`,
        origin === undefined ? {} : { origin },
      );
      const answer = await once(socket, "open").then(
        () => "open",
        (error: Error) => error.message,
      );
      socket.on("error", () => undefined).terminate();
      return answer;
    };
    expect(await outcome("https://evil.example")).toContain("401");
    expect(await outcome(undefined)).toBe("open");
  });
});

describe("who has no secret", () => {
  test("doesn't keep those out who have, with however many connections", async () => {
    const sockets: Socket[] = [];
    let ended = 0;
    for (let i = 0; i < 300; i++) {
      const socket = connect(guarded, "127.0.0.1").on("error", () => undefined);
      socket.on("close", () => ended++);
      sockets.push(socket);
      await once(socket, "connect");
      // Some have begun a request, some don't say a word.
      if (i % 2 === 0) socket.write("GET /v1/status HTTP/1.1\r\nHost: x\r\n");
    }
    expect(await status(guarded, { authorization: `Bearer ${SECRET}` })).toBe(200);
    await expect.poll(() => ended, { timeout: 20_000 }).toBeGreaterThanOrEqual(300 - 64);
    for (const socket of sockets) socket.destroy();
  });

  test("holds no connection by asking for the stream and not hanging up", async () => {
    const socket = connect({ port: guarded, host: "127.0.0.1", allowHalfOpen: true });
    socket.write("GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let text = "";
    let reset = false;
    socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
    socket.on("error", () => (reset = true));
    await expect.poll(() => text, { timeout: 10_000 }).toContain("401 Unauthorized");
    // The other side is gone only when what is sent to it is answered with a reset.
    const isGone = (): boolean => reset || (socket.write("x"), false);
    await expect.poll(isGone, { timeout: 20_000, interval: 200 }).toBe(true);
    socket.destroy();
  });

  test("isn't heard to the end: the connection closes with the refusal", async () => {
    const socket = connect(guarded, "127.0.0.1").on("error", () => undefined);
    socket.write("POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{");
    let text = "";
    socket.on("data", (chunk: Buffer) => (text += chunk.toString()));
    await once(socket, "close");
    expect(text).toMatch(/^HTTP\/1.1 401 /);
    expect(text.toLowerCase()).toContain("connection: close");
  });
});

import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import Sqlite from "better-sqlite3";
import { pino } from "pino";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { liveState } from "../../src/admin/live.ts";
import { AdminServer } from "../../src/admin/server.ts";
import { Node } from "../../src/cluster/node.ts";
import { noteVerified } from "../../src/cluster/verified.ts";
import type { Config } from "../../src/config/config.ts";
import { configFor } from "../../src/config/resolve.ts";
import { DatabaseSum } from "../../src/ltx/database-sum.ts";
import { Metrics } from "../../src/observe/metrics.ts";

const SECRET = "correct horse battery";
let dir: string;
let db: string;
let node: Node;
let metrics: Metrics;
let admin: AdminServer;
let loopback: string;
let guarded: string;
let metricsOnly: string;

beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-admin-"));
  mkdirSync(path.join(dir, "store"));
  db = path.join(dir, "app.db");
  write("create table t(x)");
  const config = configFor(db, `file://${dir}/store`, {}) as Config;
  metrics = new Metrics();
  node = new Node({ config, log: pino({ enabled: false }), metrics, restoreMissing: false });
  admin = new AdminServer({ node, metrics, secret: SECRET });
  await node.start();
  loopback = `http://127.0.0.1:${await admin.listen({ host: "127.0.0.1", port: 0 })}`;
  // Bound to everything, and reached through the loopback all the same.
  guarded = `http://127.0.0.1:${await admin.listen({ host: "", port: 0 })}`;
  metricsOnly = `http://127.0.0.1:${await admin.listenForMetrics({ host: "", port: 0 })}`;
});

afterAll(async () => {
  await admin.close();
  await node.stop();
  rmSync(dir, { recursive: true });
});

function write(sql: string): void {
  const connection = new Sqlite(db, { timeout: 5000 });
  connection.pragma("journal_mode = wal");
  connection.exec(sql);
  connection.close();
}

async function sync(body: unknown, base = loopback): Promise<{ status: number; body: Record<string, unknown> }> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const response = await fetch(`${base}/v1/sync`, { method: "POST", body: text });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

describe("export", () => {
  const of = (name: string, base = loopback): string => `${base}/v1/databases/${encodeURIComponent(name)}/export`;

  test("gives out the bytes of the database at the position that it says, by its name or its path", async () => {
    write("insert into t values(zeroblob(3000000))");
    await sync({ db });
    for (const name of ["app.db", db]) {
      const response = await fetch(of(name));
      expect(response.status).toBe(200);
      expect(response.headers.get("sluice-position")).toBe(node.status.databases[0]!.position);
      const bytes = Buffer.from(await response.arrayBuffer());
      expect(bytes.length).toBe(Number(response.headers.get("content-length")));
      const copy = path.join(dir, "copy.db");
      writeFileSync(copy, bytes);
      const connection = new Sqlite(copy);
      expect(connection.pragma("integrity_check", { simple: true })).toBe("ok");
      expect(connection.prepare("select max(length(x)) from t").pluck().get()).toBe(3_000_000);
      connection.close();
      const sum = new DatabaseSum(4096);
      sum.add(bytes);
      expect(sum.value.toString(16).padStart(16, "0")).toBe(response.headers.get("sluice-checksum"));
    }
  });

  test("needs the secret, and a database that is there", async () => {
    expect((await fetch(of("app.db", guarded))).status).toBe(401);
    const allowed = await fetch(of("app.db", guarded), { headers: { authorization: `Bearer ${SECRET}` } });
    expect(allowed.status).toBe(200);
    await allowed.arrayBuffer();
    const unknown = await fetch(of("other.db"));
    expect(unknown.status).toBe(404);
    expect(await unknown.json()).toMatchObject({ code: "SLU-1003" });
    expect((await fetch(of("app.db"), { method: "POST" })).status).toBe(404);
    expect((await fetch(`${loopback}/v1/databases/%ff/export`)).status).toBe(404);
    expect((await fetch(of("app.db", metricsOnly))).status).toBe(404);
  });

  test("a client that leaves holds nothing back", async () => {
    const aborted = new AbortController();
    const response = await fetch(of("app.db"), { signal: aborted.signal });
    await response.body!.getReader().read();
    aborted.abort();
    const database = node.databases[0]!.database!;
    write("insert into t values(zeroblob(8000000))");
    // A picture that is still held would keep the frames from the database file.
    await expect.poll(() => database.unbackfilledFrames, { timeout: 10_000 }).toBe(0);
  });
});

describe("who may ask what", () => {
  const bearer = (secret: string): RequestInit => ({ headers: { authorization: `Bearer ${secret}` } });

  test("the loopback needs no secret", async () => {
    expect((await fetch(`${loopback}/v1/status`)).status).toBe(200);
  });

  test.each([undefined, "", "wrong", `${SECRET}x`, SECRET.slice(0, -1)])("elsewhere %j is refused", async (secret) => {
    for (const place of ["/v1/status", "/v1/events", "/metrics", "/nothing"]) {
      const response = await fetch(guarded + place, secret === undefined ? {} : bearer(secret));
      expect(response.status).toBe(401);
      expect(await response.text()).not.toContain(db);
    }
    expect((await sync({ db }, guarded)).status).toBe(401);
  });

  test("elsewhere the secret opens everything", async () => {
    expect((await fetch(`${guarded}/v1/status`, bearer(SECRET))).status).toBe(200);
  });

  test("health is for everybody; names only for those who may know them", async () => {
    expect(await (await fetch(`${guarded}/healthz`)).json()).toEqual({ ok: true });
    expect(await (await fetch(`${guarded}/healthz`, bearer(SECRET))).json()).toEqual({ ok: true, failed: [] });
    expect(await (await fetch(`${loopback}/healthz`)).json()).toEqual({ ok: true, failed: [] });
  });

  test("the address for metrics has nothing else", async () => {
    expect((await fetch(`${metricsOnly}/metrics`)).status).toBe(200);
    expect((await fetch(`${metricsOnly}/healthz`)).status).toBe(200);
    expect((await fetch(`${metricsOnly}/v1/status`)).status).toBe(404);
    expect((await sync({ db }, metricsOnly)).status).toBe(404);
  });
});

describe("sync", () => {
  test.each(["local", "store"])("waits until it's durable: %s", async (wait) => {
    write("insert into t values(1)");
    const { status, body } = await sync({ db, wait, timeout: "20s" });
    expect(status).toBe(200);
    expect(body).toMatchObject({ db, wait, position: expect.stringMatching(/^[0-9a-f]{16}$/) });
    const [database] = node.status.databases;
    expect(BigInt(`0x${database?.position}`)).toBeGreaterThanOrEqual(BigInt(`0x${String(body["position"])}`));
  });

  test.each([
    ["no JSON", "{", 400, "SLU-1000"],
    ["no database", {}, 400, "SLU-1000"],
    ["an unknown place", { db: "x", wait: "moon" }, 400, "SLU-1000"],
    ["a wrong time", { db: "x", timeout: "soon" }, 400, "SLU-1000"],
    ["too long a time", { db: "x", timeout: "25h" }, 400, "SLU-1000"],
    ["a long body", { db: "x".repeat(100_000) }, 400, "SLU-1000"],
    ["another database", { db: "/none.db" }, 404, "SLU-1003"],
  ])("%s is refused", async (_what, body, status, code) => {
    expect(await sync(body)).toMatchObject({
      status,
      body: { code, error: expect.any(String), hint: expect.any(String) },
    });
  });

  test("that isn't over in time is a timeout with its code", async () => {
    write("insert into t values(2)");
    expect(await sync({ db, timeoutMs: 0 })).toMatchObject({ status: 504, body: { code: "SLU-1006" } });
  });
});

test("events tell of commits and uploads as they happen", async () => {
  const response = await fetch(`${loopback}/v1/events`);
  expect(response.headers.get("content-type")).toBe("text/event-stream");
  write("insert into t values(3)");
  await sync({ db });
  let text = "";
  for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (/event: upload\n/.test(text)) break;
  }
  expect(text).toMatch(/^event: commit\ndata: \{"type":"commit","db":"[^"]+","position":"[0-9a-f]{16}","commits":1,/m);
  expect(text).toMatch(
    /^event: seal\ndata: \{"type":"seal","db":"[^"]+","txid":\d+,"position":"[0-9a-f]{16}","atMs":/m,
  );
  await expect.poll(() => node.listenerCount("event")).toBe(0);
});

test("metrics count what happens, and when the last drill was", async () => {
  const read = async (name: string): Promise<number> => {
    const text = await (await fetch(`${loopback}/metrics`)).text();
    return Number(new RegExp(`^${name}\\{[^}]*\\} (.*)$`, "m").exec(text)?.[1]);
  };
  const before = await read("sluice_commits_total");
  write("insert into t values(4)");
  await sync({ db });
  expect(await read("sluice_commits_total")).toBe(before + 1);
  expect(await read("sluice_store_lag_seconds")).toBe(0);
  expect(await read("sluice_last_verified_restore_age_seconds")).toBeNaN();
  noteVerified(db, { txid: 1, position: "" });
  expect(await read("sluice_last_verified_restore_age_seconds")).toBeLessThan(60);
});

test("the socket is for its owner alone, and one that a slow client leaves is closed with the rest", async () => {
  const server = new AdminServer({ node, metrics, secret: undefined });
  const socket = path.join(dir, "s.sock");
  await server.listenOnSocket(socket);
  expect(statSync(socket).mode & 0o777).toBe(0o600);
  const call = request({ socketPath: socket, path: "/v1/events" });
  call.end();
  await once(call, "response");
  call.on("error", () => {});
  await server.close();
  await expect.poll(() => node.listenerCount("event")).toBe(0);
});

test("an address that is taken is SLU-1005, with the address", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  const address = other.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const server = new AdminServer({ node, metrics, secret: undefined });
  await expect(server.listen({ host: "127.0.0.1", port })).rejects.toMatchObject({
    code: "SLU-1005",
    message: expect.stringContaining(`127.0.0.1:${port}`),
  });
  await server.close();
  other.close();
});

test("where no process is noted the live state is the sealed one", async () => {
  await sync({ db, wait: "local" });
  const state = await liveState(db);
  expect(state?.position).toBe(node.databases[0]?.database?.position);
  expect(state?.checksum).toEqual(expect.any(BigInt));
  expect(await liveState(path.join(dir, "none.db"))).toBeUndefined();
});

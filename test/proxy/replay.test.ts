import { createHash, randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readlinkSync } from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { KeepBudget, KeptBody } from "../../src/proxy/kept-body.ts";
import { asksForReplay } from "../../src/proxy/replay.ts";
import { type App, ask, Nodes } from "./nodes.ts";

let started: Nodes | undefined;
const start = async (...args: Parameters<typeof Nodes.start>): Promise<Nodes> => (started = await Nodes.start(...args));
afterEach(async () => {
  await started?.[Symbol.asyncDispose]();
  started = undefined;
});

const HEADERS: Readonly<Record<string, [string, string]>> = {
  own: ["Sluice-Replay", "primary"],
  fly: ["fly-replay", "instance=a"],
};

/** On a replica it asks for the primary, once it has read the body; on the primary it hashes it, as a commit. */
const late = (header: [string, string] = HEADERS["own"]!, readsBody = true): App => {
  return (request, response, node) => {
    if (node.view.cluster.primary === node.view) return hashing(request, response, node);
    const answer = (): void => void response.writeHead(409, header).end("ask the primary");
    if (!readsBody) return answer();
    request.on("end", answer).resume();
  };
};

const hashing: App = (request, response, node) => {
  const hash = createHash("sha256");
  request.on("data", (chunk: Buffer) => hash.update(chunk));
  request.on("end", () => {
    node.view.cluster.commit(node.view, "app.db");
    response.end(JSON.stringify({ node: node.view.name, method: request.method, body: hash.digest("hex") }));
  });
};

const sha = (body: Buffer): string => createHash("sha256").update(body).digest("hex");

/** Open files of this process in a directory, those without a name included. */
const openFilesIn = (dir: string): number =>
  readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith(`${dir}/`);
    } catch {
      return false;
    }
  }).length;

describe("an application on a replica that must write", () => {
  test.each(Object.keys(HEADERS))("has a GET replayed on the primary, as a write (%s)", async (name) => {
    const nodes = await start(2, { app: late(HEADERS[name]) });
    const reply = await nodes.ask(nodes.b, "GET", "/x?y=1", { headers: { cookie: "session=1" } });
    expect(reply.json).toMatchObject({ node: "a", method: "GET" });
    expect(reply.headers["sluice-durable"]).toBe("local");
    expect(reply.headers["sluice-position"]).toBeDefined();
    expect(reply.headers).not.toHaveProperty("sluice-replay");
    expect([nodes.a.seen, nodes.b.seen]).toEqual([["GET /x?y=1"], ["GET /x?y=1"]]);
  });

  test("has the durability of a write there", async () => {
    const nodes = await start(2, { app: late(), proxy: "durability: store\ndurability-timeout: 50ms" });
    nodes.cluster.settle();
    expect((await nodes.ask(nodes.b, "GET", "/")).status).toBe(504);
  });

  test.each([
    ["in memory", 100_000, "", true],
    ["on disk", 3_000_000, "", true],
    ["on disk alone", 300_000, "replay-memory: 0", true],
    ["without having read it", 3_000_000, "", false],
  ])("has the whole body replayed that was kept %s, and nothing stays of it", async (_, bytes, proxy, reads) => {
    const nodes = await start(2, {
      app: late(HEADERS["own"], reads),
      proxy: `${proxy}\nroutes: [{ path: "/*", mode: pass }]`,
    });
    const body = randomBytes(bytes);
    for (const headers of [{}, { "transfer-encoding": "chunked" }] as const) {
      const reply = await ask(nodes.b.port, "POST", "/", {
        body,
        headers,
      });
      expect(reply.json).toMatchObject({ node: "a", method: "POST", body: sha(body) });
    }
    await expect.poll(() => openFilesIn(nodes.dir)).toBe(0);
    expect(readdirSync(nodes.dir)).toEqual([]);
  });

  test("is told 503 when the body was longer than what is kept; it did nothing", async () => {
    const nodes = await start(2, {
      app: late(),
      proxy: 'replay-memory: 1KB\nreplay-disk: 10KB\nroutes: [{ path: "/*", mode: pass }]',
    });
    const reply = await ask(nodes.b.port, "POST", "/", { body: randomBytes(20_000) });
    expect([reply.status, reply.json.code]).toEqual([503, "SLU-7009"]);
    expect(reply.headers).not.toHaveProperty("sluice-outcome");
    expect(nodes.a.seen).toEqual([]);
  });

  test("has its body passed on though the disk refuses to keep it", async () => {
    const nodes = await start(1, {
      proxy: 'replay-memory: 1KB\nreplay-dir: /nonexistent/directory\nroutes: [{ path: "/*", mode: pass }]',
      app: hashing,
    });
    const body = randomBytes(300_000);
    expect((await ask(nodes.a.port, "POST", "/", { body })).json.body).toBe(sha(body));
  });

  test("with Fly.io's header in mode fly-replay has it passed on to Fly.io's proxy; its own becomes that", async () => {
    for (const name of ["fly", "own"]) {
      const nodes = await start(2, { app: late(HEADERS[name]), proxy: "forward: fly-replay" });
      const reply = await nodes.ask(nodes.b, "GET", "/");
      expect([reply.status, reply.headers["fly-replay"]]).toEqual([409, "instance=a"]);
      expect(nodes.a.seen).toEqual([]);
      await nodes[Symbol.asyncDispose]();
    }
    started = undefined;
  });
});

describe("an application on the primary", () => {
  test("that still takes itself for a replica is asked again", async () => {
    let times = 0;
    const app: App = (request, response, node) => {
      if (times++ < 2) request.on("end", () => response.writeHead(409, { "sluice-replay": "primary" }).end()).resume();
      else hashing(request, response, node);
    };
    const nodes = await start(1, { app });
    const body = randomBytes(50_000);
    expect((await nodes.ask(nodes.a, "POST", "/", { body })).json.body).toBe(sha(body));
    expect(nodes.a.seen).toHaveLength(3);
  });

  test("that never does otherwise gets 503", async () => {
    const nodes = await start(2, {
      app: (_, response) => response.writeHead(409, { "sluice-replay": "primary" }).end(),
    });
    const reply = await nodes.ask(nodes.b, "POST", "/");
    expect([reply.status, reply.json.code]).toEqual([503, "SLU-7010"]);
    expect(nodes.a.seen.length).toBeLessThan(10);
  });

  test("that lost the primary with a write under way has it replayed on the next one", async () => {
    const nodes = await start(2, {
      app: (request, response, node) => {
        if (node.view.name === "a") nodes.cluster.promote(nodes.b.view);
        late()(request, response, node);
      },
    });
    const body = randomBytes(500_000);
    const reply = await nodes.ask(nodes.a, "POST", "/", { body });
    expect(reply.json).toMatchObject({ node: "b", body: sha(body) });
  });
});

describe("kept bodies", () => {
  const limits = { memoryBytes: 100, diskBytes: 1000, dir: "/tmp" };

  test("share one budget of memory; what is past it goes to disk", async () => {
    const budget = new KeepBudget(150);
    const [one, two] = [1, 2].map(
      () => new KeptBody(limits, { memory: budget, disk: new KeepBudget(1e9) }, () => undefined),
    );
    expect(one!.add(Buffer.alloc(90, "a"))).toBeUndefined();
    await two!.add(Buffer.alloc(90, "b"));
    expect(budget.usedBytes).toBe(90);
    let text = "";
    for await (const chunk of two!.read()) text += chunk.toString();
    expect(text).toBe("b".repeat(90));
    one!.release();
    two!.release();
    expect(budget.usedBytes).toBe(0);
  });

  test("share one budget of the disk, whoever sends them; past it they are not kept", async () => {
    const disk = new KeepBudget(800);
    const budgets = { memory: new KeepBudget(0), disk };
    const [one, two] = [1, 2].map(() => new KeptBody({ ...limits, memoryBytes: 0 }, budgets, () => undefined));
    await one!.add(Buffer.alloc(500));
    await two!.add(Buffer.alloc(200));
    expect(disk.usedBytes).toBe(700);
    await two!.add(Buffer.alloc(200));
    expect([one!.isComplete, two!.isComplete, disk.usedBytes]).toEqual([true, false, 500]);
    one!.release();
    expect(disk.usedBytes).toBe(0);
  });

  test("have no name on disk, not even while they are kept", async () => {
    const nodes = await start(1);
    const dir = path.join(nodes.dir, "kept");
    mkdirSync(dir);
    const kept = new KeptBody(
      { ...limits, memoryBytes: 0, dir },
      { memory: new KeepBudget(0), disk: new KeepBudget(1e9) },
      () => undefined,
    );
    await kept.add(Buffer.alloc(500));
    expect(existsSync(dir) && readdirSync(dir)).toEqual([]);
    expect(openFilesIn(dir)).toBe(1);
    kept.release();
    await expect.poll(() => openFilesIn(dir)).toBe(0);
  });

  test("that are released while the disk still writes leave no open file", async () => {
    const nodes = await start(1);
    const kept = new KeptBody(
      { ...limits, memoryBytes: 0, dir: nodes.dir },
      { memory: new KeepBudget(0), disk: new KeepBudget(1e9) },
      () => undefined,
    );
    const adding = kept.add(Buffer.alloc(500));
    kept.release();
    await adding;
    await expect.poll(() => openFilesIn(nodes.dir)).toBe(0);
  });
});

test.each([
  [["Sluice-Replay", "primary"], false, true],
  [["sluice-replay", " Primary "], true, true],
  [["Sluice-Replay", "elsewhere"], false, false],
  [["fly-replay", "instance=abc"], false, true],
  [["Fly-Replay", "region=ams;state=x"], false, true],
  [["fly-replay", "elsewhere=true"], false, true],
  [["fly-replay", "app=other;instance=abc"], false, false],
  [["fly-replay", "instance=abc"], true, false],
  [["x", "primary"], false, false],
])("%j asks for a replay (by Fly.io: %s): %s", (raw, byFly, asks) => {
  expect(asksForReplay(raw, byFly)).toBe(asks);
});

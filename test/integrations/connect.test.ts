import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import Database from "better-sqlite3";
import express from "express";
import fastify from "fastify";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  fastifySluice,
  isReplica,
  NotPrimary,
  positionOf,
  primaryOf,
  replayErrors,
  requirePrimary,
  sluice,
  withSluice,
  type ConnectOptions,
} from "../../src/connect/index.ts";

const express4 = createRequire(import.meta.url)("express4") as typeof express;
/** Longer than a test may take: a write that waits for the lock, instead of being refused, can't be overlooked. */
const BUSY_TIMEOUT_MS = 100_000;

let dir: string;
let file: string;
let db: Database.Database;
let holder: Database.Database;
let close: () => Promise<void>;

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-connect-"));
  file = path.join(dir, "app.db");
  db = new Database(file, { timeout: BUSY_TIMEOUT_MS });
  db.pragma("journal_mode = wal");
  db.exec("create table note(body text)");
  holder = new Database(file);
  close = async () => {};
});

afterEach(async () => {
  await close();
  holder.close();
  db.close();
  rmSync(dir, { recursive: true });
});

/** Made by real files: the `.primary` file, and the write lock in another connection's hands. */
function becomeReplica(primary = "node-b"): void {
  holder.exec("begin immediate");
  writeFileSync(path.join(dir, ".primary"), `${primary}\n`);
}

function becomePrimary(): void {
  holder.exec("rollback");
  rmSync(path.join(dir, ".primary"));
}

/** What the four applications do, by path; the answer's text. */
const actions: Readonly<Record<string, (body: string) => string | Promise<string>>> = {
  "/read": () => `${db.prepare("select count(*) from note").pluck().get() as number}`,
  "/write": (body) => {
    db.prepare("insert into note values(?)").run(body);
    return "written";
  },
  "/later": async () => {
    await delay(5);
    db.exec("insert into note values('later')");
    return "written";
  },
  "/swallowed": async () => {
    await delay(1);
    try {
      requirePrimary(file);
    } catch {
      return "all is well";
    }
    return "written";
  },
  "/broken": () => {
    throw new Error("something else");
  },
  "/pay": () => "paid",
  "/demoted": () => {
    db.exec("insert into note values('before')");
    becomeReplica();
    requirePrimary(file);
    return "written";
  },
};

function action(request: IncomingMessage): (body: string) => string | Promise<string> {
  return actions[request.url ?? ""] ?? (() => "nothing here");
}

type Start = (options: ConnectOptions) => Promise<Server>;

const servers: Readonly<Record<string, Start>> = {
  "node:http": async (options) => {
    const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
      const body = await action(request)(await text(request));
      response.writeHead(200, { "set-cookie": "a=b" });
      response.write(body);
      response.end();
    };
    const handler = withSluice(options, (request: IncomingMessage, response: ServerResponse) =>
      answer(request, response),
    );
    return createServer((request, response) => {
      void Promise.resolve(handler(request, response)).catch((error: Error) => {
        response.statusCode = 500;
        response.end(error.message);
      });
    });
  },
  "Express 4": async (options) => expressServer(express4, options),
  "Express 5": async (options) => expressServer(express, options),
  "Fastify 5": async (options) => {
    const app = fastify();
    await app.register(fastifySluice, options);
    app.addContentTypeParser("*", { parseAs: "string" }, (_request, body, done) => done(null, body));
    app.setErrorHandler((error: Error, _request, reply) => reply.code(500).send(error.message));
    app.all("*", async (request, reply) => {
      const body = await action(request.raw)(typeof request.body === "string" ? request.body : "");
      return reply.header("set-cookie", "a=b").send(body);
    });
    await app.ready();
    return app.server;
  },
};

function expressServer(framework: typeof express, options: ConnectOptions): Server {
  const app = framework();
  app.use(sluice(options));
  app.use(framework.text({ type: "*/*" }));
  app.use((request, response, next) => {
    void (async () => action(request)(typeof request.body === "string" ? request.body : ""))().then(
      (answer) => response.cookie("a", "b").send(answer),
      next,
    );
  });
  app.use(replayErrors());
  // Express knows it by its four parameters.
  app.use((error: Error, _request: express.Request, response: express.Response, _next: express.NextFunction) => {
    response.status(500).send(error.message);
  });
  return createServer(app);
}

async function start(server: Server): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  };
  const address = server.address();
  return `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
}

describe.each(Object.entries(servers))("%s", (_name, make) => {
  async function ask(url: string, where: string, body?: string): Promise<{ status: number; replay: string | null }> {
    const response = await fetch(url + where, body === undefined ? {} : { method: "POST", body });
    const answer = await response.text();
    const replay = response.headers.get("sluice-replay") ?? response.headers.get("fly-replay");
    // Nothing of the application's own answer is left beside a replay.
    if (replay !== null) {
      expect(answer).toContain("must run on the primary");
      expect(response.headers.getSetCookie()).toEqual([]);
    }
    return { status: response.status, replay };
  }
  const replayed = { status: 409, replay: "primary" };
  const local = { status: 200, replay: null };

  test("a replica reads, and has its writes replayed", async () => {
    const url = await start(
      await make({ databases: file, connections: { [file]: db }, onPrimary: ({ url }) => url === "/pay" }),
    );
    const paths = ["/read", "/write", "/later", "/swallowed", "/pay"];
    for (const where of paths) expect(await ask(url, where), where).toEqual(local);
    becomeReplica();
    expect(await ask(url, "/read")).toEqual(local);
    for (const where of paths.slice(1)) expect(await ask(url, where), where).toEqual(replayed);
    expect(await ask(url, "/write", "posted")).toEqual(replayed);
    expect(await ask(url, "/read", "posted")).toEqual(local);
    expect(await ask(url, "/broken")).toEqual({ status: 500, replay: null });
    becomePrimary();
    expect(await ask(url, "/write", "posted")).toEqual(local);
    expect(db.prepare("select body from note").pluck().all()).toEqual(["", "later", "posted"]);
  });

  test("Fly.io's proxy is told which machine, and is not asked for reads", async () => {
    const url = await start(await make({ databases: [file], proxy: "fly", connections: { [file]: [db] } }));
    becomeReplica("148e");
    expect(await ask(url, "/write")).toEqual({ status: 409, replay: "instance=148e" });
    expect(await ask(url, "/read", "not tried")).toEqual({ status: 409, replay: "instance=148e" });
    expect(await ask(url, "/read")).toEqual(local);
    becomePrimary();
    becomeReplica("");
    const response = await fetch(`${url}/write`);
    expect([response.status, response.headers.get("retry-after")]).toEqual([503, "1"]);
  });

  test("what was committed before the node ceased to be the primary isn't done twice", async () => {
    const url = await start(await make({ databases: file, connections: { [file]: db } }));
    expect(await ask(url, "/demoted")).toEqual({ status: 500, replay: null });
    expect(db.prepare("select body from note").pluck().all()).toEqual(["before"]);
  });
});

test("an answer that has begun is left as it is", async () => {
  const handler = withSluice({ databases: file }, (_request, response) => {
    response.writeHead(200);
    response.write("first");
    requirePrimary(file);
  });
  const failures: unknown[] = [];
  const url = await start(
    createServer((request, response) => {
      try {
        void handler(request, response);
      } catch (error) {
        failures.push(error);
        response.destroy();
      }
    }),
  );
  becomeReplica();
  await expect(fetch(url).then((response) => response.text())).rejects.toThrow();
  expect(failures).toEqual([expect.any(NotPrimary)]);
});

describe("with node:sqlite", () => {
  let other: DatabaseSync;
  let held: DatabaseSync;

  beforeEach(() => {
    // Another SQLite in this process: locks of one process don't keep its own other library out.
    db.close();
    holder.close();
    other = new DatabaseSync(file, { timeout: BUSY_TIMEOUT_MS });
    held = new DatabaseSync(file);
  });

  afterEach(() => {
    held.close();
    other.close();
  });

  function demote(): void {
    held.exec("begin immediate");
    writeFileSync(path.join(dir, ".primary"), "node-b\n");
  }

  test("its connections follow the role, too", async () => {
    const insert = other.prepare("insert into note values('x')");
    const url = await start(
      createServer(
        withSluice({ databases: file, connections: { [file]: other } }, (_request, response) => {
          insert.run();
          response.end();
        }),
      ),
    );
    demote();
    expect((await fetch(url)).status).toBe(409);
    held.exec("rollback");
    rmSync(path.join(dir, ".primary"));
    expect((await fetch(url)).status).toBe(200);
  });

  test("a library that waited for the lock in vain is replayed by what SQLite says", async () => {
    other.exec("pragma busy_timeout = 0");
    const url = await start(
      createServer(
        withSluice({ databases: file }, (_request, response) => {
          try {
            other.exec("insert into note values('x')");
            response.end();
          } catch (cause) {
            throw new Error("the query failed", { cause });
          }
        }),
      ),
    );
    demote();
    expect((await fetch(url)).headers.get("sluice-replay")).toBe("primary");
  });
});

test("what the files say", () => {
  expect(isReplica(file)).toBe(false);
  expect(primaryOf(file)).toBeUndefined();
  expect(positionOf(file)).toBeUndefined();
  expect(() => requirePrimary(file)).not.toThrow();
  becomeReplica();
  writeFileSync(`${file}-pos`, "0000000300000007/00000000000000ff\n");
  expect(isReplica(file)).toBe(true);
  expect(primaryOf(file)).toBe("node-b");
  expect(positionOf(file)).toEqual({ position: 3n * 2n ** 32n + 7n, checksum: 255n });
  expect(() => requirePrimary(file)).toThrow(NotPrimary);
  process.env["SLUICE_ON_PRIMARY"] = "1";
  try {
    expect(isReplica(file)).toBe(false);
  } finally {
    delete process.env["SLUICE_ON_PRIMARY"];
  }
});

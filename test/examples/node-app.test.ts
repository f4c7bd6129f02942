import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import Database from "better-sqlite3";
import { afterAll, beforeAll, expect, test } from "vitest";
import { freePort } from "../e2e/site.ts";
import { installInto } from "../integrations/installed.ts";

const run = promisify(execFile);
const example = path.resolve(import.meta.dirname, "../../examples/node-app");
const LIMIT_MS = 30_000;
let project: string;
let app: ChildProcess | undefined;
let url: string;

// With the built package, and the example's own folder as it stands.
beforeAll(async () => {
  project = mkdtempSync(path.join(os.tmpdir(), "sluice-node-app-"));
  cpSync(example, project, { recursive: true, filter: (source) => !source.includes("node_modules") });
  await installInto(project, "express", "better-sqlite3");
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const env = { PATH: process.env["PATH"], DATABASE_PATH: path.join(project, "app.db"), PORT: String(port) };
  await run(process.execPath, ["migrate.js"], { cwd: project, env });
  app = spawn(process.execPath, ["server.js"], { cwd: project, env, stdio: "inherit" });
  for (const end = Date.now() + LIMIT_MS; ; await delay(50)) {
    if (app.exitCode !== null || Date.now() > end) throw new Error("the application is not up");
    if (await fetch(`${url}/notes`).catch(() => undefined)) return;
  }
});

afterAll(async () => {
  if (app?.exitCode === null) {
    app.kill("SIGTERM");
    await once(app, "exit");
  }
  rmSync(project, { recursive: true });
});

test("the guest book writes on a primary, and asks for a replay on a replica", async () => {
  const post = (body: string): Promise<Response> => fetch(`${url}/notes`, { method: "POST", body });
  expect((await post("hello")).status).toBe(201);
  expect(await (await fetch(url)).json()).toEqual({ visits: 1 });

  const lock = new Database(path.join(project, "app.db"));
  lock.exec("BEGIN IMMEDIATE");
  writeFileSync(path.join(project, ".primary"), "a\n");
  for (const answer of [await post("refused"), await fetch(url)])
    expect([answer.status, answer.headers.get("sluice-replay")]).toEqual([409, "primary"]);
  expect(await (await fetch(`${url}/notes`)).json()).toEqual(["hello"]);

  lock.close();
  rmSync(path.join(project, ".primary"));
  expect(await (await fetch(url)).json()).toEqual({ visits: 2 });
});

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { freePort, root, sluice, users } from "./site.ts";

const LIMIT_MS = 60_000;
const application = path.join(root, "src/cli/demo/application.ts");

let dir: string;
let child: ChildProcess | undefined;

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-new-"));
});

afterEach(async () => {
  await lose();
  rmSync(dir, { recursive: true });
});

/** Starts a node on an empty disk, or on what is there; its front door. */
async function start(name: string, dbs: string): Promise<string> {
  const [door, app] = [await freePort(), await freePort()];
  const data = path.join(dir, "data");
  mkdirSync(data, { recursive: true });
  const lines = [
    `dbs: [{ ${dbs}, store: "file://${path.join(dir, "store")}" }]`,
    `proxy: { listen: "127.0.0.1:${door}", app: "http://127.0.0.1:${app}" }`,
    `exec: [{ cmd: "${process.execPath} ${application} ${path.join(data, name)} ${app}" }]`,
  ];
  const config = path.join(dir, "sluice.yml");
  writeFileSync(config, `${lines.join("\n")}\n`);
  // vitest's own options for Node.js have no business here.
  const { NODE_OPTIONS: _, ...env } = process.env;
  child = spawn(sluice, ["run", "--config", config], { env: { ...env, LOG_LEVEL: "error" }, stdio: "ignore" });
  const url = `http://127.0.0.1:${door}/entries`;
  for (const end = Date.now() + LIMIT_MS; ; await delay(20)) {
    const answer = await fetch(`${url}/none`).catch(() => undefined);
    if (answer?.status === 404) return url;
    if (Date.now() > end) throw new Error("the node is not up");
  }
}

/** The machine is lost, with its disk. */
async function lose(): Promise<void> {
  const data = path.join(dir, "data");
  if (child !== undefined && child.exitCode === null && child.signalCode === null) {
    child.kill("SIGKILL");
    await once(child, "exit");
  }
  child = undefined;
  await expect.poll(() => users(data), { timeout: LIMIT_MS }).toEqual([]);
  rmSync(data, { recursive: true, force: true });
}

test.each([
  ["a file that wasn't there", (data: string) => `path: ${data}/app.db`],
  ["a directory", (data: string) => `dir: ${data}, pattern: "*.db"`],
])(
  "what a new database in %s gets first is in the store when its answer says so",
  { timeout: 180_000 },
  async (_, dbs) => {
    const config = dbs(path.join(dir, "data"));
    const url = await start("app.db", config);
    const headers = { "sluice-durability": "store" };
    const first = await fetch(url, { method: "POST", headers, body: JSON.stringify({ key: "first", value: "one" }) });
    expect([first.status, first.headers.get("sluice-durable")]).toEqual([201, "store"]);
    // Its client can read it on every node.
    expect(first.headers.get("sluice-position")).toMatch(/app\.db:[0-9a-f]{16}$/);
    await lose();
    const found = await fetch(`${await start("app.db", config)}/first`);
    expect([found.status, await found.json()]).toEqual([200, { key: "first", value: "one" }]);
  },
);

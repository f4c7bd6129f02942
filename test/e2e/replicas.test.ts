import { spawn } from "node:child_process";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type RunningApp, track } from "../database/apps.ts";
import { lacks, sqliteEnvironment, type SqliteVersion } from "../peers/peers.ts";
import { Nodes } from "./nodes.ts";
import { root } from "./site.ts";

/** Seconds of the long test; 600 for a proof. */
const SECONDS = Number(process.env["SLUICE_REPLICAS_SECONDS"] ?? 6);
/** A pause between commits leaves the machine to the readers. */
const PAUSE = Number(process.env["SLUICE_REPLICAS_PAUSE"] ?? 0.002);
const versions: readonly SqliteVersion[] = ["3.14.1", "3.31.1", "3.50.4", "3.54.1-debug"];

let nodes: Nodes;
const apps = new Set<RunningApp>();
beforeEach(() => {
  nodes = new Nodes();
});
afterEach(async () => {
  for (const app of apps) {
    app.kill();
    await app.ended;
  }
  apps.clear();
  await nodes[Symbol.asyncDispose]();
});

function transfers(
  what: "read" | "write",
  name: string,
  version: SqliteVersion,
  ...more: (string | number)[]
): RunningApp {
  const script = path.join(root, "test/apps/transfers.py");
  const env = { ...process.env, ...sqliteEnvironment(version) };
  const app = track(spawn("python3", [script, what, nodes.db(name), ...more.map(String)], { env }));
  apps.add(app);
  return app;
}

/** Starts the primary and its replicas, and waits until they follow. */
async function start(...replicas: readonly string[]): Promise<void> {
  await nodes.start("a");
  await nodes.until("a", "primary", ({ role }) => role === "primary");
  await transfers("write", "a", "3.54.1", "--commits", 20).ended;
  await Promise.all(replicas.map((name) => nodes.start(name)));
  await Promise.all(replicas.map((name) => nodes.reaches(name, "following")));
}

test.skipIf(lacks(...versions, "3.54.1"))(
  `readers of ${versions.length} SQLite builds on two replicas find committed states only, for ${SECONDS} s`,
  async () => {
    await start("b", "c");
    const reading = versions.flatMap((version, i) =>
      ["b", "c"].map((name) => ({
        what: `SQLite ${version} on ${name}`,
        app: transfers("read", name, version, "--seconds", SECONDS, "--seed", i, "--pause", PAUSE * 2),
      })),
    );
    const writing = ["3.39.1", "3.54.1"].map((version, i) =>
      transfers("write", "a", version as SqliteVersion, "--seconds", SECONDS, "--seed", i, "--pause", PAUSE),
    );
    for (const { what, app } of reading) {
      const { output } = await app.ended;
      expect(`${what}: ${output}`).toMatch(/: errors \{\}\nrounds [1-9]\d* bad 0\n$/);
      if (SECONDS > 60) console.log(what, output);
    }
    for (const { ended } of writing) expect((await ended).output).toMatch(/^commits [1-9]/);
    await nodes.inStep("a", "b", "c");
    for (const name of ["a", "b", "c"]) expect(await nodes.content(name)).toMatch(/ ok$/);
  },
  60_000 + 2_000 * SECONDS,
);

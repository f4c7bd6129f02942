/**
 * A guided tour of one protected node: an application writes, everything on its machine is lost twice, and everything
 * comes back from the store. Ends with a table of what was measured, and with status 1 if anything is missing.
 *
 * usage: npm run demo
 */
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const NOTES = 300;
const root = path.resolve(import.meta.dirname, "../..");
const sluice = path.join(root, "bin/sluice");
const scratch = mkdtempSync(path.join(os.tmpdir(), "sluice-tour-"));
const disk = path.join(scratch, "disk");
const database = path.join(disk, "app.db");
const store = `file://${path.join(scratch, "store")}`;
const measured: [string, string][] = [];
const port = await freePort();
const acknowledged: string[] = [];
let node: ChildProcess | undefined;

try {
  say(`An application starts under \`sluice run\`; its disk is ${disk}, its store ${store}.`);
  await start();
  for (let i = 0; i < NOTES; i++) await write(`note ${i}`);
  const saved = await timed(async () => sluiceCommand("sync", "--wait", "store", database));
  say(`${NOTES} notes written; \`sluice sync --wait store\` says that they are durable.`);
  measured.push(["sluice sync --wait store, as a command", `${saved.ms} ms`]);

  say("Now Sluice is killed with SIGKILL, and the disk is deleted.");
  await kill();
  rmSync(disk, { recursive: true });
  const back = await timed(start);
  await mustHave(acknowledged);
  say(`Started again on an empty disk: all ${NOTES} notes are there.`);
  measured.push(["empty disk → the application answers", `${back.ms} ms`]);

  await sluiceCommand("sync", "--wait", "store", database);
  const before = new Date();
  await pause(1100);
  await fetch(url(), { method: "DELETE" });
  await sluiceCommand("sync", "--wait", "store", database);
  say("Somebody deletes all notes. Another copy is restored as it was just before that.");
  const copy = path.join(scratch, "before.db");
  const restored = await timed(async () =>
    sluiceCommand("restore", "-o", copy, "--timestamp", before.toISOString(), store),
  );
  const { default: Database } = await import("better-sqlite3");
  const kept = new Database(copy, { readonly: true }).prepare("select count(*) from note").pluck().get();
  if (kept !== NOTES) throw new Error(`the copy of ${before.toISOString()} has ${String(kept)} notes, not ${NOTES}`);
  measured.push(["restore to a moment before the mistake", `${restored.ms} ms`]);

  say("The application is stopped in an orderly way, and every file of the log is checked by a restore drill.");
  await stop();
  await sluiceCommand("verify", store);
  measured.push(["acknowledged notes lost", "0"]);
  const width = Math.max(...measured.map(([what]) => what.length));
  process.stdout.write(`\n${measured.map(([what, value]) => `  ${what.padEnd(width)}  ${value}`).join("\n")}\n\n`);
} finally {
  if (node?.exitCode === null) await kill();
  rmSync(scratch, { recursive: true, force: true });
}

async function start(): Promise<void> {
  const app = [process.execPath, path.join(import.meta.dirname, "app.ts"), database, String(port)];
  node = spawn(sluice, ["run", "--db", database, "--store", store, "--", ...app], {
    stdio: ["ignore", "ignore", "inherit"],
    env: { ...process.env, LOG_LEVEL: "warn" },
  });
  for (let i = 0; i < 600; i++) {
    if (node.exitCode !== null) throw new Error(`sluice run ended with status ${node.exitCode}`);
    const answer = await fetch(url()).catch(() => undefined);
    if (answer?.ok) return;
    await pause(50);
  }
  throw new Error("the application did not answer within 30 s");
}

async function stop(): Promise<void> {
  if (!node) return;
  const exited = once(node, "exit");
  node.kill("SIGTERM");
  await exited;
}

async function kill(): Promise<void> {
  if (!node) return;
  const exited = once(node, "exit");
  node.kill("SIGKILL");
  await exited;
  // The guardian ends the application; its port is free when that is done.
  for (let i = 0; i < 200 && (await fetch(url()).catch(() => undefined)); i++) await pause(50);
}

async function write(note: string): Promise<void> {
  const answer = await fetch(url(), { method: "POST", body: note });
  if (answer.status !== 201) throw new Error(`a note was refused with ${answer.status}`);
  acknowledged.push(note);
}

async function mustHave(notes: readonly string[]): Promise<void> {
  const found = new Set((await (await fetch(url())).json()) as string[]);
  const missing = notes.filter((note) => !found.has(note));
  if (missing.length > 0) throw new Error(`${missing.length} acknowledged notes are missing: ${missing[0]} …`);
}

async function sluiceCommand(...args: string[]): Promise<void> {
  await promisify(execFile)(sluice, args, { env: { ...process.env, LOG_LEVEL: "warn" } });
}

async function timed(work: () => Promise<void>): Promise<{ ms: number }> {
  const start = performance.now();
  await work();
  return { ms: Math.round(performance.now() - start) };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  if (address === null || typeof address === "string") throw new Error("no port to be had");
  return address.port;
}

function url(): string {
  return `http://127.0.0.1:${port}/notes`;
}

function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

function say(line: string): void {
  process.stdout.write(`· ${line}\n`);
}

/**
 * Faults on a cluster of three real nodes, with clients that know what they were promised.
 *
 * usage: npm run faults -- [--minutes N] [--rounds N] [--seed N]    the first failing round ends it and keeps its files
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { check, inStep } from "./checks.ts";
import { Clients } from "./clients.ts";
import { FaultyNode } from "./nodes.ts";
import { type Scene, someFault } from "./steps.ts";

const { values } = parseArgs({
  options: { minutes: { type: "string" }, rounds: { type: "string" }, seed: { type: "string" } },
});
const TTL_MS = 2_000;
const STEPS = 6;
const CLIENTS = 6;
const seed = Number(values.seed ?? Date.now() % 1_000_000);
const untilMs = Date.now() + Number(values.minutes ?? 5) * 60_000;
const rounds = Number(values.rounds ?? Infinity);

/** Mulberry32: the same numbers for the same seed. */
function numbers(from: number): () => number {
  let state = from >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const tell = (line: string): void => console.log(`${new Date().toISOString()} ${line}`);
const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-faults-"));
const store = path.join(dir, "store");
mkdirSync(store);
tell(`seed ${seed}, ${dir}`);
const nodes = await Promise.all(["a", "b", "c"].map((name) => FaultyNode.make(name, dir, `${TTL_MS}ms`)));
const doors = nodes.map(({ door }) => door);
const totals = { rounds: 0, acknowledged: 0, inQuarantine: 0, lostWithDisk: 0, slowestHealMs: 0 };
const memory = { known: new Map<string, Set<string>>(), forgiven: new Set<string>() };
const promised: Clients["acknowledged"] = new Map();
const sent = new Set<string>();

async function up(): Promise<void> {
  for (const node of nodes) {
    node.signal("SIGCONT");
    node.link.set("open");
    if (node.isOver) {
      await node.over();
      node.start();
    }
  }
}

async function round(number: number): Promise<boolean> {
  // Each round can be had alone by its own number of the seed.
  const next = numbers(seed * 1_000 + number);
  tell(`round ${number}`);
  const scene: Scene = { nodes, store, ttlMs: TTL_MS, next, heal: [], wiped: new Set() };
  const clients = new Clients(doors, CLIENTS);
  for (const [key, value] of promised) clients.acknowledged.set(key, value);
  for (const key of sent) clients.sent.add(key);
  for (let i = 0; i < STEPS; i++) {
    await delay(next() * 1_500);
    await someFault(scene, tell);
  }
  await delay(500);
  for (const undo of scene.heal.toReversed()) await undo();
  await up();
  const startMs = performance.now();
  await delay(500);
  await clients.stop();
  await up();
  await inStep(nodes);
  const healMs = performance.now() - startMs;
  const verdict = await check(nodes, clients, {
    ...memory,
    scratch: path.join(dir, "scratch"),
    lostDisk: scene.wiped.size > 0,
  });
  totals.rounds++;
  totals.acknowledged += clients.acknowledged.size - promised.size;
  totals.inQuarantine += verdict.inQuarantine;
  totals.lostWithDisk += verdict.lostWithDisk;
  totals.slowestHealMs = Math.max(totals.slowestHealMs, Math.round(healMs));
  for (const [key, value] of clients.acknowledged) promised.set(key, value);
  for (const key of clients.sent) sent.add(key);
  tell(
    `  ${verdict.entries} entries, ${clients.failed} failed, healed in ${Math.round(healMs)} ms; ${JSON.stringify(totals)}`,
  );
  for (const problem of verdict.problems.slice(0, 20)) tell(`  PROBLEM ${problem}`);
  return verdict.problems.length === 0;
}

let isGood = true;
try {
  for (const node of nodes) node.start();
  await delay(1_000);
  // Until somebody has created the database, only the primary has a front door.
  for (let [i, end] = [0, Date.now() + 60_000]; ; i++, await delay(100)) {
    const body = JSON.stringify({ key: "first", value: "1" });
    const answer = await fetch(`${doors[i % 3]}/entries`, { method: "POST", body }).catch(() => undefined);
    if (answer?.status === 201) break;
    if (Date.now() > end) throw new Error("no node takes a write");
  }
  sent.add("first");
  await inStep(nodes);
  for (let i = 1; isGood && i <= rounds && Date.now() < untilMs; i++) isGood = await round(i);
} catch (error) {
  isGood = false;
  tell(`PROBLEM ${error instanceof Error ? error.message : String(error)}`);
} finally {
  for (const node of nodes) await node[Symbol.asyncDispose]();
}
if (isGood) rmSync(dir, { recursive: true });
else tell(`seed ${seed} fails; logs and databases: ${dir}`);
process.exitCode = isGood ? 0 : 1;

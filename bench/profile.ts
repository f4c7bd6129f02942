/**
 * Runs one of the hottest paths with V8's profiler in Sluice's process, and prints where its main thread spent the time.
 *
 * usage: npm run profile -- capture|apply|proxy|durability [SECONDS]
 */
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { Nodes } from "../test/e2e/nodes.ts";
import { app as replicaApp, lead, shown } from "./lib/cluster-load.ts";
import { type Hot, hotOf, profileClock, profiledTo, profileOf } from "./lib/cpu-profile.ts";
import { durableWrites, Process, throughput } from "./lib/door-load.ts";
import { entriesNode } from "./lib/entries.ts";
import { writer } from "./lib/processes.ts";
import { s3Server } from "./lib/s3.ts";
import { folder, replicate } from "./lib/sluice.ts";

/** When the load ran, in a process that has ended since. */
interface Profiled {
  readonly pid: number;
  readonly from: number;
  readonly to: number;
}

const WRITERS = 500;
const LARGE_MEGABYTES = 64;
const SHOWN = 25;

async function during(pid: number, load: () => Promise<unknown>): Promise<Profiled> {
  const from = profileClock();
  await load();
  return { pid, from, to: profileClock() };
}

/** A writer as fast as it can, beside `sluice replicate` to a directory. */
async function capture(scratch: string, seconds: number): Promise<Profiled> {
  const dir = folder(scratch, "capture");
  const db = path.join(dir, "app.db");
  await writer("init", db, 16);
  await using sluice = await replicate(db, `file://${path.join(dir, "store")}`);
  return await during(sluice.child.pid!, () => writer("run", db, seconds, 0, "normal"));
}

/** A replica while its primary commits 64 MiB at a time. */
async function apply(_scratch: string, seconds: number, env: NodeJS.ProcessEnv): Promise<Profiled> {
  await using nodes = new Nodes();
  await lead(nodes, LARGE_MEGABYTES);
  await nodes.start("b", { env });
  await nodes.reaches("b", "following");
  const profiled = await during(nodes.pid("b"), async () => {
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
      await replicaApp("large", nodes.db("a"), LARGE_MEGABYTES);
      await shown(nodes, "b");
    }
  });
  await nodes.stop("b");
  return profiled;
}

/** A front door with small GETs on 32 connections. */
async function proxy(): Promise<Profiled> {
  await using app = await new Process("small-app.ts").ready();
  await using door = await new Process("door.ts", "primary", app.port).ready();
  return await during(door.pid, () => throughput(door));
}

/** A front door whose 500 clients each wait for the S3 server with every write. */
async function durability(scratch: string, seconds: number): Promise<Profiled> {
  await using server = await s3Server(scratch);
  if (server === undefined) throw new Error("there is no S3 server: test/peers/install.sh");
  const { node, door } = await entriesNode(scratch, server);
  await using sluice = node;
  return await during(sluice.child.pid!, () => durableWrites(door, WRITERS, seconds));
}

function print(file: string, { busy, parts, functions }: Hot): void {
  const line = ({ name, share }: { name: string; share: number }): string =>
    `${(100 * share).toFixed(1).padStart(5)} %  ${name}`;
  console.log(`busy ${(100 * busy).toFixed(0)} % of the time; shares of that, by part and by function:\n`);
  console.log(parts.map(line).join("\n"));
  console.log(`\n${functions.slice(0, SHOWN).map(line).join("\n")}\n\n${file}`);
}

const paths = { capture, apply, proxy, durability };
const [name = "", seconds = "10"] = process.argv.slice(2);
if (!(name in paths)) {
  console.error(`usage: npm run profile -- ${Object.keys(paths).join("|")} [SECONDS]`);
  process.exit(2);
}
const scratch = mkdtempSync(path.join(os.tmpdir(), "sluice-profile-run-"));
const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-profile-"));
const env = profiledTo(dir);
Object.assign(process.env, env);
try {
  const { pid, from, to } = await paths[name as keyof typeof paths](scratch, Number(seconds), env);
  const file = profileOf(dir, pid);
  print(file, hotOf(file, from, to));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

interface ProfileNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
}

/** What V8 writes; times are microseconds of the system's monotonic clock. */
interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  readonly startTime: number;
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

/** A function, or a part of the program, and its share of the time in which the thread did something, 0 to 1. */
interface Share {
  readonly name: string;
  readonly share: number;
}

export interface Hot {
  /** How much of the time the thread did something, 0 to 1. */
  readonly busy: number;
  readonly parts: readonly Share[];
  readonly functions: readonly Share[];
}

const SAMPLE_US = 200;

/** The environment in which Node.js writes profiles of its processes to `dir`, when they end by themselves. */
export function profiledTo(dir: string): { readonly NODE_OPTIONS: string } {
  return { NODE_OPTIONS: `--cpu-prof --cpu-prof-interval=${SAMPLE_US} --cpu-prof-dir=${dir}` };
}

/** The present on the clock of profiles. */
export function profileClock(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

/** The file with the profile of a process's main thread. */
export function profileOf(dir: string, pid: number): string {
  const name = readdirSync(dir).find((file) => file.includes(`.${pid}.0.`));
  if (name === undefined) throw new Error(`process ${pid} has left no profile in ${dir}`);
  return path.join(dir, name);
}

/** Where the time between `from` and `to` went, largest first. */
export function hotOf(file: string, from: number, to: number): Hot {
  const { nodes, startTime, samples, timeDeltas } = JSON.parse(readFileSync(file, "utf8")) as CpuProfile;
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const [parts, functions] = [new Map<string, number>(), new Map<string, number>()];
  let [at, all, busy] = [startTime, 0, 0];
  for (let i = 0; i < samples.length; i++) {
    at += timeDeltas[i]!;
    if (at < from || at > to) continue;
    // A sample stands for the time until the next one.
    const took = timeDeltas[i + 1] ?? 0;
    all += took;
    const node = byId.get(samples[i]!)!;
    if (node.callFrame.functionName === "(idle)") continue;
    busy += took;
    add(parts, partOf(node), took);
    add(functions, nameOf(node), took);
  }
  return { busy: busy / all, parts: shares(parts, busy), functions: shares(functions, busy) };
}

function add(sums: Map<string, number>, name: string, took: number): void {
  sums.set(name, (sums.get(name) ?? 0) + took);
}

function shares(sums: ReadonlyMap<string, number>, all: number): Share[] {
  return Array.from(sums, ([name, sum]) => ({ name, share: sum / all })).sort((a, b) => b.share - a.share);
}

function partOf({ callFrame: { functionName, url } }: ProfileNode): string {
  if (functionName === "(garbage collector)") return "garbage collector";
  if (url.startsWith("node:")) return "Node.js, JavaScript";
  const [, where, name] = /\/(src|node_modules)\/([^/]+)/.exec(url) ?? [];
  if (where === "src") return `src/${name}`;
  return name ?? "Node.js, native, and system calls";
}

function nameOf({ callFrame: { functionName, url, lineNumber } }: ProfileNode): string {
  const place = url.replace(/^.*\/(?=src\/|node_modules\/)/, "");
  return `${functionName || "(nameless)"}${place === "" ? "" : ` ${place}:${lineNumber + 1}`}`;
}

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";

export const root = path.resolve(import.meta.dirname, "../..");
export const sluice = path.join(root, "bin/sluice");
const execFileAsync = promisify(execFile);

/** Runs a command to its end and returns what it printed; throws with its errors when it fails. */
export async function run(command: string, args: readonly string[]): Promise<string> {
  const { stdout } = await execFileAsync(command, args, { maxBuffer: 1 << 26 });
  return stdout;
}

/** How long something takes. */
export async function seconds(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return (performance.now() - start) / 1000;
}

/** Runs the benchmark's writing application and returns its one line of JSON. */
export async function writer<T>(...args: readonly (string | number)[]): Promise<T> {
  const out = await run("python3", [path.join(root, "bench/apps/writer.py"), ...args.map(String)]);
  return JSON.parse(out || "null") as T;
}

/** A long-running process of the benchmark; ended, and waited for, at the end of its scope. */
export class Background implements AsyncDisposable {
  readonly child: ChildProcess;
  #output = "";

  constructor(command: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
    const keep = (chunk: Buffer): void => {
      this.#output = (this.#output + chunk.toString()).slice(-100_000);
    };
    this.child.stdout?.on("data", keep);
    this.child.stderr?.on("data", keep);
  }

  /** Waits until the process has printed `pattern`; throws when it ends before, or after `limitMs`. */
  async printed(pattern: RegExp, limitMs = 60_000): Promise<void> {
    const end = Date.now() + limitMs;
    while (!pattern.test(this.#output)) {
      if (this.child.exitCode !== null || Date.now() > end) throw new Error(`no ${pattern} in:\n${this.#output}`);
      await new Promise((done) => setTimeout(done, 5));
    }
  }

  /** The process and all its descendants. */
  get pids(): number[] {
    return tree(this.child.pid ?? 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const exited = once(this.child, "exit");
    this.child.kill("SIGTERM");
    const kill = setTimeout(() => this.child.kill("SIGKILL"), 20_000);
    await exited;
    clearTimeout(kill);
  }
}

function tree(pid: number): number[] {
  const found = [pid];
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    const children = readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim();
    if (children) found.push(...children.split(" ").flatMap((child) => tree(Number(child))));
  }
  return found;
}

/** Resident memory of the processes together, in MB of 10^6 bytes (shared pages count in each). */
export function residentMb(pids: readonly number[]): number {
  const kb = pids.map((pid) => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0));
  return (kb.reduce((sum, value) => sum + value, 0) * 1024) / 1e6;
}

/** CPU time the processes have used so far, in seconds, from the scheduler's nanosecond counters. */
export function cpuSeconds(pids: readonly number[]): number {
  let ns = 0;
  for (const pid of pids)
    for (const task of readdirSync(`/proc/${pid}/task`))
      ns += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
  return ns / 1e9;
}

/** CPU use in percent of one core over `seconds`, and resident memory at the end. */
export async function idleUse(
  pids: readonly number[],
  seconds: number,
): Promise<{ cpuPercent: number; rssMb: number }> {
  const before = cpuSeconds(pids);
  const start = performance.now();
  await new Promise((done) => setTimeout(done, seconds * 1000));
  const took = (performance.now() - start) / 1000;
  return { cpuPercent: (100 * (cpuSeconds(pids) - before)) / took, rssMb: residentMb(pids) };
}

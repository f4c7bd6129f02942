import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const apps = fileURLToPath(new URL("../apps/", import.meta.url));

/** A directory that `remove` takes away again. */
export function scratch(name: string): { readonly path: (file: string) => string; readonly remove: () => void } {
  const directory = mkdtempSync(join(tmpdir(), `sluice-${name}-`));
  return { path: (file) => join(directory, file), remove: () => rmSync(directory, { recursive: true, force: true }) };
}

/** Runs an application of `test/apps` to its end; its output. Throws when it fails. */
export function runApp(name: string, ...args: (string | number)[]): string {
  return execFileSync("python3", [join(apps, `${name}.py`), ...args.map(String)], { encoding: "utf8" });
}

export interface RunningApp {
  readonly process: ChildProcess;
  /** Exit code (null after a signal) and everything printed. */
  readonly ended: Promise<{ readonly code: number | null; readonly output: string }>;
  kill(): void;
}

export function startApp(name: string, ...args: (string | number)[]): RunningApp {
  return track(spawn("python3", [join(apps, `${name}.py`), ...args.map(String)]));
}

/** A few lines of Python with `db` connected (autocommit) to the database. Runs until its standard input closes. */
export function startPython(path: string, code: string): RunningApp {
  return track(spawn("python3", ["-u", "-c", prelude(path) + code]));
}

export function runPython(path: string, code: string): string {
  return execFileSync("python3", ["-u", "-c", prelude(path) + code], { encoding: "utf8" }).trim();
}

/** The same without blocking this process; throws when it fails. */
export async function runPythonBeside(path: string, code: string): Promise<string> {
  const { code: status, output } = await startPython(path, code).ended;
  if (status !== 0) throw new Error(output);
  return output.trim();
}

function prelude(path: string): string {
  return `import sqlite3, sys, time
db = sqlite3.connect(${JSON.stringify(path)}, timeout=10, isolation_level=None)
`;
}

export function track(child: ChildProcess): RunningApp {
  let output = "";
  child.stdout?.on("data", (data: Buffer) => (output += data.toString()));
  child.stderr?.on("data", (data: Buffer) => (output += data.toString()));
  const ended = new Promise<{ code: number | null; output: string }>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, output }));
  });
  return { process: child, ended, kill: () => void child.kill("SIGKILL") };
}

/** Waits until `condition` holds; fails after `ms`. */
export async function until(condition: () => boolean, what: string, ms = 10_000): Promise<void> {
  const end = performance.now() + ms;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`still not: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

import { type ChildProcess, spawn, type StdioOptions } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** Generous: other work shares the machine. */
const LIMIT_MS = 30_000;

/** Waits until `check` gives something other than undefined and false; throws with `what` when it never does. */
export async function eventually<T>(what: string, check: () => T | undefined | false): Promise<T> {
  for (const end = Date.now() + LIMIT_MS; ; await delay(10)) {
    const value = check();
    if (value !== undefined && value !== false) return value;
    if (Date.now() > end) throw new Error(`never: ${what}`);
  }
}

/** The living processes (no zombies) whose environment holds `mark`, by pid, with their command lines. */
export function marked(mark: string): Map<number, string> {
  const found = new Map<number, string>();
  for (const pid of readdirSync("/proc").map(Number).filter(Number.isInteger)) {
    try {
      if (!readFileSync(`/proc/${pid}/environ`, "latin1").includes(mark)) continue;
      const command = readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ").trim();
      // A zombie has no command line.
      if (command !== "") found.set(pid, command);
    } catch {
      // Ended meanwhile, or not ours to look at.
    }
  }
  return found;
}

/** Whether the process is there and no zombie. */
export function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "latin1"));
  } catch {
    return false;
  }
}

/** A `run` in a process of its own (see `sluice.ts`), with everything it starts marked. Killed at the end of its scope. */
export class SluiceProcess implements AsyncDisposable {
  readonly dir: string;
  readonly mark = randomUUID();
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";

  constructor(args: readonly string[], options: { stdio?: StdioOptions; dir?: string; via?: readonly string[] } = {}) {
    this.dir = options.dir ?? SluiceProcess.newDir();
    const harness = path.join(import.meta.dirname, "sluice.ts");
    const [file = "", ...rest] = [...(options.via ?? []), process.execPath, harness, this.dir, ...args];
    this.child = spawn(file, rest, {
      stdio: options.stdio ?? ["ignore", "pipe", "pipe"],
      // vitest's own NODE_OPTIONS have no business in the application.
      env: { PATH: process.env["PATH"], HOME: os.tmpdir(), MARK: this.mark },
    });
    this.child.stdout?.on("data", (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.child.stderr?.on("data", (chunk: Buffer) => (this.stderr += chunk.toString()));
  }

  static newDir(): string {
    return mkdtempSync(path.join(os.tmpdir(), "sluice-supervise-"));
  }

  get pid(): number {
    return this.child.pid ?? 0;
  }

  /** Everything that carries the mark but Sluice itself; the guardian has an environment of its own. */
  get application(): Map<number, string> {
    return new Map([...marked(this.mark)].filter(([pid]) => pid !== this.pid));
  }

  get notes(): string[] {
    return this.#lines("notes");
  }

  /** Codes and messages of the log, as `code message`. */
  get log(): string[] {
    return this.#lines("log").map((line) => {
      const { code, msg } = JSON.parse(line) as { code?: string; msg: string };
      return `${code ?? ""} ${msg}`.trim();
    });
  }

  get guardianPid(): Promise<number> {
    return eventually("a guardian", () => {
      const [line] = this.#lines("guardian.json");
      return line === undefined ? undefined : (JSON.parse(line) as { guardian: { pid: number } }).guardian.pid;
    });
  }

  /** Waits until the application has printed `text`. */
  async printed(text: string): Promise<void> {
    await eventually(`${text} in ${this.stdout}`, () => this.stdout.includes(text));
  }

  /** Exit status of Sluice, or its signal. */
  async ended(): Promise<number | string | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, "exit");
    return this.child.exitCode ?? this.child.signalCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill("SIGKILL");
    await this.ended();
    try {
      await eventually("nothing left", () => marked(this.mark).size === 0);
    } finally {
      for (const pid of marked(this.mark).keys()) process.kill(pid, "SIGKILL");
      rmSync(this.dir, { recursive: true, force: true });
    }
  }

  #lines(file: string): string[] {
    try {
      return readFileSync(path.join(this.dir, file), "utf8").split("\n").filter(Boolean);
    } catch {
      return [];
    }
  }
}

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import Sqlite from "better-sqlite3";

const execFileAsync = promisify(execFile);
export const launcher = path.resolve(import.meta.dirname, "../../bin/sluice");

export interface Result {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** vitest's own options for Node.js, and a configuration of whoever runs the tests, have no business here. */
export function environment(): NodeJS.ProcessEnv {
  const { NODE_OPTIONS: _options, SLUICE_CONFIG: _config, LOG_LEVEL: _level, ...env } = process.env;
  return env;
}

/** A directory with a database and a store, and commands that run in it. */
export class Place implements AsyncDisposable {
  readonly dir = mkdtempSync(path.join(os.tmpdir(), "sluice-cli-"));
  readonly store = `file://${this.dir}/store`;
  readonly #running: Running[] = [];

  path(name: string): string {
    return path.join(this.dir, name);
  }

  /** Creates a database with `rows` rows in table t. */
  create(name: string, rows = 1): string {
    const file = this.path(name);
    const db = new Sqlite(file);
    db.pragma("journal_mode = wal");
    db.exec("create table if not exists t(x)");
    for (let i = 0; i < rows; i++) db.prepare("insert into t values(?)").run(i);
    db.close();
    return file;
  }

  insert(name: string, x: number): void {
    const db = new Sqlite(this.path(name), { timeout: 5000 });
    db.prepare("insert into t values(?)").run(x);
    db.close();
  }

  rows(name: string): number {
    const db = new Sqlite(this.path(name), { readonly: true });
    try {
      return db.prepare("select count(*) from t").pluck().get() as number;
    } finally {
      db.close();
    }
  }

  async sluice(...args: readonly string[]): Promise<Result> {
    try {
      return { status: 0, ...(await execFileAsync(launcher, args, { cwd: this.dir, env: environment() })) };
    } catch (error) {
      const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
      return { status: code, stdout, stderr };
    }
  }

  /** The one JSON document that a command prints; the command must succeed. */
  async json<T>(...args: readonly string[]): Promise<T> {
    const { status, stdout, stderr } = await this.sluice(...args, "--json");
    if (status !== 0) throw new Error(`status ${status}: ${stdout}${stderr}`);
    return JSON.parse(stdout) as T;
  }

  /** Starts a command that goes on; ready when its log has said `text`. */
  async start(text: string, ...args: readonly string[]): Promise<Running> {
    const running = new Running(
      spawn(launcher, args, { cwd: this.dir, env: environment(), stdio: ["ignore", "pipe", "pipe"] }),
    );
    this.#running.push(running);
    await running.said(text);
    return running;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const running of this.#running) await running.end("SIGKILL");
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export class Running {
  readonly child: ChildProcess;
  output = "";

  constructor(child: ChildProcess) {
    this.child = child;
    for (const stream of [child.stdout, child.stderr])
      stream?.on("data", (chunk: Buffer) => (this.output += chunk.toString()));
  }

  async said(text: string): Promise<void> {
    for (const end = Date.now() + 30_000; !this.output.includes(text);) {
      if (this.child.exitCode !== null || Date.now() > end) throw new Error(`never said "${text}": ${this.output}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Its exit status, or the signal that ended it. */
  async end(signal: NodeJS.Signals): Promise<number | string | null> {
    if (this.child.exitCode === null && this.child.signalCode === null) {
      const exited = once(this.child, "close");
      this.child.kill(signal);
      await exited;
    }
    return this.child.exitCode ?? this.child.signalCode;
  }
}

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { freePort, sluice, sluiceCommand } from "./site.ts";

const run = promisify(execFile);
const LIMIT_MS = 60_000;

/** What `GET /v1/status` says of a node, as far as tests look at it. */
export interface Status {
  readonly role: string;
  readonly replicas: readonly { readonly name: string; readonly lagMs: number | null }[];
  readonly databases: readonly {
    readonly state: string;
    readonly position?: string;
    readonly walBytes?: number;
    readonly error?: { readonly code?: string; readonly message: string };
  }[];
}

export interface NodeOptions {
  /** Whom the lease names; default the node `a`, where it advertises. */
  readonly primary?: string;
  /** In place of a lease that names one node, in YAML's flow style. */
  readonly lease?: string;
  /** More lines of the configuration. */
  readonly lines?: readonly string[];
  /** The store's directory; default `store`. */
  readonly store?: string;
  /** Settings of the database, in YAML's flow style: `source: store`. */
  readonly db?: string;
  readonly env?: NodeJS.ProcessEnv;
}

/** Nodes that are processes of their own, on this machine, around a directory store; the node `a` is the primary. */
export class Nodes implements AsyncDisposable {
  readonly dir = mkdtempSync(path.join(os.tmpdir(), "sluice-nodes-"));
  readonly #ports = new Map<string, number>();
  readonly #children = new Map<string, ChildProcess>();
  readonly #output = new Map<string, string>();

  at(...parts: string[]): string {
    return path.join(this.dir, ...parts);
  }

  db(name: string): string {
    return this.at(name, "app.db");
  }

  output(name: string): string {
    return this.#output.get(name) ?? "";
  }

  async url(name: string): Promise<string> {
    let port = this.#ports.get(name);
    if (port === undefined) this.#ports.set(name, (port = await freePort()));
    return `http://127.0.0.1:${port}`;
  }

  /** Starts `sluice run` on a node, once more if it has ended. */
  async start(name: string, options: NodeOptions = {}): Promise<void> {
    mkdirSync(this.at(name), { recursive: true });
    const url = await this.url(name);
    const config = this.at(`${name}.yml`);
    const db = options.db === undefined ? "" : `, ${options.db}`;
    const lines = [
      `dbs: [{ path: ${this.db(name)}, store: "file://${this.at(options.store ?? "store")}"${db} }]`,
      `node: { name: ${name}, listen: "${new URL(url).host}", advertise: "${url}" }`,
      `lease: ${options.lease ?? `{ type: static, primary: "${options.primary ?? (await this.url("a"))}" }`}`,
      ...(options.lines ?? []),
    ];
    writeFileSync(config, `${lines.join("\n")}\n`);
    // vitest's own options for Node.js have no business here.
    const { NODE_OPTIONS: _, ...env } = process.env;
    const child = spawn(sluice, ["run", "--config", config], {
      env: { ...env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#children.set(name, child);
    const keep = (chunk: Buffer): void => {
      this.#output.set(name, (this.output(name) + chunk.toString()).slice(-200_000));
    };
    child.stdout?.on("data", keep);
    child.stderr?.on("data", keep);
  }

  pid(name: string): number {
    return this.#children.get(name)?.pid ?? 0;
  }

  isOver(name: string): boolean {
    const child = this.#children.get(name);
    return child === undefined || child.exitCode !== null || child.signalCode !== null;
  }

  async status(name: string): Promise<Status> {
    return (await (await fetch(`${await this.url(name)}/v1/status`)).json()) as Status;
  }

  /** Waits until the node's database is in one of these states: `protected`, `following`, … */
  async reaches(name: string, ...states: readonly string[]): Promise<void> {
    await this.until(name, `state ${states.join(" or ")}`, ({ databases: [database] }) =>
      states.includes(database?.state ?? ""),
    );
  }

  /** Waits until the node's status says so; fails when it ends. */
  async until(name: string, what: string, holds: (status: Status) => boolean): Promise<void> {
    let last: Status | undefined;
    for (const end = Date.now() + LIMIT_MS; ; await delay(30)) {
      last = await this.status(name).catch(() => last);
      if (last !== undefined && holds(last)) return;
      if (this.isOver(name) || Date.now() > end) {
        throw new Error(`${name} has not: ${what}\n${JSON.stringify(last)}\n${this.output(name)}`);
      }
    }
  }

  /** Waits until these nodes have what the node `from` has. Nobody may write meanwhile. */
  async inStep(from: string, ...others: readonly string[]): Promise<void> {
    const wanted = await this.content(from);
    for (const name of others) {
      for (const end = Date.now() + LIMIT_MS; (await this.content(name)) !== wanted; await delay(50)) {
        if (Date.now() > end) throw new Error(`${name} is not what ${from} is\n${this.output(name)}`);
      }
    }
  }

  /** Waits until all that was committed on the node is in the store. */
  async sync(name: string): Promise<void> {
    const { stderr, status } = await sluiceCommand("sync", this.db(name));
    if (status !== 0) throw new Error(stderr);
  }

  kill(name: string, signal: NodeJS.Signals = "SIGKILL"): void {
    this.#children.get(name)?.kill(signal);
  }

  /** Waits until the process has ended; its exit status, or the signal. */
  async over(name: string): Promise<number | string | null> {
    const child = this.#children.get(name)!;
    if (!this.isOver(name)) await once(child, "close", { signal: AbortSignal.timeout(LIMIT_MS) });
    return child.exitCode ?? child.signalCode;
  }

  async stop(name: string): Promise<number | string | null> {
    this.kill(name, "SIGTERM");
    return this.over(name);
  }

  /** All rows of all tables, hashed, and what integrity_check says, by a process of its own. */
  async content(name: string): Promise<string> {
    const { stdout } = await run("python3", ["-c", CONTENT, this.db(name)]);
    return stdout.trim();
  }

  async sql(name: string, ...statements: readonly string[]): Promise<string> {
    const { stdout } = await run("python3", ["-c", SQL, this.db(name), "10", ...statements]);
    return stdout.trim();
  }

  /** What SQLite says about a statement that must fail, soon. */
  refusal(name: string, ...statements: readonly string[]): Promise<string> {
    return run("python3", ["-c", SQL, this.db(name), "0.2", ...statements]).then(
      ({ stdout }) => `not refused: ${stdout}`,
      (error: unknown) => String(error),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of this.#children.keys()) this.kill(name);
    for (const name of this.#children.keys()) await this.over(name);
    rmSync(this.dir, { recursive: true, force: true });
  }
}

const CONTENT = `
import hashlib, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)
db.execute("begin")
h = hashlib.sha256()
for (name,) in db.execute("select name from sqlite_master where type='table' order by name").fetchall():
    for row in db.execute(f"select rowid, * from \\"{name}\\" order by rowid"): h.update(repr((name, row)).encode())
print(h.hexdigest(), db.execute("pragma integrity_check").fetchone()[0])`;

const SQL = `
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None)
for s in sys.argv[3:]: r = db.execute(s).fetchall()
print(r)`;

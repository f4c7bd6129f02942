import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { children, signal } from "../../../src/supervise/descendants.ts";
import { freePort, root, sluice, users } from "../../e2e/site.ts";
import { Link } from "./link.ts";

export const LIMIT_MS = 60_000;

/** What `GET /v1/status` says of a node, as far as it's looked at here. */
export interface Status {
  readonly role: string;
  readonly state: string;
  readonly replicas: readonly { readonly name: string }[];
  readonly databases: readonly {
    readonly state: string;
    readonly position?: string;
    readonly quarantined?: unknown;
    readonly error?: { readonly code?: string; readonly message: string };
  }[];
}

/** One node: Sluice, its guardian, the application, its disk, and the network before it. */
export class FaultyNode implements AsyncDisposable {
  readonly name: string;
  readonly dir: string;
  readonly db: string;
  readonly config: string;
  readonly link: Link;
  readonly #ports: readonly [api: number, door: number, app: number];
  #child: ChildProcess | undefined;

  private constructor(name: string, dir: string, link: Link, ports: readonly [number, number, number]) {
    this.name = name;
    this.dir = path.join(dir, name);
    this.db = path.join(this.dir, "app.db");
    this.config = path.join(dir, `${name}.yml`);
    this.link = link;
    this.#ports = ports;
  }

  static async make(name: string, dir: string, ttl: string): Promise<FaultyNode> {
    const ports = [await freePort(), await freePort(), await freePort()] as const;
    const node = new FaultyNode(name, dir, await Link.before(ports[0]), ports);
    const application = path.join(root, "src/cli/demo/application.ts");
    const lines = [
      `dbs: [{ path: ${node.db}, store: "file://${path.join(dir, "store")}" }]`,
      `node: { name: ${name}, listen: "127.0.0.1:${ports[0]}", advertise: "http://127.0.0.1:${node.link.port}" }`,
      `lease: { type: store, ttl: ${ttl} }`,
      `proxy: { listen: "127.0.0.1:${ports[1]}", app: "http://127.0.0.1:${ports[2]}", durability: local }`,
      `exec: [{ cmd: "${process.execPath} ${application} ${node.db} ${ports[2]}" }]`,
    ];
    writeFileSync(node.config, `${lines.join("\n")}\n`);
    return node;
  }

  get door(): string {
    return `http://127.0.0.1:${this.#ports[1]}`;
  }

  get api(): string {
    return `http://127.0.0.1:${this.#ports[0]}`;
  }

  get log(): string {
    return readFileSync(`${this.dir}.log`, "utf8");
  }

  get isOver(): boolean {
    const child = this.#child;
    return child === undefined || child.exitCode !== null || child.signalCode !== null;
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** 0 when there is none. */
  get guardian(): number {
    return children(this.pid)[0] ?? 0;
  }

  start(): void {
    mkdirSync(this.dir, { recursive: true });
    const log = openSync(`${this.dir}.log`, "a");
    this.#child = spawn(sluice, ["run", "--config", this.config], { stdio: ["ignore", log, log] });
    closeSync(log);
  }

  signal(name: NodeJS.Signals): void {
    if (!this.isOver) this.#child?.kill(name);
  }

  /** Waits until Sluice and all that ran beside it have ended. */
  async over(): Promise<void> {
    if (!this.isOver) await once(this.#child!, "exit", { signal: AbortSignal.timeout(LIMIT_MS) });
    for (const end = Date.now() + LIMIT_MS; users(this.dir).length > 0; await delay(20)) {
      if (Date.now() > end) throw new Error(`left behind: ${users(this.dir).join("; ")}`);
    }
  }

  async status(): Promise<Status | undefined> {
    try {
      const answer = await fetch(`${this.api}/v1/status`, { signal: AbortSignal.timeout(2_000) });
      return (await answer.json()) as Status;
    } catch {
      return undefined;
    }
  }

  /** Asks it to become the primary; what it said. */
  async promote(): Promise<string> {
    try {
      const options = { method: "POST", body: "{}", signal: AbortSignal.timeout(15_000) };
      const answer = await fetch(`${this.api}/v1/promote`, options);
      return `${answer.status} ${(await answer.text()).slice(0, 200)}`;
    } catch (error) {
      return String(error);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.signal("SIGCONT");
    this.signal("SIGKILL");
    await this.over();
    await this.link[Symbol.asyncDispose]();
  }
}

/** Kills with SIGKILL what is there. */
export function kill(pid: number): void {
  if (pid > 0) signal(pid, "SIGKILL");
}

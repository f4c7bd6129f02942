import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { children, signal } from "../../../src/supervise/descendants.ts";
import { root, sluice, users } from "../../e2e/site.ts";
import type { Application } from "./applications.ts";
import type { Network, Place } from "./network.ts";
import type { FaultyStore } from "./stores.ts";

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

export interface NodeParts {
  readonly dir: string;
  readonly ttlMs: number;
  readonly network: Network;
  readonly store: Pick<FaultyStore, "url" | "env">;
  readonly application: Application;
  /** A library that makes the wall clock of its processes jump; undefined for clocks that are right. */
  readonly faketime: string | undefined;
}

const SECRET = "of the faults";
const AUTHORIZED = { authorization: `Bearer ${SECRET}` };

/** One node: Sluice, its guardian, the application, its disk, its clock, and its place in the network. */
export class FaultyNode implements AsyncDisposable {
  readonly name: string;
  readonly dir: string;
  readonly db: string;
  readonly config: string;
  readonly #parts: NodeParts;
  readonly #place: Place;
  #child: ChildProcess | undefined;

  static async make(name: string, parts: NodeParts): Promise<FaultyNode> {
    return new FaultyNode(name, parts, await parts.network.place(name));
  }

  private constructor(name: string, parts: NodeParts, place: Place) {
    this.name = name;
    this.dir = path.join(parts.dir, name);
    this.db = path.join(this.dir, "app.db");
    this.config = path.join(parts.dir, `${name}.yml`);
    this.#parts = parts;
    this.#place = place;
    const { host, ports, advertise } = place;
    const lines = [
      `dbs: [{ path: ${this.db}, store: "${parts.store.url}" }]`,
      `node: { name: ${name}, listen: "${host}:${ports.api}", advertise: "${advertise}" }`,
      `cluster: { secret: "${SECRET}" }`,
      `lease: { type: store, ttl: ${parts.ttlMs}ms }`,
      `proxy: { listen: "${host}:${ports.door}", app: "http://127.0.0.1:${ports.app}", durability: local }`,
      `exec: [${parts.application.exec(this.db, ports.app).join(", ")}]`,
    ];
    writeFileSync(this.config, `${lines.join("\n")}\n`);
    this.clockIs(0);
  }

  get door(): string {
    return `http://${this.#place.host}:${this.#place.ports.door}`;
  }

  get api(): string {
    return `http://${this.#place.host}:${this.#place.ports.api}`;
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
    const { application, store, faketime } = this.#parts;
    const [program, ...words] = [...this.#place.via, sluice, "run", "--config", this.config];
    this.#child = spawn(program, words, {
      cwd: path.join(root, "examples/django"),
      env: {
        ...process.env,
        ...store.env,
        ...application.env(this.db),
        ...(faketime !== undefined && {
          LD_PRELOAD: faketime,
          FAKETIME_TIMESTAMP_FILE: this.#clock,
          FAKETIME_CACHE_DURATION: "1",
          DONT_FAKE_MONOTONIC: "1",
          FAKETIME_DONT_FAKE_MONOTONIC: "1",
          NO_FAKE_STAT: "1",
        }),
      },
      stdio: ["ignore", log, log],
    });
    closeSync(log);
  }

  /** The wall clock of this node's processes is so many seconds off; where there is no `faketime`, nothing happens. */
  clockIs(offSeconds: number): void {
    writeFileSync(this.#clock, `${offSeconds < 0 ? "" : "+"}${offSeconds}\n`);
  }

  get #clock(): string {
    return `${this.dir}.clock`;
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

  /** The machine is lost with its disk. */
  async lose(): Promise<void> {
    this.signal("SIGKILL");
    await this.over();
    rmSync(this.dir, { recursive: true });
  }

  async status(): Promise<Status | undefined> {
    try {
      const signal = AbortSignal.timeout(2_000);
      const answer = await fetch(`${this.api}/v1/status`, { headers: AUTHORIZED, signal });
      return (await answer.json()) as Status;
    } catch {
      return undefined;
    }
  }

  /** Asks it to become the primary; what it said. */
  async promote(): Promise<string> {
    try {
      const options = { method: "POST", body: "{}", headers: AUTHORIZED, signal: AbortSignal.timeout(15_000) };
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
  }
}

/** Kills with SIGKILL what is there. */
export function kill(pid: number): void {
  if (pid > 0) signal(pid, "SIGKILL");
}

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { freePort, sluice, users } from "../e2e/site.ts";
import { peers } from "../peers/peers.ts";
import { type Kind, siteEnvironment } from "./plain-site.ts";

const LIMIT_MS = 60_000;

/** A machine with `sluice run`, the site under gunicorn, and no front door. Its directory outlives it. */
export class LiveNode implements AsyncDisposable {
  readonly name: string;
  readonly url: string;
  readonly dir: string;
  readonly #child: ChildProcess;
  #output = "";

  /** `base`: what the machines share; the store is in it. */
  static async start(base: string, name: string, kind: Kind): Promise<LiveNode> {
    const node = new LiveNode(base, name, kind, await freePort(), await freePort());
    await node.#until(
      async () => (await fetch(`${node.url}/totals`).catch(() => undefined))?.ok === true,
      "it answers",
    );
    return node;
  }

  private constructor(base: string, name: string, kind: Kind, port: number, apiPort: number) {
    this.name = name;
    this.dir = path.join(base, name);
    this.url = `http://127.0.0.1:${port}`;
    mkdirSync(this.dir, { recursive: true });
    const gunicorn = `-m gunicorn mysite.wsgi --bind 127.0.0.1:${port} --workers 2 --worker-tmp-dir ${this.dir}`;
    const lines = [
      `dbs: [{ path: ${this.dir}/app.db, store: "file://${base}/store" }]`,
      `node: { name: ${name}, listen: "127.0.0.1:${apiPort}", advertise: "http://127.0.0.1:${apiPort}" }`,
      "cluster: { secret: a secret of all nodes }",
      "lease: { type: store, ttl: 3s }",
      "exec:",
      `  - { cmd: "${peers.django} -m django migrate --noinput", on: primary, wait: true }`,
      `  - { cmd: "${peers.django} ${gunicorn}" }`,
    ];
    const config = path.join(this.dir, "sluice.yml");
    writeFileSync(config, `${lines.join("\n")}\n`);
    this.#child = spawn(sluice, ["run", "--config", config], {
      env: siteEnvironment(kind, path.join(this.dir, "app.db")),
      stdio: ["ignore", "pipe", "pipe"],
    });
    const keep = (chunk: Buffer): void => {
      this.#output = (this.#output + chunk.toString()).slice(-20_000);
    };
    this.#child.stdout?.on("data", keep);
    this.#child.stderr?.on("data", keep);
  }

  get isReplica(): boolean {
    return existsSync(path.join(this.dir, ".primary"));
  }

  /** Waits until it is the primary. */
  async promoted(): Promise<void> {
    await this.#until(() => !this.isReplica, "it is the primary");
  }

  /** Sluice dies without a chance to do anything; the guardian ends the application. */
  async kill(): Promise<void> {
    if (this.#isOver) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
    for (const end = Date.now() + LIMIT_MS; users(this.dir).length > 0; await delay(20))
      if (Date.now() > end) throw new Error(`left behind: ${users(this.dir).join("; ")}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  get #isOver(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async #until(look: () => boolean | Promise<boolean>, what: string): Promise<void> {
    for (const end = Date.now() + LIMIT_MS; !(await look()); await delay(50))
      if (this.#isOver || Date.now() > end)
        throw new Error(`${this.name}: not before its end: ${what}\n${this.#output}`);
  }
}

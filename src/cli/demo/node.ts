import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createWriteStream, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { NodeStatus } from "../../cluster/status.ts";

/** The application in this program's own form: TypeScript in a clone, JavaScript in a package. */
const APPLICATION = fileURLToPath(new URL(`application${path.extname(import.meta.url)}`, import.meta.url));
const LOOK_MS = 20;
const READY_LIMIT_MS = 30_000;

/** One node of the demo: this very program in a process of its own, with a directory that counts as its disk. */
export class DemoNode {
  readonly name: string;
  readonly disk: string;
  readonly #dir: string;
  #ports: readonly [number, number, number] = [0, 0, 0];
  #process: ChildProcess | undefined;
  #closed = false;

  constructor(dir: string, name: string) {
    this.name = name;
    this.#dir = dir;
    this.disk = path.join(dir, name);
  }

  /** Where clients come in. */
  get door(): string {
    return `http://127.0.0.1:${this.#ports[0]}`;
  }

  get api(): string {
    return `http://127.0.0.1:${this.#ports[1]}`;
  }

  /** The application itself, without the front door before it. */
  get application(): string {
    return `http://127.0.0.1:${this.#ports[2]}`;
  }

  get pid(): number {
    return this.#process?.pid ?? 0;
  }

  get log(): string {
    return path.join(this.#dir, `${this.name}.log`);
  }

  /** Starts it; resolves at once. */
  async start(): Promise<void> {
    if (this.#ports[0] === 0) this.#ports = [await freePort(), await freePort(), await freePort()];
    if (this.#closed) return;
    mkdirSync(this.disk, { recursive: true });
    const [door, api, port] = this.#ports;
    const file = path.join(this.#dir, `${this.name}.yml`);
    const database = path.join(this.disk, "ledger.db");
    const config = {
      dbs: [{ path: database, store: path.join(this.#dir, "store") }],
      node: { name: this.name, listen: `127.0.0.1:${api}`, advertise: `http://127.0.0.1:${api}` },
      lease: { ttl: "2s" },
      proxy: { listen: `127.0.0.1:${door}`, app: `http://127.0.0.1:${port}` },
    };
    writeFileSync(file, JSON.stringify(config, undefined, 2));
    const sluice = [...process.execArgv, process.argv[1]!, "run", "--config", file, "--"];
    const application = [process.execPath, ...process.execArgv, APPLICATION, database, String(port)];
    const child = spawn(process.execPath, [...sluice, ...application], { stdio: ["ignore", "pipe", "pipe"] });
    const log = createWriteStream(this.log, { flags: "a" });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    this.#process = child;
  }

  /** Until the front door and the application behind it answer. */
  async ready(): Promise<void> {
    const end = Date.now() + READY_LIMIT_MS;
    for (;;) {
      // Before this node is healthy its front door asks the primary.
      const isHealthy = (await statusOf(`${this.door}/.sluice/health`)) === 200;
      if (isHealthy && (await statusOf(`${this.door}/entries/none`)) === 404) return;
      if (Date.now() > end) throw new Error(`${this.name} did not get ready; its log is ${this.log}`);
      await sleep(LOOK_MS);
    }
  }

  async status(): Promise<NodeStatus | undefined> {
    const response = await fetch(`${this.api}/v1/status`).catch(() => undefined);
    return response?.ok === true ? ((await response.json()) as NodeStatus) : undefined;
  }

  async promote(): Promise<void> {
    const response = await fetch(`${this.api}/v1/promote`, { method: "POST", body: "{}" });
    if (!response.ok) throw new Error(`${this.name} was not promoted: ${await response.text()}`);
  }

  async end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill(signal);
    await ended;
  }

  /** Ends it for good. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.end("SIGKILL");
  }

  /** Its disk is gone; it must have ended. */
  loseDisk(): void {
    rmSync(this.disk, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Of a GET; 0 where nobody answers. */
function statusOf(url: string): Promise<number> {
  return fetch(url).then(
    ({ status }) => status,
    () => 0,
  );
}

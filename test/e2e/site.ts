import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { descendants } from "../../src/supervise/descendants.ts";
import { peers } from "../peers/peers.ts";

export const root = path.resolve(import.meta.dirname, "../..");
export const sluice = path.join(root, "bin/sluice");
const execFileAsync = promisify(execFile);
const LIMIT_MS = 60_000;

/** A port of the loopback that nobody uses now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}

/** Runs `sluice` with these words; what it printed, and its status. */
export async function sluiceCommand(
  ...args: readonly string[]
): Promise<{ status: number; stdout: string; stderr: string }> {
  try {
    return { status: 0, ...(await execFileAsync(sluice, args, { env: environment() })) };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { status: code, stdout, stderr };
  }
}

function environment(): NodeJS.ProcessEnv {
  // vitest's own options for Node.js have no business here.
  const { NODE_OPTIONS: _, ...env } = process.env;
  return env;
}

export interface SiteOptions {
  /** Where its database, configuration and logs are. */
  readonly dir: string;
  readonly storeUrl: string;
}

/** The Django example under `sluice run`, with migrations and three gunicorn workers. */
export class Site implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly database: string;
  readonly config: string;
  readonly #port: number;
  #guardian = 0;
  output = "";

  static async start(options: SiteOptions): Promise<Site> {
    const site = new Site(options, await freePort(), await freePort());
    await site.up();
    return site;
  }

  private constructor({ dir, storeUrl }: SiteOptions, port: number, apiPort: number) {
    mkdirSync(dir, { recursive: true });
    this.database = path.join(dir, "app.db");
    this.config = path.join(dir, "sluice.yml");
    this.#port = port;
    const bind = `--bind 127.0.0.1:${port} --workers 3 --worker-tmp-dir ${dir} --graceful-timeout 5`;
    const lines = [
      `dbs: [{ path: ${this.database}, store: "${storeUrl}" }]`,
      `node: { listen: "127.0.0.1:${apiPort}" }`,
      "exec:",
      `  - { cmd: "${peers.django} manage.py migrate --noinput", on: primary, wait: true }`,
      `  - { cmd: "${peers.django} -m gunicorn mysite.wsgi ${bind}" }`,
    ];
    writeFileSync(this.config, `${lines.join("\n")}\n`);
    this.#child = spawn(sluice, ["run", "--config", this.config], {
      cwd: path.join(root, "examples/django"),
      env: {
        ...environment(),
        DATABASE_PATH: this.database,
        PYTHONPATH: path.join(root, "integrations/django/src"),
        PYTHONDONTWRITEBYTECODE: "1",
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const keep = (chunk: Buffer): void => {
      this.output = (this.output + chunk.toString()).slice(-50_000);
    };
    this.#child.stdout?.on("data", keep);
    this.#child.stderr?.on("data", keep);
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get isOver(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** The processes of this site by what they are. */
  get processes(): { sluice: number; guardian: number; master: number; workers: number[] } {
    const all = [this.#child.pid ?? 0, ...descendants(this.#child.pid ?? 0)].map((pid) => ({
      pid,
      words: commandLine(pid),
    }));
    const sluice =
      all.find(({ words }) => words.includes("run") && words.includes("node"))?.pid ?? this.#child.pid ?? 0;
    const guardian = all.find(({ words }) => words.includes("guardian"))?.pid ?? 0;
    const [master = 0, ...workers] = all.filter(({ words }) => words.includes("gunicorn mysite")).map(({ pid }) => pid);
    return { sluice, guardian, master, workers };
  }

  /** Waits until the site answers. */
  async up(): Promise<void> {
    for (const end = Date.now() + LIMIT_MS; ; await delay(50)) {
      if (this.isOver || Date.now() > end) throw new Error(`the site is not up:\n${this.output}`);
      const answer = await fetch(`${this.url}/totals`).catch(() => undefined);
      if (!answer?.ok) continue;
      this.#guardian = this.processes.guardian;
      return;
    }
  }

  /** Asks Sluice to stop and returns its exit status. */
  async stop(): Promise<number | string | null> {
    this.#child.kill("SIGTERM");
    return this.over();
  }

  /** Waits until Sluice has ended. */
  async over(): Promise<number | string | null> {
    if (!this.isOver) await once(this.#child, "exit", { signal: AbortSignal.timeout(LIMIT_MS) });
    return this.#child.exitCode ?? this.#child.signalCode;
  }

  /** Waits until nothing that looks after the database or opens it is there, Sluice and application. */
  async allGone(): Promise<void> {
    await this.over();
    const left = (): string[] => {
      const words = commandLine(this.#guardian);
      return [...users(path.dirname(this.database)), ...(words.includes("guardian") ? [words] : [])];
    };
    for (const end = Date.now() + LIMIT_MS; left().length > 0; await delay(20)) {
      if (Date.now() > end) throw new Error(`left behind: ${left().join("; ")}`);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.isOver) this.#child.kill("SIGKILL");
    await this.allGone();
  }
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ");
  } catch {
    return "";
  }
}

/** Processes whose environment or command line names `dir`: Sluice, and everything of its application. */
export function users(dir: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync("/proc").map(Number).filter(Number.isInteger)) {
    const words = commandLine(pid);
    if (pid === process.pid || words === "") continue;
    let environ = "";
    try {
      environ = readFileSync(`/proc/${pid}/environ`, "latin1");
    } catch {
      // Another user's, or gone.
    }
    if (words.includes(`${dir}/`) || environ.includes(`${dir}/`)) found.push(`${pid} ${words}`);
  }
  return found;
}

import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { freePort } from "../e2e/site.ts";
import { peers } from "../peers/peers.ts";

const run = promisify(execFile);
const root = path.resolve(import.meta.dirname, "../..");
const LIMIT_MS = 60_000;

/**
 * The Django example as it is (`mysite`), with code that was written for LiteFS (`oldsite`), or as it is for Fly.io's
 * proxy alone (`flysite`).
 */
export type Kind = "mysite" | "oldsite" | "flysite";

export function siteEnvironment(kind: Kind, database: string): NodeJS.ProcessEnv {
  const folders = [
    "examples/django",
    "integrations/django/src",
    "test/integrations/fixtures/litefs",
    "test/integrations/fixtures/fly",
  ];
  return {
    PATH: process.env["PATH"],
    DJANGO_SETTINGS_MODULE: `${kind}.settings`,
    PYTHONPATH: folders.map((folder) => path.join(root, folder)).join(":"),
    PYTHONDONTWRITEBYTECODE: "1",
    DATABASE_PATH: database,
  };
}

/** Makes the site's tables. */
export async function migrate(database: string): Promise<void> {
  await run(peers.django, ["-m", "django", "migrate", "--noinput"], { env: siteEnvironment("mysite", database) });
}

/** The site under gunicorn, by itself. */
export class PlainSite implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly url: string;
  #output = "";

  static async start(kind: Kind, database: string): Promise<PlainSite> {
    const site = new PlainSite(kind, database, await freePort());
    await site.#up();
    return site;
  }

  private constructor(kind: Kind, database: string, port: number) {
    this.url = `http://127.0.0.1:${port}`;
    const args = ["-m", "gunicorn", "mysite.wsgi", "--bind", `127.0.0.1:${port}`, "--workers", "1"];
    this.#child = spawn(peers.django, [...args, "--worker-tmp-dir", path.dirname(database)], {
      env: siteEnvironment(kind, database),
    });
    const keep = (chunk: Buffer): void => {
      this.#output = (this.#output + chunk.toString()).slice(-20_000);
    };
    this.#child.stdout?.on("data", keep);
    this.#child.stderr?.on("data", keep);
  }

  async #up(): Promise<void> {
    for (const end = Date.now() + LIMIT_MS; ; await delay(50)) {
      if (this.#child.exitCode !== null || Date.now() > end) throw new Error(`the site is not up:\n${this.#output}`);
      const answer = await fetch(`${this.url}/totals`).catch(() => undefined);
      if (answer?.ok === true) return;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    await exited;
  }
}

import { rmSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { Nodes } from "./nodes.ts";
import { freePort, users } from "./site.ts";

const LIMIT_MS = 60_000;

/** An application for one node. */
export interface Application {
  /** The lines of `exec`, in YAML's flow style. */
  readonly exec: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

/** Nodes with front doors: they find each other and their primary in the store. */
export class FrontedNodes extends Nodes {
  readonly #ports = new Map<string, readonly [door: number, app: number]>();
  readonly #application: (name: string, port: number) => Application;

  constructor(application: (name: string, port: number) => Application) {
    super();
    this.#application = application;
  }

  door(name: string): string {
    return `http://127.0.0.1:${this.#ports.get(name)?.[0] ?? 0}`;
  }

  /** Starts them together, and waits until `probe` is answered by each application through its front door. */
  async up(names: readonly string[], probe: string): Promise<void> {
    await Promise.all(names.map((name) => this.#up(name, probe)));
  }

  async #up(name: string, probe: string): Promise<void> {
    const ports = this.#ports.get(name) ?? ([await freePort(), await freePort()] as const);
    this.#ports.set(name, ports);
    const { exec, env } = this.#application(name, ports[1]);
    const proxy = `proxy: { listen: "127.0.0.1:${ports[0]}", app: "http://127.0.0.1:${ports[1]}" }`;
    await this.start(name, { lease: "{ type: store, ttl: 3s }", lines: [proxy, `exec: [${exec.join(", ")}]`], env });
    for (const end = Date.now() + LIMIT_MS; ; await delay(50)) {
      // Before the node is healthy its front door asks the primary; it says 502 as long as there is no application.
      const isHealthy = (await this.#statusOf(name, "/.sluice/health")) === 200;
      const status = isHealthy ? await this.#statusOf(name, probe) : 0;
      if (status > 0 && status < 500) return;
      if (this.isOver(name) || Date.now() > end) throw new Error(`${name} is not up\n${this.output(name)}`);
    }
  }

  #statusOf(name: string, target: string): Promise<number> {
    return fetch(this.door(name) + target, { signal: AbortSignal.timeout(LIMIT_MS) }).then(
      (answer) => answer.status,
      () => 0,
    );
  }

  /** The machine is lost: Sluice has no chance to do anything. Returns when its application has ended, too. */
  async lose(name: string): Promise<void> {
    this.kill(name, "SIGKILL");
    await this.over(name);
    const left = (): string[] => users(this.at(name));
    for (const end = Date.now() + LIMIT_MS; left().length > 0; await delay(20))
      if (Date.now() > end) throw new Error(`left behind: ${left().join("; ")}`);
  }

  loseDisk(name: string): void {
    rmSync(this.at(name), { recursive: true });
  }

  /** Waits until exactly one of the nodes is the primary. */
  async primary(names: readonly string[]): Promise<string> {
    for (const end = Date.now() + LIMIT_MS; ; await delay(30)) {
      const roles = await Promise.all(names.map((name) => this.status(name).catch(() => undefined)));
      const leads = names.filter((_, i) => roles[i]?.role === "primary");
      if (leads.length === 1) return leads[0]!;
      if (Date.now() > end)
        throw new Error(`primaries: ${leads.join()}\n${names.map((n) => this.output(n)).join("\n")}`);
    }
  }

  /** Hands over to this node; how long it took. */
  async promote(name: string): Promise<number> {
    const startMs = performance.now();
    const answer = await fetch(`${await this.url(name)}/v1/promote`, { method: "POST", body: "{}" });
    if (!answer.ok) throw new Error(`${name} is not promoted: ${await answer.text()}`);
    return performance.now() - startMs;
  }

  /** Waits until the primary knows that all others follow it closely. */
  async allFollow(names: readonly string[]): Promise<void> {
    const primary = await this.primary(names);
    await this.until(primary, "all follow", ({ replicas }) => {
      return replicas.filter(({ lagMs }) => lagMs !== null && lagMs < 1000).length === names.length - 1;
    });
  }
}

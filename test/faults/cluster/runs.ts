import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { peers } from "../../peers/peers.ts";
import { applications } from "./applications.ts";
import { check, inStep } from "./checks.ts";
import { Clients, type Level } from "./clients.ts";
import { Namespaces } from "./namespaces.ts";
import { Loopback } from "./network.ts";
import { FaultyNode } from "./nodes.ts";
import { type Scene, someFault } from "./steps.ts";
import { DirectoryPlace, S3Place } from "./stores.ts";

const TTL_MS = 2_000;
const CLIENTS = 6;
const START_LIMIT_MS = 60_000;

/** Primary, two replicas and the store fall into two parts in so many ways: 0 to 6. */
export const PARTITIONS = 7;

export interface RunsOptions {
  readonly seed: number;
  /** Faults in a round. */
  readonly steps: number;
  readonly net: "loopback" | "ns";
  readonly store: "dir" | "s3";
  readonly app: keyof typeof applications;
  /** Whether wall clocks jump, too; needs libfaketime. */
  readonly clocks: boolean;
  readonly tell: (line: string) => void;
}

export interface Totals {
  rounds: number;
  acknowledged: number;
  inQuarantine: number;
  lostWithDisk: number;
  slowestHealMs: number;
}

/** Mulberry32: the same numbers for the same seed. */
function numbers(from: number): () => number {
  let state = from >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * One cluster of three real nodes, and rounds of faults on it, each from its number and the seed. After each round all is
 * healed and everything is checked; what was acknowledged in earlier rounds is looked for as well.
 */
export class FaultRuns implements AsyncDisposable {
  readonly dir = mkdtempSync(path.join(os.tmpdir(), "sluice-faults-"));
  readonly totals: Totals = { rounds: 0, acknowledged: 0, inQuarantine: 0, lostWithDisk: 0, slowestHealMs: 0 };
  readonly #options: RunsOptions;
  readonly #resources = new AsyncDisposableStack();
  readonly #known = new Map<string, Set<string>>();
  readonly #forgiven = new Set<string>();
  readonly #promised: Clients["acknowledged"] = new Map();
  readonly #sent = new Set<string>();
  #cluster: Pick<Scene, "nodes" | "network" | "store"> | undefined;

  constructor(options: RunsOptions) {
    this.#options = options;
  }

  /** Starts the cluster, and waits until its first entry is everywhere. */
  async start(): Promise<void> {
    const { net, store: kind, app, clocks } = this.#options;
    const network = this.#resources.use(net === "ns" ? new Namespaces() : new Loopback());
    const host = network instanceof Namespaces ? network.host("store") : { address: "127.0.0.1", via: [] };
    const store = this.#resources.use(kind === "s3" ? await S3Place.start(host) : new DirectoryPlace(this.dir));
    // For the commands that look at the store.
    Object.assign(process.env, store.env);
    const faketime = clocks ? peers.faketime : undefined;
    const parts = { dir: this.dir, ttlMs: TTL_MS, network, store, application: applications[app], faketime };
    const nodes: FaultyNode[] = [];
    for (const name of ["a", "b", "c"]) nodes.push(this.#resources.use(await FaultyNode.make(name, parts)));
    this.#cluster = { nodes, network, store };
    for (const node of nodes) node.start();
    // Each node's front door sends it to the primary, whose application creates the database.
    for (const end = Date.now() + START_LIMIT_MS; ; await delay(100)) {
      const body = JSON.stringify({ key: "first", value: "1" });
      const asked = fetch(`${nodes[1]!.door}/entries`, { method: "POST", body, signal: AbortSignal.timeout(5_000) });
      if ((await asked.catch(() => undefined))?.status === 201) break;
      if (Date.now() > end) throw new Error("no node takes a write");
    }
    this.#sent.add("first");
    await inStep(nodes);
  }

  /** One round; what was wrong at its end. Throws when the cluster doesn't come in step again. */
  async round(number: number): Promise<readonly string[]> {
    const { seed, steps, tell, clocks } = this.#options;
    const { nodes, network, store } = this.#cluster!;
    // Each round can be had alone by its own number of the seed.
    const next = numbers(seed * 1_000 + number);
    tell(`round ${number}`);
    const scene: Scene = { nodes, network, store, ttlMs: TTL_MS, next, clocks, wiped: new Set() };
    const clients = this.#clients(["store", "local"]);
    for (let i = 0; i < steps; i++) {
      await delay(next() * 1_500);
      await someFault(scene, tell);
    }
    await delay(500);
    return this.#healed(clients, scene.wiped.size > 0);
  }

  /**
   * Splits primary, replicas and store in one of the {@link PARTITIONS} ways for three times the lease, under writes at
   * `replica`; `loses`: the primary's machine then goes with its disk. What was wrong after that.
   */
  async partition(way: number, loses: boolean): Promise<readonly string[]> {
    const { nodes, network } = this.#cluster!;
    if (!(network instanceof Namespaces)) throw new Error("partitions are made in network namespaces");
    const primary = await inStep(nodes);
    const others = nodes.filter((node) => node !== primary).map(({ name }) => name);
    const all = [...others, "store"];
    const near = [primary.name, ...all.filter((_, i) => (way >> i) % 2 === 1)];
    const far = all.filter((_, i) => (way >> i) % 2 === 0);
    const after = loses ? ", then its disk is lost" : "";
    this.#options.tell(`primary ${near.join(", ")} | ${far.join(", ")}${after}`);
    const clients = this.#clients(["replica"]);
    await delay(1_000);
    network.part(near, far);
    await delay(3 * TTL_MS);
    if (loses) await primary.lose();
    return this.#healed(clients, loses);
  }

  #clients(levels: readonly Level[]): Clients {
    const doors = this.#cluster!.nodes.map(({ door }) => door);
    return new Clients(doors, { count: CLIENTS, levels }, { acknowledged: this.#promised, sent: this.#sent });
  }

  /** Takes all faults back, and checks everything. */
  async #healed(clients: Clients, lostDisk: boolean): Promise<readonly string[]> {
    const { app, tell } = this.#options;
    const { nodes } = this.#cluster!;
    await this.#up();
    const startMs = performance.now();
    await delay(500);
    await clients.stop();
    await this.#up();
    await inStep(nodes);
    const healMs = Math.round(performance.now() - startMs);
    const verdict = await check(nodes, clients, {
      table: applications[app].table,
      known: this.#known,
      forgiven: this.#forgiven,
      scratch: path.join(this.dir, "scratch"),
      lostDisk,
    });
    const { totals } = this;
    totals.rounds++;
    totals.acknowledged += clients.acknowledged.size - this.#promised.size;
    totals.inQuarantine += verdict.inQuarantine;
    totals.lostWithDisk += verdict.lostWithDisk;
    totals.slowestHealMs = Math.max(totals.slowestHealMs, healMs);
    for (const [key, value] of clients.acknowledged) this.#promised.set(key, value);
    for (const key of clients.sent) this.#sent.add(key);
    tell(`  ${verdict.entries} entries, ${clients.failed} failed, healed in ${healMs} ms; ${JSON.stringify(totals)}`);
    return verdict.problems;
  }

  async #up(): Promise<void> {
    const { nodes, network } = this.#cluster!;
    network.heal();
    for (const node of nodes) {
      node.signal("SIGCONT");
      node.clockIs(0);
      if (!node.isOver) continue;
      await node.over();
      node.start();
    }
  }

  /** Removes everything that was made. */
  remove(): void {
    rmSync(this.dir, { recursive: true });
  }

  /** Ends all processes; files stay. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources[Symbol.asyncDispose]();
  }
}

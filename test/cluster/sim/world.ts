import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { isSluiceError } from "../../../src/errors/error.ts";
import { NOTHING, epochOf, formatPosition, type Position } from "../../../src/ltx/position.ts";
import type { ObjectStore } from "../../../src/store/store.ts";
import { LifeClock, Random, VirtualClock } from "../../log/sim/clock.ts";
import { PAGE_SIZE } from "../../log/sim/database.ts";
import { History } from "../../log/sim/history.ts";
import type { Pages } from "../../log/sim/ltx.ts";
import { type Faults, type Reach, SimBucket } from "../../log/sim/store.ts";
import { alone } from "./alone.ts";
import { Machine } from "./machine.ts";
import { type NodeParts, SimNode, TTL_MS } from "./node.ts";

/** Breaks one rule of the protocol on purpose, by what it puts between a node and its surroundings. */
interface Variant {
  readonly store?: (store: ObjectStore, world: ClusterWorld) => ObjectStore;
  readonly parts?: (parts: NodeParts, world: ClusterWorld) => NodeParts;
}

export interface WorldOptions {
  readonly seed: number;
  readonly variant?: Variant;
}

/** Nobody needs the files after a power loss. */
const MEMORY = "/dev/shm";

const NAMES = ["a", "b", "c"];
/** What must come true when nothing goes wrong any more does so within this. */
const HEALED_MS = 60_000;

interface Site {
  readonly machine: Machine;
  node: SimNode | undefined;
  lives: number;
  reach: Reach;
}

/** Three nodes, their disks, clocks and store, and everything that may happen to them; the same for the same seed. */
export class ClusterWorld {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly bucket: SimBucket;
  readonly history: History;
  readonly sites = new Map<string, Site>();
  /** What clients were told is in the log. */
  readonly acknowledged: { readonly position: Position; readonly client: string }[] = [];
  readonly counts = { commits: 0, acknowledged: 0, takeovers: 0, twoGates: 0, left: 0 };
  failure: unknown;
  /** The machine that the lease names now. */
  #holder = "";
  readonly #dir = mkdtempSync(path.join(existsSync(MEMORY) ? MEMORY : tmpdir(), "sluice-cluster-sim-"));
  readonly #options: WorldOptions;
  readonly #trace = createHash("sha256");
  /** The last of what happened, for whoever looks at a failing seed. */
  readonly recent: string[] = [];

  constructor(options: WorldOptions) {
    this.#options = options;
    this.random = new Random(options.seed);
    this.bucket = new SimBucket(this.clock, this.random);
    this.bucket.reach = (client) => this.sites.get(client.split("/")[0]!)!.reach;
    this.history = new History(this.bucket);
    this.bucket.onChange = (key) => {
      this.note("store", key);
      if (key === LEASE) this.#holder = leaseHolder(this.bucket);
    };
    for (const name of NAMES) {
      const machine = new Machine(name, path.join(this.#dir, name));
      this.sites.set(name, { machine, node: undefined, lives: 0, reach: "both" });
    }
  }

  /** Of everything that has happened, in order. */
  get trace(): string {
    return this.#trace.copy().digest("hex");
  }

  dispose(): void {
    for (const site of this.sites.values()) this.#kill(site);
    rmSync(this.#dir, { recursive: true, force: true });
  }

  /** Begins a log, lets `steps` things happen, heals everything, and checks what is left. */
  async run(steps: number): Promise<void> {
    await this.#begin();
    this.bucket.faults = roughness(this.random);
    for (let step = 0; step < steps; step++) {
      this.#act();
      await this.#pass(this.random.below(this.random.chance(0.15) ? 8_000 : 500));
    }
    await this.#heal();
    this.#checkEnd();
  }

  note(...what: readonly (string | number | bigint | boolean)[]): void {
    const line = `${this.clock.now() % 1e9} ${what.join(" ")}`;
    this.#trace.update(`${line}\n`);
    this.recent.push(line);
    if (this.recent.length > 400) this.recent.shift();
  }

  /** The first node begins the log; the others are restored from it. */
  async #begin(): Promise<void> {
    const [first, ...others] = [...this.sites.values()];
    this.#start(first!);
    for (let i = 0; i < 100 && first!.machine.disk.logState?.confirmed.txid !== 1; i++) await this.#pass(100);
    for (const site of others) {
      site.machine.restore(first!.machine.disk);
      this.#start(site);
    }
    await this.#pass(2_000);
  }

  async #pass(ms: number): Promise<void> {
    const untilMs = this.clock.now() + ms;
    while (this.clock.now() < untilMs) {
      await this.clock.advance(Math.min(50, untilMs - this.clock.now()));
      this.#check();
    }
  }

  #act(): void {
    const { random } = this;
    const sites = [...this.sites.values()];
    const site = sites[random.below(sites.length)]!;
    const dice = random.next();
    if (dice < 0.45) for (const each of sites) this.#write(each);
    else if (dice < 0.5) this.#kill(site);
    else if (dice < 0.6) this.#start(site);
    else if (dice < 0.67) this.#pause(site);
    else if (dice < 0.75) this.#resume(site);
    else if (dice < 0.81) site.reach = (["none", "requests", "none"] as const)[random.below(3)]!;
    else if (dice < 0.87) for (const each of sites) each.reach = "both";
    else if (dice < 0.88) site.machine.disk.isFull = !site.machine.disk.isFull;
    else if (dice < 0.89) site.machine.aheadMs += random.below(20_000) - 10_000;
    else if (dice < 0.95) site.machine.isWriting = site.machine.isOpen;
    else site.machine.isWriting = false;
  }

  async #heal(): Promise<void> {
    const { latencyMs } = this.bucket.faults;
    this.bucket.faults = { ...CALM, latencyMs: Math.min(latencyMs, 50) };
    const sites = [...this.sites.values()];
    for (const site of sites) {
      site.reach = "both";
      site.machine.disk.isFull = false;
      site.machine.isWriting = false;
      this.#resume(site);
      this.#start(site);
    }
    this.note("healed");
    const told = this.acknowledged.length;
    await this.#until("a last commit is acknowledged", () => {
      const leader = sites.find(({ machine, node }) => node?.roles.state === "leading" && machine.isOpen);
      if (leader !== undefined && this.acknowledged.length === told) this.#write(leader);
      return leader !== undefined && this.acknowledged.length > told;
    });
    await this.#until("everybody has everything", () => {
      const { position } = this.history.records().at(-1)!.fields;
      return sites.every(({ machine }) => machine.disk.position === position);
    });
  }

  /** Liveness: within a bound, once nothing goes wrong any more. */
  async #until(what: string, isTrue: () => boolean): Promise<void> {
    const lateMs = this.clock.now() + HEALED_MS;
    while (!isTrue()) {
      if (this.clock.now() > lateMs) throw new Error(`not within ${HEALED_MS} ms: ${what}; ${this.#states()}`);
      await this.#pass(200);
    }
  }

  #states(): string {
    return [...this.sites.values()]
      .map(({ machine, node }) => {
        const error = node?.database.failure;
        return `${machine.name} ${node?.roles.state} ${node?.database.state} ${error === undefined ? "" : String(error)}`;
      })
      .join(", ");
  }

  #start(site: Site): void {
    if (site.node !== undefined) return;
    const { variant } = this.#options;
    const { machine } = site;
    const name = `${machine.name}/${++site.lives}`;
    const clock = new LifeClock(this.clock, () => machine.aheadMs);
    const client = this.bucket.client(name, clock);
    const store = variant?.store?.(client, this) ?? client;
    const parts: NodeParts = {
      name,
      machine,
      clock,
      random: this.random,
      store,
      onNamed: (position, pages) => this.#attempt(() => this.history.named(position, pages)),
      onLeft: (from, to, isQuarantined) => this.#attempt(() => this.#left(name, from, to, isQuarantined)),
      onState: (state) => this.note(name, state),
      onProblem: (error) => this.note(name, "problem", isSluiceError(error) ? error.code : String(error)),
      onRefused: (error) => void (this.failure ??= error),
      peers: () => alone,
    };
    const node = new SimNode(variant?.parts?.(parts, this) ?? parts);
    machine.onOpened = () => this.#attempt(() => this.#opened(node));
    site.node = node;
    this.note(name, "starts");
    node.start();
  }

  /** SIGKILL; the guardian ends the application. */
  #kill(site: Site): void {
    const { node, machine } = site;
    if (node === undefined) return;
    this.note(node.name, "killed");
    node.clock.kill();
    machine.killApplication();
    machine.closeGate();
    site.node = undefined;
  }

  /** SIGSTOP of Sluice, not of its application. */
  #pause({ node }: Site): void {
    if (node === undefined || node.clock.isPaused) return;
    this.note(node.name, "paused");
    node.clock.pause();
  }

  #resume({ node }: Site): void {
    if (node === undefined || !node.clock.isPaused) return;
    this.note(node.name, "resumed");
    node.clock.resume();
  }

  /** The application replaces one page, or adds one; the content is the number of the commit. */
  #write({ machine, node }: Site): void {
    if (!machine.isOpen) return;
    const { disk } = machine;
    const count = disk.pages.size;
    const grows = disk.wal.length === 0 && count < 10 && this.random.chance(0.2);
    const pages: Pages = new Map();
    for (const target of grows ? [1, count + 1] : [1, 1 + this.random.below(count)]) {
      const page = new Uint8Array(PAGE_SIZE);
      new DataView(page.buffer).setUint32(0, ++this.counts.commits);
      pages.set(target, page);
    }
    machine.commit(pages);
    if (node?.isAwake === true) node.database.captureNow();
    if (this.random.chance(0.5)) this.#wait({ machine, node });
  }

  /** A client waits until what is committed now is in the log. */
  #wait({ machine, node }: Pick<Site, "machine" | "node">): void {
    if (node?.isAwake !== true || !machine.isOpen) return;
    const position = node.database.captureNow();
    if (position === undefined || position === NOTHING) return;
    const told = (): void => {
      this.note(node.name, "acknowledges", position);
      this.counts.acknowledged++;
      this.acknowledged.push({ position, client: node.name });
      this.#attempt(() => this.history.checkConfirmed(position, node.name));
    };
    node.database.waitDurable(position, "store", node.clock.timeout(20_000)).then(told, () => undefined);
  }

  /** Invariant 5: a takeover of its own, in the log, under a lease that is held by the own clock. */
  #opened(node: SimNode): void {
    this.note(node.name, "opens its gate");
    this.counts.takeovers++;
    const epoch = node.database.writer?.epoch ?? 0;
    const record = this.history.records()[epoch - 1];
    if (record?.fields.epoch !== epoch || record.client !== node.name) {
      throw new Error(`${node.name} opens its gate; its takeover ${epoch} is not in the log`);
    }
    if (!node.keeper.isHeld()) throw new Error(`${node.name} opens its gate without the lease`);
  }

  /** Invariant 10: commits that leave a database's history are in the quarantine first. */
  #left(who: string, from: Position, to: Position, isQuarantined: boolean): void {
    this.note(who, "goes from", from, "to", to, isQuarantined);
    if (isQuarantined) this.counts.left++;
    if (isQuarantined || from === NOTHING) return;
    const ended = this.history.records().find(({ fields }) => fields.epoch > epochOf(from));
    if (ended === undefined || from <= ended.fields.position) return;
    throw new Error(`${who}: ${formatPosition(from)} left the history and is in no quarantine`);
  }

  #check(): void {
    if (this.failure !== undefined) throw this.failure;
    this.history.records();
    let leaders = 0;
    for (const { machine, node } of this.sites.values()) {
      if (node?.isAwake !== true) continue;
      const isLate = node.keeper.deadlineMs + 2 < node.clock.bootMs();
      if (machine.isOpen && node.roles.state === "leading" && isLate) {
        throw new Error(`${node.name} leads behind an open gate, and its lease is over`);
      }
      if (machine.isOpen && node.roles.state === "following")
        throw new Error(`${node.name} follows behind an open gate`);
      if (node.keeper.isHeld() && this.#holder !== machine.name) {
        throw new Error(`${node.name} counts on the lease, which is ${this.#holder}'s`);
      }
      if (node.roles.reign !== undefined) leaders++;
    }
    if (leaders > 1) throw new Error("two nodes lead at once");
    if ([...this.sites.values()].filter(({ machine }) => machine.isOpen).length > 1) this.counts.twoGates++;
  }

  #checkEnd(): void {
    const records = this.history.records();
    for (const { position, client } of this.acknowledged) this.history.checkConfirmed(position, client);
    this.history.checkRestorable();
    this.history.checkFences();
    const last = records.at(-1)!;
    for (const { machine } of this.sites.values()) {
      for (const [page, content] of last.pages) {
        if (Buffer.compare(content, machine.disk.pages.get(page)!) !== 0) throw new Error(`${machine.name} differs`);
      }
    }
  }

  #attempt(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.failure ??= error;
    }
  }
}

const CALM: Faults = { lostAnswer: 0, lostRequest: 0, late: 0, twice: 0, read: 0, lateMs: 0, latencyMs: 20 };

const LEASE = "lease.json";

function leaseHolder(bucket: SimBucket): string {
  const { bytes } = bucket.objects.get(LEASE)!;
  const { nodeId, released } = JSON.parse(Buffer.from(bytes).toString()) as { nodeId: string; released?: true };
  return released === true ? "" : nodeId;
}

/** Each seed has a store of its own kind. */
function roughness(random: Random): Faults {
  const share = (most: number): number => (random.chance(0.4) ? 0 : random.next() * most);
  return {
    lostAnswer: share(0.15),
    lostRequest: share(0.15),
    late: share(0.15),
    twice: share(0.15),
    read: share(0.15),
    lateMs: 60_000,
    latencyMs: random.chance(0.2) ? TTL_MS / 2 : 10 + random.below(200),
  };
}

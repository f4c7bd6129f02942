import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { isSluiceError } from "../../../src/errors/error.ts";
import { NOTHING, epochOf, formatPosition, type Position } from "../../../src/ltx/position.ts";
import { LifeClock, Random, VirtualClock } from "../../log/sim/clock.ts";
import { PAGE_SIZE } from "../../log/sim/database.ts";
import { History } from "../../log/sim/history.ts";
import type { Pages } from "../../log/sim/ltx.ts";
import { type Faults, SimBucket } from "../../log/sim/store.ts";
import { Clients } from "./clients.ts";
import { Disturbances, type Site } from "./disturbances.ts";
import { Gains } from "./gains.ts";
import { Machine } from "./machine.ts";
import { SimNetwork } from "./network.ts";
import { SimNode, TTL_MS } from "./node.ts";

export interface WorldOptions {
  readonly seed: number;
}

/** Nobody needs the files after a power loss. */
const MEMORY = "/dev/shm";

const NAMES = ["a", "b", "c", "d", "e"];
/** What must come true when nothing goes wrong any more does so within this. */
const HEALED_MS = 60_000;

/** Over a network that is slower than this a winner need not get what others have in time. */
const SLOW_MS = 50;

/** Three nodes or five, their disks, clocks, network and store, and everything that may happen to them; the same for the same seed. */
export class ClusterWorld {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly bucket: SimBucket;
  readonly network: SimNetwork;
  readonly history: History;
  readonly clients: Clients;
  readonly gains = new Gains();
  readonly sites = new Map<string, Site>();
  readonly counts = { commits: 0, takeovers: 0, twoGates: 0, left: 0, forced: 0 };
  failure: unknown;
  readonly #disturbances: Disturbances;
  /** Records that were looked at. */
  #checked = 0;
  /** The machine that the lease names now. */
  #holder = "";
  #logId = "";
  /** Somebody says that what members alone had is lost: any node may take over. */
  #isForced = false;
  /** How often a node is struck when it has just acknowledged what isn't in the log. */
  #malice = 0;
  readonly #dir = mkdtempSync(path.join(existsSync(MEMORY) ? MEMORY : tmpdir(), "sluice-cluster-sim-"));
  readonly #trace = createHash("sha256");
  /** The last of what happened, for whoever looks at a failing seed. */
  readonly recent: string[] = [];

  constructor(options: WorldOptions) {
    this.random = new Random(options.seed);
    this.bucket = new SimBucket(this.clock, this.random);
    this.bucket.reach = (client) => this.sites.get(client.split("/")[0]!)!.reach;
    this.history = new History(this.bucket);
    this.network = new SimNetwork(this.random);
    this.clients = new Clients(this.history);
    this.bucket.onChange = (key) => {
      this.note("store", key);
      if (key === LEASE) this.#holder = leaseHolder(this.bucket);
    };
    for (const name of NAMES.slice(0, this.random.chance(0.6) ? 3 : 5)) {
      const machine = new Machine(name, path.join(this.#dir, name));
      this.sites.set(name, { machine, node: undefined, lives: 0, reach: "both" });
    }
    const { clock, random, network, gains } = this;
    const note = this.note.bind(this);
    this.#disturbances = new Disturbances({ clock, random, network, gains, note, sites: [...this.sites.values()] });
  }

  /** What has happened, by kind. */
  get totals() {
    const { gains, clients } = this;
    const { handovers, lostDisks } = this.#disturbances;
    return { ...this.counts, ...clients.counts, handovers, lostDisks, gains: gains.count };
  }

  /** Of everything that has happened, in order. */
  get trace(): string {
    return this.#trace.copy().digest("hex");
  }

  dispose(): void {
    for (const site of this.sites.values()) this.#disturbances.kill(site);
    rmSync(this.#dir, { recursive: true, force: true });
  }

  /** Begins a log, lets `steps` things happen, heals everything, and checks what is left. */
  async run(steps: number): Promise<void> {
    await this.#begin();
    this.bucket.faults = roughness(this.random);
    this.network.latencyMs = this.random.chance(0.2) ? 400 : 1 + this.random.below(30);
    this.#malice = this.random.chance(0.5) ? 0 : 0.2 * this.random.next();
    const deeds = this.#disturbances.deeds(
      (site) => this.#start(site),
      (site) => this.#write(site),
      (site) => this.#restore(site),
    );
    for (let step = 0; step < steps; step++) {
      deeds.next();
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
    this.#logId = first!.machine.disk.logState!.logId;
    for (const site of others) {
      this.#restore(site);
      this.#start(site);
    }
    await this.#pass(2_000);
  }

  #restore({ machine }: Site): void {
    machine.restore(this.history.records().at(-1)!, this.#logId);
  }

  async #pass(ms: number): Promise<void> {
    const untilMs = this.clock.now() + ms;
    while (this.clock.now() < untilMs) {
      await this.clock.advance(Math.min(50, untilMs - this.clock.now()));
      this.#check();
    }
  }

  async #heal(): Promise<void> {
    const { latencyMs } = this.bucket.faults;
    this.#malice = 0;
    this.bucket.faults = { ...CALM, latencyMs: Math.min(latencyMs, 50) };
    this.#disturbances.rejoin();
    this.network.latencyMs = 5;
    const sites = [...this.sites.values()];
    for (const site of sites) {
      site.reach = "both";
      site.machine.disk.isFull = false;
      site.machine.isWriting = false;
      this.#disturbances.resume(site);
      this.#start(site);
    }
    this.note("healed");
    if (this.#disturbances.lostDisks > 0) await this.#leadOrForce(sites);
    const told = this.clients.count;
    await this.#until("a last commit is acknowledged", () => {
      const leader = sites.find(({ machine, node }) => node?.roles.state === "leading" && machine.isOpen);
      if (leader !== undefined && this.clients.count === told) this.#write(leader);
      return leader !== undefined && this.clients.count > told;
    });
    await this.#until("everybody has everything", () => {
      const { position } = this.history.records().at(-1)!.fields;
      return sites.every(({ machine }) => machine.disk.position === position);
    });
  }

  /** Members of the last record may have lost their disks, and its writer: then an operator decides. */
  async #leadOrForce(sites: readonly Site[]): Promise<void> {
    for (let waitedMs = 0; waitedMs < HEALED_MS / 2; waitedMs += 1_000) {
      if (sites.some(({ node }) => node?.roles.state === "leading")) return;
      await this.#pass(1_000);
    }
    this.note("forced");
    this.counts.forced++;
    this.#isForced = true;
    this.clients.forced();
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
    const { machine } = site;
    const name = `${machine.name}/${++site.lives}`;
    const clock = new LifeClock(this.clock, () => machine.aheadMs);
    const node = new SimNode({
      name,
      machine,
      clock,
      random: this.random,
      store: this.bucket.client(name, clock),
      network: this.network,
      onNamed: (position, pages) => this.#attempt(() => this.history.named(position, pages)),
      onLeft: (from, to, isQuarantined) => this.#attempt(() => this.#left(name, from, to, isQuarantined)),
      onState: (state) => {
        this.note(name, state);
        if (state === "taking-over") this.#takesOver(node);
      },
      onProblem: (error) => this.note(name, "problem", isSluiceError(error) ? error.code : String(error)),
      isForced: () => this.#isForced,
      onRefused: (error) => void (this.failure ??= error),
    });
    machine.onOpened = () => this.#attempt(() => this.#opened(node));
    site.node = node;
    this.gains.trouble(this.clock.now(), machine.name, NAMES);
    this.note(name, "starts");
    node.start();
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
    if (this.random.chance(0.7)) this.#wait({ machine, node });
  }

  /** A client waits until what is committed now is durable. */
  #wait({ machine, node }: Pick<Site, "machine" | "node">): void {
    if (node?.isAwake !== true || !machine.isOpen) return;
    const position = node.database.captureNow();
    if (position === undefined || position === NOTHING) return;
    const level = this.random.chance(0.4) ? "store" : "replica";
    const told = (): void => {
      this.note(node.name, "acknowledges", position, level);
      const isEarly = !this.history.reaches(position);
      this.#attempt(() => this.clients.told({ position, level, client: node.name }));
      if (isEarly && this.random.chance(this.#malice)) this.#disturbances.strike(this.sites.get(machine.name)!);
    };
    node.database.waitDurable(position, level, node.clock.timeout(20_000)).then(told, () => undefined);
  }

  #takesOver(node: SimNode): void {
    const others = [...this.sites.values()].flatMap((site) => (site.node?.isAwake === true ? [site.node] : []));
    const { name } = node.machine;
    const isMet = ({ machine: other }: SimNode): boolean =>
      other.name !== name && this.network.reach(name, other.name) && this.network.reach(other.name, name);
    const isSlow = this.network.latencyMs > SLOW_MS || node.machine.disk.isFull;
    const last = this.history.records().at(-1);
    if (isSlow || last === undefined) return;
    this.gains.begins(this.clock.now(), node, others.filter(isMet), last);
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
    const records = this.history.records();
    for (const record of records.slice(this.#checked)) {
      if (record.fields.epoch !== record.txid) continue;
      this.clients.check();
      this.gains.ends(this.clock.now(), record);
    }
    this.#checked = records.length;
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
    this.clients.checkEnd();
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

import type { Random, VirtualClock } from "../../log/sim/clock.ts";
import type { Reach } from "../../log/sim/store.ts";
import { type Deed, Deeds } from "./deeds.ts";
import type { Gains } from "./gains.ts";
import type { Machine } from "./machine.ts";
import type { SimNetwork } from "./network.ts";
import type { SimNode } from "./node.ts";

/** A machine, and the life of Sluice on it. */
export interface Site {
  readonly machine: Machine;
  node: SimNode | undefined;
  lives: number;
  /** Its way to the store. */
  reach: Reach;
}

export interface Surroundings {
  readonly clock: VirtualClock;
  readonly random: Random;
  readonly network: SimNetwork;
  readonly gains: Gains;
  readonly sites: readonly Site[];
  readonly note: (...what: readonly (string | number | bigint | boolean)[]) => void;
}

/** Everything that is done to machines, processes and ways. */
export class Disturbances {
  readonly #around: Surroundings;
  handovers = 0;
  lostDisks = 0;

  constructor(around: Surroundings) {
    this.#around = around;
  }

  /** What happens in a seed. The world starts a node, writes to its database, and restores one that has lost its disk. */
  deeds(start: (site: Site) => void, write: (site: Site) => void, restore: (site: Site) => void): Deeds {
    const { random, sites } = this.#around;
    const one = (): Site => sites[random.below(sites.length)]!;
    // What happens to who leads matters most.
    const leader = (): Site => (random.chance(0.5) ? sites.find(leads) : undefined) ?? one();
    const remedies: Deed[] = [
      [45, () => sites.forEach(write)],
      [12, () => start(one())],
      [12, () => this.resume(one())],
      [8, () => sites.forEach((site) => (site.reach = "both"))],
      [10, () => this.rejoin()],
      [3, () => (one().machine.isWriting = false)],
      [1, () => (one().machine.disk.isFull = false)],
    ];
    const faults: Deed[] = [
      [5, () => this.kill(leader())],
      [5, () => this.#pause(leader())],
      [5, () => (leader().reach = random.chance(0.3) ? "requests" : "none")],
      [5, () => this.#cut(leader())],
      [5, () => this.#split()],
      [1, () => this.#reset()],
      [1, () => this.#fill(one())],
      [0.5, () => this.#loseDisk(one(), restore)],
      [1, () => (one().machine.aheadMs += random.below(20_000) - 10_000)],
      [2, () => this.#handOver()],
      [2, () => this.#restartWal(one())],
      [3, () => this.#hold(one())],
    ];
    return new Deeds(random, remedies, faults);
  }

  /** At the worst moment: a node that has just told a client yes dies, or gets no further word out. */
  strike(site: Site): void {
    const { random, network, sites, note } = this.#around;
    if (random.chance(0.5)) return this.kill(site);
    note(site.machine.name, "is alone");
    site.reach = "none";
    this.#trouble(site.machine);
    for (const { machine } of sites) network.cut(site.machine.name, machine.name);
  }

  /** SIGKILL; the guardian ends the application. */
  kill(site: Site): void {
    const { node, machine } = site;
    if (node === undefined) return;
    this.#around.note(node.name, "killed");
    this.#trouble(machine);
    node.clock.kill();
    this.#around.network.killed(node.clock);
    machine.killApplication();
    machine.closeGate();
    site.node = undefined;
  }

  resume({ node, machine }: Site): void {
    if (node === undefined || !node.clock.isPaused) return;
    this.#trouble(machine);
    this.#around.note(node.name, "resumed");
    node.clock.resume();
  }

  /** No way between nodes is cut any more. */
  rejoin(): void {
    const { network, sites, gains, clock } = this.#around;
    for (const one of sites.map(({ machine }) => machine.name)) {
      const others = sites.map(({ machine }) => machine.name).filter((other) => !network.reach(one, other));
      gains.trouble(clock.now(), one, others);
    }
    network.heal();
  }

  /** SIGSTOP of Sluice, not of its application. */
  #pause({ node, machine }: Site): void {
    if (node === undefined || node.clock.isPaused) return;
    this.#trouble(machine);
    this.#around.note(node.name, "paused");
    node.clock.pause();
  }

  /** Between two machines one way or both, or between one and all others. */
  #cut({ machine: { name } }: Site): void {
    const { random, network, sites, gains, clock, note } = this.#around;
    const isAlone = random.chance(0.3);
    const isOneWay = random.chance(0.4);
    const others = sites.map(({ machine }) => machine.name).filter((other) => other !== name);
    for (const other of isAlone ? others : [others[random.below(others.length)]!]) {
      note("cut", name, other, isOneWay);
      gains.trouble(clock.now(), name, [other]);
      network.cut(name, other);
      if (!isOneWay) network.cut(other, name);
    }
  }

  /** All ways between two groups are cut; the store is on the side of the first. */
  #split(): void {
    const { random, network, sites, note } = this.#around;
    const far = sites.filter(() => random.chance(0.5));
    const isOneWay = random.chance(0.2);
    note("split", ...far.map(({ machine }) => machine.name), isOneWay);
    for (const away of far) {
      away.reach = isOneWay ? "requests" : "none";
      this.#trouble(away.machine);
      for (const near of sites) {
        if (far.includes(near)) continue;
        network.cut(near.machine.name, away.machine.name);
        if (!isOneWay) network.cut(away.machine.name, near.machine.name);
      }
    }
  }

  #reset(): void {
    this.#around.network.reset(0.5);
    for (const { machine } of this.#around.sites) this.#trouble(machine);
  }

  #fill({ machine }: Site): void {
    machine.disk.isFull = true;
    this.#trouble(machine);
  }

  #loseDisk(site: Site, restore: (site: Site) => void): void {
    this.kill(site);
    this.#around.note(site.machine.name, "loses its disk");
    this.lostDisks++;
    restore(site);
  }

  /** A transaction stays open. */
  #hold({ machine }: Site): void {
    machine.isWriting = machine.isOpen;
  }

  #restartWal({ node }: Site): void {
    if (node?.isAwake === true) node.engine?.database?.restartWal();
  }

  /** Somebody asks the primary to hand over. */
  #handOver(): void {
    const { sites, note } = this.#around;
    const ask = async (node: SimNode): Promise<void> => {
      note(node.name, "is to hand over");
      try {
        await node.roles.handOver();
        note(node.name, "has handed over");
        this.handovers++;
      } catch (error) {
        note(node.name, "keeps it", String(error));
      }
    };
    for (const site of sites) if (leads(site)) void ask(site.node!);
  }

  #trouble({ name }: Machine): void {
    const { gains, clock, sites } = this.#around;
    const others = sites.map(({ machine }) => machine.name);
    gains.trouble(clock.now(), name, others);
  }
}

function leads({ node }: Site): boolean {
  return node?.isAwake === true && node.roles.state === "leading";
}

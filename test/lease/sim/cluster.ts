import type { LeaseKeeper } from "../../../src/lease/keeper.ts";
import type { KeeperOptions } from "../../../src/lease/keeper-types.ts";
import { FaultyRegister, noFaults, SharedRecord, type Faults } from "./register.ts";
import { Machine, World } from "./world.ts";

export type KeeperClass = new (options: KeeperOptions) => LeaseKeeper;

const NODES = ["a", "b", "c"];

interface Life {
  readonly id: string;
  readonly machine: Machine;
  readonly register: FaultyRegister;
  readonly keeper: LeaseKeeper;
  readonly marginMs: number;
  /** Between `acquired` and `lost`. */
  life: string | undefined;
  /** Has been told to give up. */
  isLeaving: boolean;
}

/**
 * Three nodes that all want the lease, and everything that can go wrong. Checks after each event that nobody counts on
 * the lease while the record is another's, that `acquired` and `lost` take turns, and at the end that one holds it.
 */
export class SimulatedCluster {
  readonly world: World;
  readonly shared = new SharedRecord();
  readonly violations: string[] = [];
  acquisitions = 0;
  readonly #lives = new Map<string, Life>();
  readonly #Keeper: KeeperClass;
  readonly #faults: Faults;
  #isCalm = false;

  constructor(seed: number, Keeper: KeeperClass) {
    this.world = new World(seed);
    this.#Keeper = Keeper;
    const { random } = this.world;
    const share = (most: number): number => (random() < 0.3 ? 0 : random() * most);
    this.#faults = {
      lost: share(0.3),
      duplicated: share(0.5),
      errors: share(0.3),
      slow: share(0.5),
      slowMs: 200 + random() * 8_000,
    };
    for (const id of NODES) this.#start(id);
    this.world.onEvent = () => this.#check();
    for (const id of NODES) this.#trouble(id);
  }

  async run(): Promise<void> {
    await this.world.runUntil(50_000);
    this.#isCalm = true;
    for (const life of this.#lives.values()) {
      life.register.faults = noFaults;
      life.machine.pausedUntilMs = Math.min(life.machine.pausedUntilMs, this.world.nowMs);
    }
    await this.world.runUntil(80_000);
    const holders = [...this.#lives.values()].filter(({ keeper }) => keeper.isHeld());
    if (holders.length !== 1) this.#violated(`${holders.length} holders after everything was well again`);
    for (const { machine } of this.#lives.values()) machine.isDead = true;
  }

  #start(id: string): void {
    const machine = new Machine(this.world);
    const register = new FaultyRegister(this.world, machine, this.shared, this.#isCalm ? noFaults : this.#faults);
    const ttlMs = id === "c" ? 3_000 : 5_000;
    const marginMs = ttlMs / 5;
    let isWanting = false;
    const want = (): void => {
      if (isWanting) return;
      isWanting = true;
      void keeper.acquire().then(() => (isWanting = false));
    };
    const keeper: LeaseKeeper = new this.#Keeper({
      register,
      node: { id, name: id, advertise: `http://${id}` },
      ttlMs,
      marginMs,
      clock: machine,
      isOnlyLife: true,
      random: this.world.random,
      events: {
        acquired: (grant) => {
          if (life.life !== undefined) this.#violated(`${id} acquired twice`);
          life.life = grant.life;
          life.isLeaving = false;
          this.acquisitions++;
        },
        lost: () => {
          if (life.life === undefined) this.#violated(`${id} lost what it had not`);
          life.life = undefined;
          machine.schedule(this.world.random() * 3_000, want);
        },
      },
    });
    const life: Life = { id, machine, register, keeper, marginMs, life: undefined, isLeaving: false };
    this.#lives.set(id, life);
    keeper.start();
    want();
  }

  /** Something happens to a node, again and again. */
  #trouble(id: string): void {
    this.world.at(this.world.random() * 6_000, () => {
      if (this.#isCalm) return;
      const { random } = this.world;
      const life = this.#lives.get(id)!;
      const what = random();
      if (what < 0.35) life.machine.pausedUntilMs = this.world.nowMs + random() * 9_000;
      else if (what < 0.5) {
        life.machine.isDead = true;
        this.#start(id);
      } else if (life.machine.pausedUntilMs <= this.world.nowMs && life.keeper.isHeld()) {
        const successor = NODES[Math.floor(random() * NODES.length)]!;
        if (what < 0.6) this.#leave(life, () => life.keeper.release());
        else if (what < 0.8 && successor !== id) this.#leave(life, () => life.keeper.handOver(successor));
      }
      this.#trouble(id);
    });
  }

  #leave(life: Life, leave: () => Promise<unknown>): void {
    life.isLeaving = true;
    void leave();
  }

  #check(): void {
    const writer = this.shared.current?.record.life;
    for (const { id, machine, keeper, marginMs, life, isLeaving } of this.#lives.values()) {
      const isPaused = machine.pausedUntilMs > this.world.nowMs;
      // A paused process can be looked into, but not asked.
      const counts = isPaused ? life !== undefined && !isLeaving : keeper.isHeld();
      if (!isPaused && counts && life === undefined) this.#violated(`${id} holds without having acquired`);
      const isWithinMargin = keeper.deadlineMs + marginMs > machine.bootMs() && !isLeaving;
      if ((isPaused ? counts && isWithinMargin : counts || isWithinMargin) && writer !== life) {
        this.#violated(`${id} counts on the lease, which is another's`);
      }
    }
  }

  #violated(what: string): void {
    this.violations.push(`${Math.round(this.world.nowMs)} ms: ${what}`);
  }
}

import type { LeaseClock } from "../../../src/lease/clock.ts";

/** Numbers from a seed (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Event {
  atMs: number;
  readonly order: number;
  readonly machine: Machine | undefined;
  readonly run: () => void;
}

/** Simulated time: events in order, one at a time, and what they set off is done before the next. */
export class World {
  nowMs = 0;
  readonly random: () => number;
  /** Called after each event. */
  onEvent: () => void = () => undefined;
  readonly #events: Event[] = [];
  #order = 0;

  constructor(seed: number) {
    this.random = seeded(seed);
  }

  /** Something on a machine waits while it is paused and is lost when it crashes; the network's own goes on. */
  at(delayMs: number, run: () => void, machine?: Machine): () => void {
    const event: Event = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order++, machine, run };
    this.#insert(event);
    return () => {
      const index = this.#events.indexOf(event);
      if (index !== -1) this.#events.splice(index, 1);
    };
  }

  async runUntil(endMs: number): Promise<void> {
    for (let next = this.#events[0]; next !== undefined && next.atMs <= endMs; next = this.#events[0]) {
      this.#events.shift();
      this.nowMs = next.atMs;
      const { machine } = next;
      if (machine?.isDead) continue;
      if (machine !== undefined && machine.pausedUntilMs > this.nowMs) {
        next.atMs = machine.pausedUntilMs;
        this.#insert(next);
        continue;
      }
      next.run();
      await new Promise((resolve) => setImmediate(resolve));
      this.onEvent();
    }
    this.nowMs = endMs;
  }

  #insert(event: Event): void {
    const isLater = (other: Event): boolean =>
      other.atMs > event.atMs || (other.atMs === event.atMs && other.order > event.order);
    const index = this.#events.findIndex(isLater);
    this.#events.splice(index === -1 ? this.#events.length : index, 0, event);
  }
}

/** One life of a process: its clocks run at the world's rate from an offset of their own. */
export class Machine implements LeaseClock {
  pausedUntilMs = 0;
  isDead = false;
  /** For how long the boot clock has stood still, as in a machine that was moved. */
  stoodStillMs = 0;
  readonly world: World;
  readonly offsetMs: number;

  constructor(world: World) {
    this.world = world;
    this.offsetMs = Math.floor(world.random() * 1e6);
  }

  bootMs(): number {
    return this.world.nowMs + this.offsetMs - this.stoodStillMs;
  }

  wallMs(): number {
    return this.world.nowMs + 1.7e12;
  }

  schedule(delayMs: number, run: () => void): () => void {
    if (!Number.isFinite(delayMs)) return () => undefined;
    return this.world.at(delayMs, run, this);
  }
}

import type { LeaseClock } from "../../../src/lease/clock.ts";
import type { Clock } from "../../../src/log/clock.ts";

interface Timer {
  readonly atMs: number;
  readonly order: number;
  run: (() => void) | undefined;
}

/** Time that stands still until somebody turns it; every timer of a simulation hangs on one of these. */
export class VirtualClock implements Clock {
  #nowMs = Date.UTC(2026, 0, 1);
  #order = 0;
  #timers: Timer[] = [];

  now(): number {
    return this.#nowMs;
  }

  elapsedMs(): number {
    return this.#nowMs;
  }

  timeout(delayMs: number): AbortSignal {
    return timeout(this, delayMs);
  }

  schedule(delayMs: number, run: () => void): () => void {
    const timer: Timer = { atMs: this.#nowMs + Math.max(0, Math.ceil(delayMs)), order: this.#order++, run };
    let at = this.#timers.length;
    while (at > 0 && this.#timers[at - 1]!.atMs > timer.atMs) at--;
    this.#timers.splice(at, 0, timer);
    return () => {
      timer.run = undefined;
      const at = this.#timers.indexOf(timer);
      if (at >= 0) this.#timers.splice(at, 1);
    };
  }

  /** Timers that are set. */
  get pending(): number {
    return this.#timers.length;
  }

  /** Turns the clock to the next timer; false when there's none. */
  async step(): Promise<boolean> {
    await settle();
    const next = this.#timers.shift();
    if (next === undefined) return false;
    this.#nowMs = next.atMs;
    next.run?.();
    await settle();
    return true;
  }

  /** Turns the clock to each timer in turn, up to `untilMs`; between two, everything that runs is let run. */
  async runUntil(untilMs: number): Promise<void> {
    await settle();
    for (let next = this.#timers[0]; next !== undefined && next.atMs <= untilMs; next = this.#timers[0]) {
      this.#timers.shift();
      this.#nowMs = next.atMs;
      next.run?.();
      await settle();
    }
    this.#nowMs = Math.max(this.#nowMs, untilMs);
  }

  async advance(ms: number): Promise<void> {
    await this.runUntil(this.#nowMs + ms);
  }
}

/** The clock of one process, which may be paused or killed: its timers then fire later, or never. */
export class LifeClock implements Clock, LeaseClock {
  readonly #world: VirtualClock;
  /** The machine's wall clock, against the true one. */
  readonly #aheadMs: () => number;
  #held: (() => void)[] | undefined;
  #dead = false;

  constructor(world: VirtualClock, aheadMs: () => number = () => 0) {
    this.#world = world;
    this.#aheadMs = aheadMs;
  }

  now(): number {
    return this.#world.now() + this.#aheadMs();
  }

  elapsedMs(): number {
    return this.#world.now();
  }

  bootMs(): number {
    return this.#world.now();
  }

  wallMs(): number {
    return this.now();
  }

  timeout(delayMs: number): AbortSignal {
    return timeout(this, delayMs);
  }

  get isAlive(): boolean {
    return !this.#dead;
  }

  get isPaused(): boolean {
    return this.#held !== undefined;
  }

  schedule(delayMs: number, run: () => void): () => void {
    let cancelled = false;
    const fire = (): void => {
      if (cancelled || this.#dead) return;
      if (this.#held !== undefined) this.#held.push(fire);
      else run();
    };
    const cancel = this.#world.schedule(delayMs, fire);
    return () => {
      cancelled = true;
      cancel();
    };
  }

  kill(): void {
    this.#dead = true;
  }

  pause(): void {
    this.#held ??= [];
  }

  resume(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const fire of held) fire();
  }
}

function timeout(clock: Clock, delayMs: number): AbortSignal {
  const controller = new AbortController();
  clock.schedule(delayMs, () => controller.abort(new DOMException("late", "TimeoutError")));
  return controller.signal;
}

/** Waits until no file operation is under way and all that follows from the last ones has run. */
async function settle(): Promise<void> {
  for (let quiet = 0; quiet < 3;) {
    await new Promise((resolve) => setImmediate(resolve));
    const busy = process.getActiveResourcesInfo().some((resource) => /^(FS|FILE|Close|Immediate)/i.test(resource));
    quiet = busy ? 0 : quiet + 1;
  }
}

/** A small seeded generator (mulberry32). */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** 0 ≤ x < 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** 0 … n − 1. */
  below(n: number): number {
    return Math.floor(this.next() * n);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  u64(): bigint {
    return (BigInt(this.below(2 ** 32)) << 32n) | BigInt(this.below(2 ** 32)) | 1n;
  }
}

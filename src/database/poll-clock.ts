/** Every member is polled once in this time. */
const POLL_MS = 240;
/** Members that share one tick before the clock ticks more often: bounds the work of one tick. */
const PER_TICK = 100;
const CALM = 32;

/**
 * One timer for the slow polls of all databases of the process (protocol section 3): with many databases each tick
 * polls a part of them, so that no tick is long.
 */
class PollClock {
  readonly #members: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #tickMs = 0;
  #next = 0;

  /** Calls `poll` about every POLL_MS until the returned function is called. `poll` must not throw. */
  join(poll: () => void): () => void {
    this.#members.push(poll);
    this.#schedule();
    return () => {
      const at = this.#members.indexOf(poll);
      if (at < 0) return;
      this.#members.splice(at, 1);
      if (at < this.#next) this.#next--;
      this.#schedule();
    };
  }

  /** So few members that a poll may look at everything. */
  get isCalm(): boolean {
    return this.#members.length <= CALM;
  }

  #schedule(): void {
    const ticks = Math.min(24, Math.ceil(this.#members.length / PER_TICK));
    const tickMs = ticks === 0 ? 0 : Math.floor(POLL_MS / ticks);
    if (tickMs === this.#tickMs) return;
    this.#tickMs = tickMs;
    clearInterval(this.#timer);
    this.#timer = tickMs === 0 ? undefined : setInterval(() => this.#tick(), tickMs);
  }

  #tick(): void {
    const count = Math.ceil((this.#members.length * this.#tickMs) / POLL_MS);
    for (let i = 0; i < count; i++) {
      if (this.#next >= this.#members.length) this.#next = 0;
      this.#members[this.#next++]?.();
    }
  }
}

export const pollClock = new PollClock();

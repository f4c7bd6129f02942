import { bootMs } from "./boot-clock.ts";

/** Time and timers of a lease, injected so that tests can turn them. */
export interface LeaseClock {
  /** ms since some fixed moment, by a clock that is never set and that goes on while the machine is suspended. */
  bootMs(): number;
  /** Wall-clock time, ms since 1970. Only compared with itself: to notice that the other clock stood still. */
  wallMs(): number;
  /** Calls `run` once after `delayMs`; the returned function calls it off. */
  schedule(delayMs: number, run: () => void): () => void;
}

/** Longest delay of a Node.js timer; a longer one would fire at once. */
const TIMER_MAX_MS = 2 ** 31 - 1;

export const systemLeaseClock: LeaseClock = {
  bootMs,
  wallMs: () => Date.now(),
  schedule: (delayMs, run) => {
    const timer = setTimeout(run, Math.min(Math.max(0, delayMs), TIMER_MAX_MS));
    return () => clearTimeout(timer);
  },
};

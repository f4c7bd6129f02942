import { once } from "node:events";

/** Time and timers, injected so that tests can turn the clock. */
export interface Clock {
  /** Wall-clock time, ms since 1970. */
  now(): number;
  /** ms since some fixed moment, by a clock that nobody sets. */
  elapsedMs(): number;
  /** Calls `run` once after `delayMs`; the returned function calls it off. */
  schedule(delayMs: number, run: () => void): () => void;
  /** Aborted after `delayMs`. Keeps no process alive. */
  timeout(delayMs: number): AbortSignal;
}

/** Longest delay of a Node.js timer; a longer one would fire at once. */
const TIMER_MAX_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  elapsedMs: () => performance.now(),
  schedule: (delayMs, run) => {
    const timer = setTimeout(run, Math.min(delayMs, TIMER_MAX_MS));
    return () => clearTimeout(timer);
  },
  timeout: (delayMs) => AbortSignal.timeout(delayMs),
};

/** Resolves after `delayMs`, or at once when `signal` is aborted. */
export function sleep(clock: Clock, delayMs: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      cancel();
      signal.removeEventListener("abort", done);
      resolve();
    };
    const cancel = clock.schedule(delayMs, done);
    signal.addEventListener("abort", done, { once: true });
  });
}

/** Resolves after `delayMs`; rejects with the reason of `signal`. */
export async function delay(clock: Clock, delayMs: number, signal: AbortSignal = NEVER): Promise<void> {
  await sleep(clock, delayMs, signal);
  signal.throwIfAborted();
}

/** Resolves when `signal` is aborted. */
export async function aborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}

/** Settles as `promise` does, or resolves after `delayMs`. */
export function within<T>(clock: Clock, delayMs: number, promise: Promise<T>): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const cancel = clock.schedule(delayMs, () => late.resolve(undefined));
  return Promise.race([promise, late.promise]).finally(cancel);
}

const NEVER = new AbortController().signal;

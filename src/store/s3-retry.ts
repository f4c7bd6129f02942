import { setTimeout as sleep } from "node:timers/promises";
import { isSluiceError } from "../errors/error.ts";
import { RetryAfter } from "./s3-wire.ts";

const TRIES_MAX = 7;
const FIRST_MS = 100;
const LAST_MS = 5_000;
const ASKED_MS_MAX = 10_000;

/**
 * Runs what may be repeated (reads, listings, deletions, writes without a condition) until it isn't answered with
 * SLU-3101, at most seven times in about seven seconds; the waits double and are shortened by up to half at random.
 */
export async function repeat<T>(signal: AbortSignal | undefined, run: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await run();
    } catch (error) {
      if (!isSluiceError(error, "SLU-3101") || tries === TRIES_MAX) throw error;
      await pause(tries, error, signal);
    }
  }
}

/** Waits after failure number `tries`; throws the signal's reason when it's aborted. */
export async function pause(tries: number, error: Error, signal: AbortSignal | undefined): Promise<void> {
  const asked = error.cause instanceof RetryAfter ? Math.min(error.cause.ms, ASKED_MS_MAX) : 0;
  const own = Math.min(LAST_MS, FIRST_MS * 2 ** (tries - 1)) * (1 - Math.random() / 2);
  await sleep(Math.max(asked, own), undefined, signal && { signal }).catch(() => signal?.throwIfAborted());
}

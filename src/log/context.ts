import { isSluiceError, SluiceError } from "../errors/error.ts";
import type { Position } from "../ltx/position.ts";
import type { ObjectStore } from "../store/store.ts";
import { sleep, systemClock, type Clock } from "./clock.ts";
import { LogLayout } from "./layout.ts";

/** Something that happened to a log, for logs, metrics and the event stream. */
export type LogEvent =
  | { readonly type: "taken-over"; readonly txid: number; readonly position: Position }
  /** A batch is durable on this disk; again when what waits for the log is sealed anew. */
  | { readonly type: "sealed"; readonly txid: number; readonly position: Position; readonly sizeBytes: number }
  | {
      readonly type: "appended";
      readonly txid: number;
      readonly position: Position;
      readonly sizeBytes: number;
      readonly tookMs: number;
    }
  /** A step has no answer yet and is tried again after `delayMs`; `sinceMs` is when it was tried first. */
  | {
      readonly type: "retrying";
      readonly step: string;
      readonly attempt: number;
      readonly sinceMs: number;
      readonly delayMs: number;
      readonly cause: unknown;
    }
  /** The slot belongs to another writer; this one has stopped. */
  | { readonly type: "lost"; readonly txid: number; readonly error: SluiceError }
  | {
      readonly type: "compacted";
      readonly level: number;
      readonly minTxid: number;
      readonly maxTxid: number;
      readonly sizeBytes: number;
      readonly tookMs: number;
    }
  | { readonly type: "snapshot"; readonly txid: number; readonly sizeBytes: number; readonly tookMs: number }
  | { readonly type: "deleted"; readonly level: number; readonly count: number; readonly sizeBytes: number }
  /** Something that a human should know, although Sluice goes on. */
  | { readonly type: "alarm"; readonly error: SluiceError };

/** What every part that writes one log needs. */
export interface LogContext {
  readonly store: ObjectStore;
  readonly layout: LogLayout;
  /** URL of the log without secrets, for messages. */
  readonly url: string;
  readonly clock: Clock;
  /** 0 ≤ x < 1, for jitter. */
  readonly random: () => number;
  readonly onEvent: (event: LogEvent) => void;
}

/** The context of the log in folder `prefix` of `store`; the clock is the system's unless given. */
export function logContext(
  store: ObjectStore,
  options: {
    readonly prefix?: string;
    readonly clock?: Clock;
    readonly random?: () => number;
    readonly onEvent?: (event: LogEvent) => void;
  } = {},
): LogContext {
  const { prefix = "", clock = systemClock, random = Math.random, onEvent = () => undefined } = options;
  const url = prefix === "" ? store.url : `${store.url.replace(/\/$/, "")}/${prefix}`;
  return { store, layout: new LogLayout(store.layout, prefix), url, clock, random, onEvent };
}

const BACKOFF_FIRST_MS = 100;
const BACKOFF_LAST_MS = 5_000;

/**
 * How often a step of the upkeep is tried (20 s or so) before it makes room for other databases' and is begun again
 * later. What is to be appended is tried for ever.
 */
export const UPKEEP_TRIES_MAX = 8;

/** Waits between tries of one step: doubling from 0.1 s to 5 s, each shortened by up to half at random. */
export class Backoff {
  readonly #context: LogContext;
  readonly #step: string;
  readonly #triesMax: number;
  readonly #sinceMs: number;
  #attempt = 0;

  constructor(context: LogContext, step: string, triesMax = Infinity) {
    this.#context = context;
    this.#step = step;
    this.#triesMax = triesMax;
    this.#sinceMs = context.clock.now();
  }

  /**
   * Tells why the last try had no answer, and waits. Throws SLU-4109 when `signal` is aborted, and `cause` after the
   * last try.
   */
  async wait(cause: unknown, signal: AbortSignal): Promise<void> {
    this.#attempt++;
    throwIfStopped(this.#context, signal);
    if (this.#attempt >= this.#triesMax) throw cause;
    const { clock, random, onEvent } = this.#context;
    const full = Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** Math.min(this.#attempt - 1, 16));
    const delayMs = Math.round(full * (1 - random() / 2));
    onEvent({ type: "retrying", step: this.#step, attempt: this.#attempt, sinceMs: this.#sinceMs, delayMs, cause });
    await sleep(clock, delayMs, signal);
    throwIfStopped(this.#context, signal);
  }
}

/**
 * Runs `run` until it gets an answer from the store, at most `triesMax` times; other errors than the store's are
 * thrown at once. Throws SLU-4109 when `signal` is aborted.
 */
export async function untilAnswered<T>(
  context: LogContext,
  step: string,
  signal: AbortSignal,
  run: () => Promise<T>,
  triesMax = Infinity,
): Promise<T> {
  const backoff = new Backoff(context, step, triesMax);
  for (;;) {
    try {
      return await run();
    } catch (error) {
      throwIfStopped(context, signal);
      if (!isStoreError(error)) throw error;
      await backoff.wait(error, signal);
    }
  }
}

/** Whether the store refused or could not be reached: worth another try. That an object isn't there is an answer. */
function isStoreError(error: unknown): boolean {
  return isSluiceError(error) && error.code.startsWith("SLU-3") && error.code !== "SLU-3404";
}

/** The error of everything that waits when the log stops: its outcome is unknown. */
export function stopped(context: LogContext): SluiceError {
  return new SluiceError("SLU-4109", `${context.url}: stopped before the log had confirmed it`);
}

export function throwIfStopped(context: LogContext, signal: AbortSignal): void {
  if (signal.aborted) throw stopped(context);
}

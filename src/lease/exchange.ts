import type { LeaseClock } from "./clock.ts";
import type { LeaseRecord, LeaseRegister, LeaseVersion, SwapOutcome } from "./lease.ts";
import { isSameWrite } from "./record.ts";
import { requestTimeoutMs, retryAfterMs } from "./timing.ts";

/** What a read told; undefined inside: there is no record. */
export type ReadResult = { readonly seen: LeaseVersion | undefined } | undefined;

export type WriteResult =
  /** The record is what was to be written; `sentMs` is when that was first sent, by the boot clock. */
  | { readonly result: "own"; readonly version: string; readonly sentMs: number }
  /** Something else stands there. */
  | { readonly result: "other"; readonly seen: LeaseVersion | undefined }
  /** It wasn't worth asking any longer; it may still take effect. */
  | { readonly result: "unknown" };

/**
 * Requests to a register, each with a time limit: a register that hangs or ignores its signal holds nobody up, and the
 * late answer of a request that was given up is never heard.
 */
export class Exchange {
  readonly #register: LeaseRegister;
  readonly #clock: LeaseClock;
  readonly #ttlMs: number;
  readonly #trouble: (error: unknown) => void;
  #interrupt: (() => void) | undefined;

  constructor(register: LeaseRegister, clock: LeaseClock, ttlMs: number, trouble: (error: unknown) => void) {
    this.#register = register;
    this.#clock = clock;
    this.#ttlMs = ttlMs;
    this.#trouble = trouble;
  }

  /** Ends the wait for what is under way, which then counts as unanswered. */
  interrupt(): void {
    this.#interrupt?.();
  }

  /** The record; undefined when it couldn't be read. */
  async read(): Promise<ReadResult> {
    return this.#attempt<ReadResult>(
      async (signal) => ({ seen: await this.#register.read(signal) }),
      (error) => {
        this.#trouble(error);
        return undefined;
      },
    );
  }

  /**
   * Swaps until it is known what became of it, for as long as `isWorth`: without an answer the record is read. Where it
   * is still the old one, the same bytes are sent again, since the first may yet arrive; whichever does, the time of
   * the first sending counts.
   */
  async write(expected: string | undefined, next: LeaseRecord, isWorth: () => boolean): Promise<WriteResult> {
    const sentMs = this.#clock.bootMs();
    for (;;) {
      const answer = await this.#swap(expected, next);
      if (answer.outcome === "written") return { result: "own", version: answer.version, sentMs };
      const read = await this.#readWhile(isWorth);
      if (read === undefined) return { result: "unknown" };
      const { seen } = read;
      if (seen !== undefined && isSameWrite(seen.record, next)) {
        return { result: "own", version: seen.version, sentMs };
      }
      if (answer.outcome === "refused" || seen?.version !== expected) return { result: "other", seen };
      await this.#pause();
      if (!isWorth()) return { result: "unknown" };
    }
  }

  async #swap(expected: string | undefined, next: LeaseRecord): Promise<SwapOutcome> {
    const answer = await this.#attempt<SwapOutcome>(
      (signal) => this.#register.swap(expected, next, signal),
      (cause) => ({ outcome: "undecided", cause }),
    );
    if (answer.outcome === "undecided") this.#trouble(answer.cause);
    return answer;
  }

  async #readWhile(isWorth: () => boolean): Promise<ReadResult> {
    while (isWorth()) {
      const read = await this.read();
      if (read !== undefined) return read;
      await this.#pause();
    }
    return undefined;
  }

  #pause(): Promise<void> {
    const delayMs = retryAfterMs(this.#ttlMs);
    return new Promise((resolve) => this.#limited(delayMs, resolve));
  }

  #attempt<T>(call: (signal: AbortSignal) => Promise<T>, otherwise: (error: unknown) => T): Promise<T> {
    return new Promise((resolve) => {
      const controller = new AbortController();
      const limitMs = requestTimeoutMs(this.#ttlMs);
      const done = this.#limited(limitMs, () => {
        const late = new Error(`${this.#register.place}: no answer`);
        controller.abort(late);
        resolve(otherwise(late));
      });
      const answered = (settle: () => T): void => {
        if (done()) resolve(settle());
      };
      call(controller.signal).then(
        (value) => answered(() => value),
        (error: unknown) => answered(() => otherwise(error)),
      );
    });
  }

  /** Calls `run` after the time or an interruption; the returned function calls it off, and says whether it did. */
  #limited(delayMs: number, run: () => void): () => boolean {
    let isOver = false;
    const finish = (): boolean => {
      if (isOver) return false;
      isOver = true;
      cancel();
      if (this.#interrupt === fire) this.#interrupt = undefined;
      return true;
    };
    const fire = (): void => {
      if (finish()) run();
    };
    const cancel = this.#clock.schedule(delayMs, fire);
    this.#interrupt = fire;
    return finish;
  }
}

/**
 * A signal that aborts after `ms`, or with one of `signals`. `end` takes its timer and listeners away at once: thousands
 * of waits a second would otherwise stay in memory for as long as their limit.
 */
export class Deadline {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #signals: readonly AbortSignal[];
  readonly #abort = (): void => this.#controller.abort();

  constructor(ms: number, ...signals: readonly AbortSignal[]) {
    this.#signals = signals;
    this.#timer = setTimeout(this.#abort, ms);
    for (const signal of signals)
      if (signal.aborted) this.#abort();
      else signal.addEventListener("abort", this.#abort);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  end(): void {
    clearTimeout(this.#timer);
    for (const signal of this.#signals) signal.removeEventListener("abort", this.#abort);
  }
}

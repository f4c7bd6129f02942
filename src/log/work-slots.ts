interface Waiting {
  readonly enter: () => void;
}

/**
 * A bound on how many heavy jobs (compactions, snapshots) run at once in this process, whatever the number of its
 * databases. First come, first served.
 */
export class WorkSlots {
  readonly #limit: number;
  #busy = 0;
  #queue: Waiting[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Runs `job` when a slot is free. Rejects with the signal's reason when it's aborted before that. */
  async run<T>(signal: AbortSignal, job: () => Promise<T>): Promise<T> {
    await this.#enter(signal);
    try {
      return await job();
    } finally {
      this.#busy--;
      this.#next();
    }
  }

  async #enter(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#busy < this.#limit) {
      this.#busy++;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const leave = (): void => {
        this.#queue = this.#queue.filter((other) => other !== waiting);
        reject(signal.reason as Error);
      };
      const waiting: Waiting = {
        enter: () => {
          signal.removeEventListener("abort", leave);
          resolve();
        },
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#queue.push(waiting);
    });
  }

  #next(): void {
    const waiting = this.#queue.shift();
    if (waiting === undefined) return;
    this.#busy++;
    waiting.enter();
  }
}

import type { NodeView } from "./node-view.ts";

/** Leases run out by the clock, without an event: how often that is looked at while somebody waits. */
const LOOK_MS = 50;

/** Wakes those who wait for another primary. One timer for all of them, and none while nobody waits. */
export class Changes {
  readonly #view: NodeView;
  readonly #waiting = new Set<() => void>();
  readonly #end: () => void;
  #timer: NodeJS.Timeout | undefined;
  #seen = "";

  constructor(view: NodeView) {
    this.#view = view;
    this.#end = view.onChange(() => this.wake());
  }

  /** Until something may have changed, `ms` have passed, or `signal` aborts; never rejects. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted || ms <= 0) return;
    if (this.#timer === undefined) {
      this.#seen = this.#state();
      this.#timer = setInterval(() => this.#look(), LOOK_MS);
    }
    await new Promise<void>((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        this.#waiting.delete(done);
        if (this.#waiting.size === 0) this.#stopLooking();
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal.addEventListener("abort", done);
      this.#waiting.add(done);
    });
  }

  /** Lets everybody look again. */
  wake(): void {
    for (const done of this.#waiting) done();
  }

  close(): void {
    this.#end();
    this.wake();
  }

  #look(): void {
    const state = this.#state();
    if (state === this.#seen) return;
    this.#seen = state;
    this.wake();
  }

  #state(): string {
    return `${this.#view.reign() ?? ""} ${this.#view.primary()?.proxy?.href ?? ""}`;
  }

  #stopLooking(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }
}

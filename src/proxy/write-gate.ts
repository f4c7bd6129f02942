/**
 * Lets writes into the application, or holds them while a handoff is under way. `open` → pause → `paused` (no write
 * begins; those inside end) → resume → `open`.
 */
export class WriteGate {
  readonly #wake: () => void;
  #paused = 0;
  #inside = 0;
  #idle: (() => void)[] = [];

  /** `wake` is called when the gate opens. */
  constructor(wake: () => void) {
    this.#wake = wake;
  }

  get isOpen(): boolean {
    return this.#paused === 0;
  }

  /** How many writes the application has at the moment. */
  get inside(): number {
    return this.#inside;
  }

  enter(): void {
    this.#inside++;
  }

  leave(): void {
    this.#inside--;
    if (this.#inside === 0) for (const idle of this.#idle.splice(0)) idle();
  }

  /** No further write begins until `resume`; `idle` resolves when the application has answered those that had begun. */
  pause(): { readonly idle: Promise<void>; readonly resume: () => void } {
    this.#paused++;
    let done = false;
    const idle = this.#inside === 0 ? Promise.resolve() : new Promise<void>((resolve) => this.#idle.push(resolve));
    const resume = (): void => {
      if (done) return;
      done = true;
      this.#paused--;
      if (this.#paused === 0) this.#wake();
    };
    return { idle, resume };
  }
}

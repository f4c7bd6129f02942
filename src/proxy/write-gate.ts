/** Writes are held; see {@link WriteGate.pause}. */
export interface Pause {
  /** The application has answered all writes that it had. */
  readonly idle: Promise<void>;
  /** The answers have got what they waited for: nothing depends on this node being the primary any more. */
  readonly released: Promise<void>;
  /** Lets the held writes go, to whoever is the primary then. */
  readonly resume: () => void;
}

/** How many are there, and who waits until none is. */
class Count {
  #count = 0;
  #waiting: (() => void)[] = [];

  enter(): void {
    this.#count++;
  }

  leave(): void {
    this.#count--;
    if (this.#count === 0) for (const done of this.#waiting.splice(0)) done();
  }

  async none(): Promise<void> {
    if (this.#count > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }
}

/**
 * Lets writes into the application, or holds them while a handoff is under way. `open` → pause → `paused` (no write
 * begins) → `idle` (those inside are answered) → `released` (and confirmed) → resume → `open`.
 */
export class WriteGate {
  readonly #wake: () => void;
  readonly #inside = new Count();
  readonly #unreleased = new Count();
  #pauses = 0;

  /** `wake` is called when the gate opens. */
  constructor(wake: () => void) {
    this.#wake = wake;
  }

  get isOpen(): boolean {
    return this.#pauses === 0;
  }

  enter(): WritePass {
    this.#inside.enter();
    this.#unreleased.enter();
    return new WritePass(
      () => this.#inside.leave(),
      () => this.#unreleased.leave(),
    );
  }

  pause(): Pause {
    this.#pauses++;
    let done = false;
    const resume = (): void => {
      if (done) return;
      done = true;
      this.#pauses--;
      if (this.#pauses === 0) this.#wake();
    };
    return { idle: this.#inside.none(), released: this.#unreleased.none(), resume };
  }
}

/** One write on its way: `inside` the application → answered → `unreleased` → released. Each step is taken once. */
export class WritePass {
  #answered: (() => void) | undefined;
  #released: (() => void) | undefined;

  constructor(answered: () => void, released: () => void) {
    this.#answered = answered;
    this.#released = released;
  }

  /** The application will commit nothing more for it. */
  answered(): void {
    this.#answered?.();
    this.#answered = undefined;
  }

  /** Its answer waits for nothing more. */
  released(): void {
    this.answered();
    this.#released?.();
    this.#released = undefined;
  }
}

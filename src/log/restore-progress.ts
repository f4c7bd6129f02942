export type RestorePhase = "plan" | "fetch" | "check" | "install";

export interface RestoreProgress {
  readonly phase: RestorePhase;
  /** Compressed bytes fetched so far, and in all. The total grows when the restore has to plan anew. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** Counts what a restore has fetched and tells who asked. */
export class Progress {
  files = 0;
  bytesDone = 0;
  #bytesTotal = 0;
  #phase: RestorePhase = "plan";
  readonly #tell: (progress: RestoreProgress) => void;

  constructor(tell: ((progress: RestoreProgress) => void) | undefined) {
    this.#tell = tell ?? (() => {});
  }

  enter(phase: RestorePhase): void {
    this.#phase = phase;
    this.#tell({ phase, bytesDone: this.bytesDone, bytesTotal: this.#bytesTotal });
  }

  /** A plan was made: `bytes` are to be fetched beside what was. */
  begin(files: number, bytes: number): void {
    this.files = files;
    this.#bytesTotal = this.bytesDone + bytes;
    this.enter("fetch");
  }

  add(bytes: number): void {
    this.bytesDone += bytes;
    this.#tell({ phase: this.#phase, bytesDone: this.bytesDone, bytesTotal: this.#bytesTotal });
  }
}

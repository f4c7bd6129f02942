export type RestorePhase = "plan" | "fetch" | "check" | "install";

export interface RestoreProgress {
  readonly phase: RestorePhase;
  /** Compressed bytes that are done with so far, and in all. The total grows when the restore has to plan anew. */
  readonly bytesDone: number;
  readonly bytesTotal: number;
}

/** Counts what a restore has fetched and tells who asked. */
export class Progress {
  files = 0;
  bytesDone = 0;
  /** Those of `bytesDone` that an earlier restore had left. */
  keptBytes = 0;
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

  /** What was taken over from an earlier restore has to be fetched after all. */
  undoKept(): void {
    this.bytesDone -= this.keptBytes;
    this.keptBytes = 0;
  }

  add(bytes: number, kept = false): void {
    this.bytesDone += bytes;
    if (kept) this.keptBytes += bytes;
    this.#tell({ phase: this.#phase, bytesDone: this.bytesDone, bytesTotal: this.#bytesTotal });
  }
}

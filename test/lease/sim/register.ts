import { createHash } from "node:crypto";
import type { LeaseRecord, LeaseRegister, LeaseVersion, SwapOutcome } from "../../../src/lease/lease.ts";
import type { Machine, World } from "./world.ts";

/** How often what goes wrong, 0 to 1, and how slow it is. */
export interface Faults {
  readonly lost: number;
  readonly duplicated: number;
  readonly errors: number;
  readonly slow: number;
  readonly slowMs: number;
}

export const noFaults: Faults = { lost: 0, duplicated: 0, errors: 0, slow: 0, slowMs: 0 };

/** The one record that all see, with a version that is made from its bytes, as S3 makes ETags. */
export class SharedRecord {
  current: LeaseVersion | undefined;

  swap(expected: string | undefined, next: LeaseRecord): SwapOutcome {
    if (this.current?.version !== expected) return { outcome: "refused" };
    const version = createHash("md5").update(JSON.stringify(next)).digest("hex");
    this.current = { version, record: next, isFree: false };
    return { outcome: "written", version };
  }
}

/** One machine's way to the record: slow, and everything on it may be lost, late, doubled, or of unknown outcome. */
export class FaultyRegister implements LeaseRegister {
  readonly place = "the simulated register";
  readonly expires = true;
  faults: Faults;
  readonly #world: World;
  readonly #machine: Machine;
  readonly #shared: SharedRecord;

  constructor(world: World, machine: Machine, shared: SharedRecord, faults: Faults) {
    this.#world = world;
    this.#machine = machine;
    this.#shared = shared;
    this.faults = faults;
  }

  read(): Promise<LeaseVersion | undefined> {
    return this.#exchange(() => this.#shared.current);
  }

  swap(expected: string | undefined, next: LeaseRecord): Promise<SwapOutcome> {
    const land = (): SwapOutcome => this.#shared.swap(expected, next);
    if (this.#happens(this.faults.duplicated)) this.#world.at(this.#delay(), land);
    return this.#exchange(land).catch((cause: unknown) => ({ outcome: "undecided", cause }));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #exchange<T>(execute: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      if (this.#happens(this.faults.lost)) return;
      const isUndone = this.#happens(this.faults.errors);
      this.#world.at(this.#delay(), () => {
        const result = isUndone ? undefined : execute();
        if (this.#happens(this.faults.lost)) return;
        const isError = isUndone || this.#happens(this.faults.errors);
        const answer = (): void => (isError ? reject(new Error("503")) : resolve(result as T));
        this.#world.at(this.#delay(), answer, this.#machine);
      });
    });
  }

  #happens(share: number): boolean {
    return this.#world.random() < share;
  }

  #delay(): number {
    const { slow, slowMs } = this.faults;
    return this.#happens(slow) ? this.#world.random() * slowMs : 1 + this.#world.random() * 30;
  }
}

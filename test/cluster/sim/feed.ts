import type { ChangeHead, CommitFeed, OutgoingChange } from "../../../src/database/replication.ts";
import { SluiceError } from "../../../src/errors/error.ts";
import type { Position } from "../../../src/ltx/position.ts";
import { checksumOf, PAGE_SIZE } from "../../log/sim/database.ts";
import type { Pages } from "../../log/sim/ltx.ts";

interface Step {
  readonly position: Position;
  readonly pages: Pages;
}

/** The commits of a simulated primary, from the beginning of its epoch or the last restart of its WAL on. */
export class SimFeed implements CommitFeed {
  #steps: Step[];
  #generation = 0;
  readonly #listeners = new Set<() => void>();

  constructor(position: Position, pages: Pages) {
    this.#steps = [{ position, pages }];
  }

  get position(): Position {
    return this.#steps.at(-1)!.position;
  }

  get checksum(): bigint {
    return checksumOf(this.#steps.at(-1)!.pages);
  }

  has(position: Position): boolean {
    return this.#steps.some((step) => step.position === position);
  }

  after(position: Position, oneByOne: number): OutgoingChange | undefined {
    const at = this.#steps.findIndex((step) => step.position === position);
    if (at < 0) throw new SluiceError("SLU-2018", "nothing is known after that");
    const behind = this.#steps.length - 1 - at;
    if (behind === 0) return undefined;
    return this.#change(this.#steps[at]!, behind > oneByOne ? this.#steps.at(-1)! : this.#steps[at + 1]!);
  }

  onMoved(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  named(position: Position, pages: Pages): void {
    this.#steps.push({ position, pages });
  }

  moved(): void {
    for (const listener of this.#listeners) listener();
  }

  /** The WAL begins anew: what was in it can't be read any more. */
  restart(): void {
    this.#steps = this.#steps.slice(-1);
    this.#generation++;
    this.moved();
  }

  #change(before: Step, after: Step): OutgoingChange {
    const changed = [...after.pages].filter(([page, content]) => before.pages.get(page) !== content);
    const head: ChangeHead = {
      before: before.position,
      position: after.position,
      pageCount: after.pages.size,
      checksum: checksumOf(after.pages),
      pages: changed.length,
    };
    const generation = this.#generation;
    let isDone = false;
    return {
      head,
      next: () => {
        if (generation !== this.#generation) throw new SluiceError("SLU-2018", "the WAL has begun anew");
        if (isDone) return undefined;
        isDone = true;
        const content = new Uint8Array(changed.length * PAGE_SIZE);
        changed.forEach(([, page], i) => content.set(page, i * PAGE_SIZE));
        return { numbers: Uint32Array.from(changed, ([page]) => page), content };
      },
    };
  }
}

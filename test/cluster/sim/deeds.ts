import type { Random } from "../../log/sim/clock.ts";

/** Something that may happen, with its share of all that happens. */
export type Deed = readonly [share: number, run: () => void];

/**
 * What happens next in a simulation. A seed has its own mix: some faults often, some never, so that what many others
 * would hide shows as well. Remedies come in every seed.
 */
export class Deeds {
  readonly #random: Random;
  readonly #deeds: readonly Deed[];
  readonly #sum: number;

  constructor(random: Random, remedies: readonly Deed[], faults: readonly Deed[]) {
    this.#random = random;
    const roughness = 2 * random.next();
    const own = faults.map(([share, run]): Deed => [random.chance(0.3) ? 0 : share * roughness * random.next(), run]);
    this.#deeds = [...remedies, ...own];
    this.#sum = this.#deeds.reduce((sum, [share]) => sum + share, 0);
  }

  next(): void {
    let left = this.#random.next() * this.#sum;
    const [, run] = this.#deeds.find(([share]) => (left -= share) < 0) ?? this.#deeds[0]!;
    run();
  }
}

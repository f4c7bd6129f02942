import { afterEach, describe, expect, test } from "vitest";
import { mutants } from "./sim/mutants.ts";
import type { Faults } from "./sim/store.ts";
import { World, type Variant } from "./sim/world.ts";

const ROUGH: Faults = {
  lostAnswer: 0.1,
  lostRequest: 0.1,
  late: 0.1,
  twice: 0.1,
  read: 0.1,
  lateMs: 5 * 60_000,
  latencyMs: 200,
};

/** More with SLUICE_SIM_SEEDS=1000; a single one with SLUICE_SIM_SEED=17. */
const one = process.env["SLUICE_SIM_SEED"];
const count = Number(process.env["SLUICE_SIM_SEEDS"] ?? 40);
const seeds = one === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(one)];

async function simulate(seed: number, twins: boolean, variant?: Variant): Promise<World> {
  const world = new World({ seed, faults: ROUGH, twins, ...(variant !== undefined && { variant }) });
  try {
    await world.run(150);
  } catch (error) {
    throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
  } finally {
    world.dispose();
  }
  return world;
}

describe("a simulated store in which everything goes wrong", { timeout: 600_000 }, () => {
  test("one machine, killed and paused at any moment, is never refused and loses nothing", async () => {
    let confirmations = 0;
    let deletions = 0;
    for (const seed of seeds) {
      const world = await simulate(seed, false);
      confirmations += world.confirmations;
      deletions += world.events.filter((event) => event.type === "deleted").length;
      expect(world.events.filter((event) => event.type === "alarm")).toEqual([]);
    }
    expect(confirmations).toBeGreaterThan(seeds.length);
    expect(deletions).toBeGreaterThan(0);
  });

  test("copies of one machine never both have a commit confirmed", async () => {
    let refusals = 0;
    for (const seed of seeds) refusals += (await simulate(seed, true)).refusals;
    expect(refusals).toBeGreaterThan(0);
  });
});

describe("the simulation sees the damage when", { timeout: 600_000 }, () => {
  // What a broken variant leaves running may fail on its own.
  const ignore = (): void => undefined;
  process.on("unhandledRejection", ignore);
  afterEach(() => void process.off("unhandledRejection", ignore));

  test.for(Object.entries(mutants))("%s", async ([, { twins, variant }]) => {
    const failures: unknown[] = [];
    for (let seed = 1; seed <= 200 && failures.length === 0; seed++) {
      await simulate(seed, twins, variant).catch((error: unknown) => failures.push(error));
    }
    expect(failures).toHaveLength(1);
  });
});

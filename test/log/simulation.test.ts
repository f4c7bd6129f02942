import { describe, expect, test } from "vitest";
import type { Faults } from "./sim/store.ts";
import { World } from "./sim/world.ts";

const ROUGH: Faults = {
  lostAnswer: 0.1,
  lostRequest: 0.1,
  late: 0.1,
  twice: 0.1,
  read: 0.1,
  lateMs: 5 * 60_000,
  latencyMs: 200,
};

/** More with SLUICE_SIM_SEEDS=1000; one with SLUICE_SIM_SEED=17. */
const one = process.env["SLUICE_SIM_SEED"];
const count = Number(process.env["SLUICE_SIM_SEEDS"] ?? 25);
const seeds = one === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(one)];

async function simulate(seed: number, twins: boolean): Promise<World> {
  const world = new World({ seed, faults: ROUGH, twins });
  try {
    await world.run(150);
  } catch (error) {
    throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
  } finally {
    world.dispose();
  }
  return world;
}

describe("a simulated store in which everything goes wrong", () => {
  test("one machine, killed and paused at any moment", { timeout: 600_000 }, async () => {
    let confirmations = 0;
    for (const seed of seeds) confirmations += (await simulate(seed, false)).confirmations;
    expect(confirmations).toBeGreaterThan(seeds.length);
  });

  test("copies of one machine that write one log", { timeout: 600_000 }, async () => {
    let refusals = 0;
    for (const seed of seeds) refusals += (await simulate(1000 + seed, true)).refusals;
    expect(refusals).toBeGreaterThan(0);
  });
});

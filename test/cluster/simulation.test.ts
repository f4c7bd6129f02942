import { rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { mutantDirectory, mutants, mutate, type WorldClass } from "./sim/mutants.ts";
import { ClusterWorld } from "./sim/world.ts";

/** Thousands: `npm run simulate`. */
const SEEDS = process.env["CI"] ? 200 : 30;
const STEPS = 150;

async function run(seed: number, World: WorldClass = ClusterWorld): Promise<ClusterWorld> {
  const world = new World({ seed });
  try {
    await world.run(STEPS);
  } catch (error) {
    throw new Error(`seed ${seed}: ${String(error)}\n${world.recent.slice(-40).join("\n")}`, { cause: error });
  } finally {
    world.dispose();
  }
  return world;
}

describe("nodes on a simulated clock, network, store and disk", { timeout: 600_000 }, () => {
  test("nothing that was acknowledged is lost, gates open by takeovers of their own, and somebody leads in the end", async () => {
    const total = { store: 0, replica: 0, early: 0, takeovers: 0, twoGates: 0, left: 0, handovers: 0, gains: 0 };
    const warnings: Error[] = [];
    const warned = (warning: Error): void => void warnings.push(warning);
    process.on("warning", warned);
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { totals } = await run(seed);
      for (const key of Object.keys(total) as (keyof typeof total)[]) total[key] += totals[key];
    }
    process.off("warning", warned);
    expect(warnings).toEqual([]);
    // Much must have happened, or it would show little: also two gates at once, and commits that left the history.
    expect(total.store).toBeGreaterThan(4 * SEEDS);
    expect(total.replica).toBeGreaterThan(4 * SEEDS);
    // By replicas, while the log had not got there.
    expect(total.early).toBeGreaterThan(SEEDS);
    expect(total.handovers).toBeGreaterThan(0);
    // Winners that had to ask others first.
    expect(total.gains).toBeGreaterThan(0);
    expect(total.takeovers).toBeGreaterThan(2 * SEEDS);
    expect(total.twoGates).toBeGreaterThan(0);
    expect(total.left).toBeGreaterThan(0);
  });

  test("a seed tells the same story each time", async () => {
    for (const seed of [3, 43]) expect((await run(seed)).trace).toBe((await run(seed)).trace);
    expect((await run(3)).trace).not.toBe((await run(4)).trace);
  });
});

describe("the simulation finds what is broken on purpose", { timeout: 600_000 }, () => {
  let dir: string;
  // What a broken version leaves running may fail on its own.
  const ignore = (): void => undefined;
  beforeAll(() => {
    dir = mutantDirectory();
    process.on("unhandledRejection", ignore);
  });
  afterAll(() => {
    rmSync(dir, { recursive: true, force: true });
    process.off("unhandledRejection", ignore);
  });

  test.for(Object.entries(mutants))("%s", async ([, { changes, seed }]) => {
    const World = await mutate(dir, changes);
    // The seed at which it was found first; a change of the simulation may move it.
    const failures: unknown[] = [];
    for (let i = 0; i < 200 && failures.length === 0; i++) {
      await run(i === 0 ? seed : i, World).catch((error: unknown) => failures.push(error));
    }
    expect(failures).toHaveLength(1);
  });
});

import { rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LeaseKeeper } from "../../src/lease/keeper.ts";
import { type KeeperClass, SimulatedCluster } from "./sim/cluster.ts";
import { mutantDirectory, mutants, mutate } from "./sim/mutants.ts";

/** `LEASE_SEEDS=5000 LEASE_FROM=1` looks longer, or at one seed again. */
const SEEDS = Number(process.env["LEASE_SEEDS"] ?? 60);
const FROM = Number(process.env["LEASE_FROM"] ?? 1);

async function run(seed: number, Keeper: KeeperClass): Promise<SimulatedCluster> {
  const cluster = new SimulatedCluster(seed, Keeper);
  await cluster.run();
  return cluster;
}

describe("three nodes and one lease, with lost, late, doubled and unanswered requests, pauses and crashes", () => {
  test("nobody counts on the lease while it's another's, and somebody gets it in the end", async () => {
    let acquisitions = 0;
    for (let seed = FROM; seed < FROM + SEEDS; seed++) {
      const cluster = await run(seed, LeaseKeeper);
      expect(cluster.violations, `seed ${seed}`).toEqual([]);
      acquisitions += cluster.acquisitions;
    }
    // The lease changes hands, or the test would show little.
    expect(acquisitions).toBeGreaterThan(SEEDS * 4);
  });

  test("a seed tells the same story each time", async () => {
    const [one, two] = [await run(7, LeaseKeeper), await run(7, LeaseKeeper)];
    expect(one.acquisitions).toBe(two.acquisitions);
    expect(one.shared.current?.record.counter).toBe(two.shared.current?.record.counter);
  });
});

describe("the simulation finds what is broken on purpose", () => {
  let dir: string;
  beforeAll(() => {
    dir = mutantDirectory();
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test.for(Object.entries(mutants))("%s", async ([, changes]) => {
    const Keeper = await mutate(dir, changes);
    let seed = 1;
    let violations: readonly string[] = [];
    while (violations.length === 0 && seed <= 600) ({ violations } = await run(seed++, Keeper));
    expect(violations.length, "found").toBeGreaterThan(0);
    if (process.env["LEASE_VERBOSE"]) console.log(`seed ${seed - 1}: ${violations[0]}`);
  });
});

import { afterEach, beforeEach, expect, test } from "vitest";
import { lacks, type SqliteVersion } from "../peers/peers.ts";
import { scratch } from "./apps.ts";
import { testSeed } from "./random.ts";
import { ReplicaModel } from "./replica-model.ts";

/** Seconds for each page size; `SLUICE_MODEL_SECONDS` for long runs. */
const seconds = Number(process.env["SLUICE_MODEL_SECONDS"] ?? 1.5);
const versions: readonly SqliteVersion[] = ["3.14.1", "3.39.1", "3.54.1-debug"];

let dir: ReturnType<typeof scratch>;
beforeEach(() => {
  dir = scratch("model");
});
afterEach(() => dir.remove());

test.skipIf(lacks(...versions)).each([512, 4096, 65536])(
  `what is applied is what SQLite wrote, whatever else happens: pages of %i bytes (seed ${testSeed})`,
  async (pageSize) => {
    const end = performance.now() + seconds * 1000;
    for (let round = 0; performance.now() < end; round++) {
      const seed = testSeed + pageSize + round * 1_000_003;
      const model = await ReplicaModel.begin((file) => dir.path(`${round}-${file}`), seed, pageSize, versions);
      let steps = 0;
      try {
        for (; steps < 400 && performance.now() < end; steps++) {
          await model.step();
          if (steps % 20 === 19) await model.check();
        }
        await model.check();
      } catch (error) {
        throw new Error(`seed ${testSeed}, round ${round}, step ${steps}`, { cause: error });
      } finally {
        await model.end();
      }
      if (process.env["SLUICE_MODEL_SECONDS"] !== undefined) console.log(pageSize, round, model.counts);
      expect(model.counts["applied"]).toBeGreaterThan(0);
    }
  },
  seconds * 1000 + 60_000,
);

/** `npm run simulate -- --seeds 1000 --from 1 [--steps 150] [--trace]`: looks longer, or at one seed again. */
import { parseArgs } from "node:util";
import { ClusterWorld } from "./world.ts";

const { values } = parseArgs({
  options: {
    seeds: { type: "string", default: "200" },
    from: { type: "string", default: "1" },
    steps: { type: "string", default: "150" },
    trace: { type: "boolean", default: false },
  },
});
const [from, seeds, steps] = [Number(values.from), Number(values.seeds), Number(values.steps)];
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const failed: number[] = [];
const totals = new Map<string, number>();
for (let seed = from; seed < from + seeds; seed++) {
  const world = new ClusterWorld({ seed });
  try {
    await world.run(steps);
  } catch (error) {
    failed.push(seed);
    say(`seed ${seed}: ${String(error)}`);
  } finally {
    world.dispose();
  }
  if (values.trace) say(`${world.recent.join("\n")}\ntrace ${world.trace}`);
  for (const [name, count] of Object.entries(world.totals)) totals.set(name, (totals.get(name) ?? 0) + count);
}
say(`${seeds} seeds, ${failed.length} failed; ${[...totals].map(([name, count]) => `${count} ${name}`).join(", ")}`);
process.exit(failed.length === 0 ? 0 : 1);

/**
 * Faults on a cluster of three real nodes, with clients that know what they were promised (docs/faults.md).
 *
 * usage: npm run faults -- [--minutes N] [--rounds N] [--seed N] [--steps N] [--net loopback|ns] [--store dir|s3]
 *                          [--app ledger|django] [--clocks]
 *        npm run faults -- --partitions      every way in which primary, replicas and store fall into two parts
 *
 * The first failing round ends it and keeps its files.
 */
import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import { peers } from "../../peers/peers.ts";
import { lacksNamespaces } from "./namespaces.ts";
import { FaultRuns, PARTITIONS } from "./runs.ts";

const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "5" },
    rounds: { type: "string", default: "Infinity" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    steps: { type: "string", default: "6" },
    net: { type: "string", default: "loopback" },
    store: { type: "string", default: "dir" },
    app: { type: "string", default: "ledger" },
    clocks: { type: "boolean", default: false },
    partitions: { type: "boolean", default: false },
  },
});
const { clocks, partitions } = values;
const net = partitions ? "ns" : oneOf(values.net, "loopback", "ns");
const store = partitions ? "s3" : oneOf(values.store, "dir", "s3");
const app = oneOf(values.app, "ledger", "django");
function oneOf<T extends string>(value: string, ...known: readonly T[]): T {
  const found = known.find((name) => name === value);
  if (found === undefined) throw new Error(`${value} is none of ${known.join(", ")}`);
  return found;
}

/** Why this can't be run here. */
function lacking(): string | undefined {
  const needed = [
    ...(store === "s3" ? ["weed"] : []),
    ...(app === "django" ? ["django"] : []),
    ...(clocks ? ["faketime"] : []),
  ];
  const missing = needed.filter((name) => !existsSync(peers[name as keyof typeof peers]));
  if (missing.length > 0) return `${missing.join(", ")}: run test/peers/install.sh`;
  return net === "ns" ? lacksNamespaces() : undefined;
}

const tell = (line: string): void => console.log(`${new Date().toISOString()} ${line}`);

/** Each once as it is, and once more with the primary's disk lost at its end. */
async function allPartitions(runs: FaultRuns): Promise<readonly string[]> {
  for (const loses of [false, true])
    for (let way = 0; way < PARTITIONS; way++) {
      const problems = await runs.partition(way, loses);
      if (problems.length > 0) return problems;
    }
  return [];
}

async function main(): Promise<boolean> {
  const seed = Number(values.seed);
  const untilMs = Date.now() + Number(values.minutes) * 60_000;
  const runs = new FaultRuns({ seed, steps: Number(values.steps), net, store, app, clocks, tell });
  tell(`seed ${seed}, ${runs.dir}`);
  let problems: readonly string[] = [];
  try {
    await runs.start();
    if (partitions) problems = await allPartitions(runs);
    else
      for (let i = 1; problems.length === 0 && i <= Number(values.rounds) && Date.now() < untilMs; i++)
        problems = await runs.round(i);
  } catch (error) {
    problems = [error instanceof Error ? error.message : String(error)];
  } finally {
    await runs[Symbol.asyncDispose]();
  }
  for (const problem of problems.slice(0, 20)) tell(`  PROBLEM ${problem}`);
  if (problems.length === 0) runs.remove();
  else tell(`seed ${seed} fails; logs and databases: ${runs.dir}`);
  return problems.length === 0;
}

const reason = lacking();
if (reason !== undefined) console.log(`skipped: ${reason}`);
// Clients of a round that was broken off go on otherwise.
else process.exit((await main()) ? 0 : 1);

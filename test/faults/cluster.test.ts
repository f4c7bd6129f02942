import { expect, test } from "vitest";
import { lacksNamespaces } from "./cluster/namespaces.ts";
import { FaultRuns } from "./cluster/runs.ts";

const missing = lacksNamespaces();
if (missing !== undefined) console.warn(`on the loopback instead of in network namespaces: ${missing}`);

test("faults on three real nodes: nothing acknowledged is missing, nothing is stale", async () => {
  const told: string[] = [];
  await using runs = new FaultRuns({
    seed: 5,
    steps: 4,
    net: missing === undefined ? "ns" : "loopback",
    store: "dir",
    app: "ledger",
    clocks: false,
    tell: (line) => told.push(line),
  });
  await runs.start();
  const problems = await runs.round(1);
  expect(problems, `${runs.dir}\n${told.join("\n")}`).toEqual([]);
  expect(runs.totals.acknowledged).toBeGreaterThan(0);
  runs.remove();
}, 180_000);

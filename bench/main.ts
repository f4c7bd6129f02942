/**
 * Measures what `docs/benchmarks.md` shows: its tables and plots are made from `docs/benchmarks.json`, in which the
 * figures that are run replace their last results. Comparisons are made within a round.
 *
 * usage: npm run bench [-- [--rounds N] PART …]   figures whose names contain one of the parts; all by default
 *        npm run bench -- --page                  the page and plots, from what was measured before
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { peers } from "../test/peers/peers.ts";
import { failover, idleCluster, resumed } from "./figures/clusters.ts";
import { doors, doorWhileCapturing, groupCommit, ledger } from "./figures/doors.ts";
import { databaseCount, databaseSize, replicaCount, writingRate } from "./figures/growth.ts";
import { idleOne, many } from "./figures/idle.ts";
import { commitToCaptured, commitToStore } from "./figures/latency.ts";
import { overlap } from "./figures/overlap.ts";
import { replicas } from "./figures/replicas.ts";
import { requestPrices } from "./figures/requests.ts";
import { restoreOneGibibyte, snapshotAndStart } from "./figures/restores.ts";
import { besideLitefs, saturatingWriter, stalls } from "./figures/writers.ts";
import { withTables } from "./lib/page.ts";
import { svgOf } from "./lib/plots.ts";
import { root, run } from "./lib/processes.ts";
import { machine, type Figure, type Measured } from "./lib/report.ts";
import { readResults, type Result, type Results, together, writeResults } from "./lib/results.ts";
import { versions } from "./lib/versions.ts";

const litestream = existsSync(peers.litestream) ? peers.litestream : undefined;
const figures: readonly Figure[] = [
  saturatingWriter(litestream),
  besideLitefs(),
  stalls(),
  commitToStore(),
  commitToCaptured(),
  idleOne(),
  many(),
  restoreOneGibibyte(litestream),
  snapshotAndStart(),
  ...replicas(),
  failover(),
  resumed(),
  overlap(),
  idleCluster(),
  doors(),
  doorWhileCapturing(),
  groupCommit(),
  ledger(),
  writingRate(litestream),
  databaseSize(),
  databaseCount(),
  replicaCount(),
  requestPrices(),
];
const docs = path.join(root, "docs");
const file = path.join(docs, "benchmarks.json");

async function measure(figure: Figure, rounds: number): Promise<Result> {
  const made: Measured[] = [];
  const load: number[] = [];
  for (let round = 1; round <= rounds; round++) {
    process.stderr.write(`${figure.name}, round ${round} of ${rounds}, about ${figure.seconds} s …\n`);
    load.push(os.loadavg()[0]!);
    const scratch = mkdtempSync(path.join(os.tmpdir(), "sluice-bench-"));
    try {
      made.push(await figure.run(scratch));
    } finally {
      rmSync(scratch, { recursive: true, force: true });
    }
  }
  const date = new Date().toISOString().slice(0, 10);
  const about = { section: figure.section, date, rounds, load, machine: machine(), versions: await versions() };
  return { ...about, ...together(made) };
}

async function writePage(results: Results): Promise<void> {
  const page = path.join(docs, "benchmarks.md");
  writeFileSync(page, withTables(readFileSync(page, "utf8"), results));
  mkdirSync(path.join(docs, "benchmarks"), { recursive: true });
  for (const plot of Object.values(results).flatMap(({ plots = [] }) => plots))
    writeFileSync(path.join(docs, "benchmarks", `${plot.name}.svg`), await svgOf(plot));
  await run(path.join(root, "node_modules/.bin/oxfmt"), [page, file]);
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: "string", default: "1" }, page: { type: "boolean", default: false } },
});
const wanted = figures.filter(
  ({ name }) => positionals.length === 0 || positionals.some((part) => name.includes(part)),
);
let results = readResults(file);
for (const figure of values.page ? [] : wanted) {
  const result = await measure(figure, Number(values.rounds));
  for (const { figure: what, measures } of result.rows)
    process.stderr.write(`  ${what}: ${measures.map((one) => one.values.join(", ")).join("; ")}\n`);
  // In the program's order, and without what is no figure any more.
  const known = { ...results, [figure.name]: result };
  results = Object.fromEntries(figures.flatMap(({ name }) => (known[name] === undefined ? [] : [[name, known[name]]])));
  writeResults(file, results);
}
await writePage(results);

/**
 * Measures what `docs/benchmarks.md` shows, and writes its table. Comparisons are paired in one run.
 *
 * usage: npm run bench [-- PART …]     only figures whose names contain one of the parts; the table is then printed only
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { peers } from "../test/peers/peers.ts";
import { idleCluster, resumed } from "./figures/clusters.ts";
import { doors, doorWhileCapturing, groupCommit, ledger } from "./figures/doors.ts";
import { idleOne, many } from "./figures/idle.ts";
import { commitToCaptured, commitToStore } from "./figures/latency.ts";
import { overlap } from "./figures/overlap.ts";
import { replicas } from "./figures/replicas.ts";
import { restoreOneGibibyte, snapshotAndStart } from "./figures/restores.ts";
import { saturatingWriter, stalls } from "./figures/writers.ts";
import { root } from "./lib/processes.ts";
import { intoPage, type Row } from "./lib/report.ts";

const litestream = existsSync(peers.litestream) ? peers.litestream : undefined;
const figures = [
  saturatingWriter(litestream),
  stalls(),
  commitToStore(),
  idleOne(),
  commitToCaptured(),
  many(),
  restoreOneGibibyte(litestream),
  snapshotAndStart(),
  ...replicas(),
  resumed(),
  idleCluster(),
  doors(),
  doorWhileCapturing(),
  groupCommit(),
  ledger(),
  overlap(),
];

const parts = process.argv.slice(2);
const scratch = mkdtempSync(path.join(os.tmpdir(), "sluice-bench-"));
const rows: Row[] = [];
try {
  for (const figure of figures) {
    if (parts.length > 0 && !parts.some((part) => figure.name.includes(part))) continue;
    process.stderr.write(`${figure.name}, about ${figure.seconds} s …\n`);
    for (const row of await figure.run(scratch)) {
      rows.push(row);
      process.stderr.write(`  ${row.figure}: ${row.measured} (must reach ${row.goal})\n`);
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
if (parts.length === 0) {
  const page = path.join(root, "docs/benchmarks.md");
  writeFileSync(page, intoPage(page, rows, "npm run bench", new Date().toISOString().slice(0, 10)));
}

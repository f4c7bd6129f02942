/**
 * Applies recorded commits to a replica, to be killed at any moment: applier-process.ts DB RECORD [PAUSE_MS]. Goes on
 * after the state that it finds, backfills and restarts the WAL now and then, and prints "done RESTARTS" at the end.
 */
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { recordsIn } from "./bank-source.ts";
import { LiveReplica } from "./live-replica.ts";

const [path, record, pauseMs = "1"] = process.argv.slice(2) as [string, string, string?];

function state(): number {
  const db = new Sqlite(path, { timeout: 5_000 });
  try {
    return db.prepare("select n from state").pluck().get() as number;
  } finally {
    db.close();
  }
}

const first = state();
const replica = await LiveReplica.open(path);
const sets = recordsIn(readFileSync(record), replica.pageSize);
console.log("begun");
const framesMax = replica.pageSize > 4096 ? 300 : 1_500;
let restarts = 0;

/** Old snapshots end while nothing is applied; new ones do not hinder. */
async function restart(): Promise<void> {
  const end = performance.now() + 1_000;
  while (performance.now() < end) {
    if ((await replica.restart()) === "restarted") {
      restarts++;
      return;
    }
    await sleep(5);
  }
}

for (let n = first + 1; n <= sets.length; n++) {
  if (n % 7 === 0) {
    await replica.append(sets[n - 1]!, 3, n % 20);
    await sleep(0);
    replica.abort();
  }
  await replica.apply(sets[n - 1]!, 1 + (n % 40));
  if (n % 20 === 0) await replica.merge();
  if (replica.capture.frame > framesMax) await restart();
  if (n % 4 === 0) await sleep(Number(pauseMs) * 4);
}
console.log("done", restarts);
// The locks go with the process: a reader may be the last to close.
process.exit(0);

import { writeFileSync } from "node:fs";
import path from "node:path";
import { folder, replicate } from "../lib/sluice.ts";
import { litestream } from "../lib/litestream.ts";
import { Background, sluice, writer } from "../lib/processes.ts";
import { type Figure, median, type Row } from "../lib/report.ts";

interface Run {
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  readonly longestPerSecondP50: number;
  readonly longestPerSecondP99: number;
}

const SECONDS = 6;
const ROUNDS = 5;

/** A writer as fast as it can: bare, beside Sluice, beside Litestream, in turn; the ratios are taken round by round. */
export function saturatingWriter(litestreamBinary: string | undefined): Figure {
  return {
    name: "saturating writer",
    seconds: 3 * ROUNDS * (SECONDS + 2),
    async run(scratch) {
      const bare: Run[] = [];
      const beside: Run[] = [];
      const ours: number[] = [];
      const theirs: number[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const alone = await measure(scratch);
        const protectedRun = await measure(scratch, async (db, store) => replicate(db, `file://${store}`));
        bare.push(alone);
        beside.push(protectedRun);
        ours.push(protectedRun.perSecond / alone.perSecond);
        if (litestreamBinary === undefined) continue;
        const other = await measure(scratch, async (db, store) => litestream(litestreamBinary, db, store));
        theirs.push(other.perSecond / alone.perSecond);
      }
      return rows(bare, beside, ours, theirs);
    },
  };
}

async function measure(scratch: string, start?: (db: string, store: string) => Promise<AsyncDisposable>): Promise<Run> {
  const dir = folder(scratch, "writer");
  const db = path.join(dir, "app.db");
  await writer("init", db, 16);
  await using _beside = await start?.(db, path.join(dir, "store"));
  return writer<Run>("run", db, SECONDS, 0, "normal");
}

function rows(bare: Run[], beside: Run[], ours: number[], theirs: number[]): Row[] {
  const ratio = median(ours);
  const other = theirs.length > 0 ? median(theirs) : undefined;
  const rate = (runs: Run[]): string => Math.round(median(runs.map((run) => run.perSecond))).toLocaleString("en");
  const longest = (runs: Run[]): number => median(runs.map((run) => run.longestPerSecondP99));
  return [
    {
      figure: "commits/s of a saturating writer, with Sluice ÷ bare",
      goal: "≥ 0.90, and above Litestream's ratio",
      measured: `${ratio.toFixed(2)}; Litestream ${other?.toFixed(2) ?? "not installed"}`,
      reached: ratio >= 0.9 && (other === undefined || ratio > other),
      note: `${ROUNDS} rounds of ${SECONDS} s, medians: ${rate(bare)}/s bare, ${rate(beside)}/s with Sluice; synchronous=NORMAL`,
    },
    {
      figure: "longest commit of each second, saturating writer: p99",
      goal: "–",
      measured: `${longest(beside).toFixed(1)} ms with Sluice, ${longest(bare).toFixed(1)} ms bare`,
      reached: undefined,
      note: "SQLite's own checkpoints stall the bare writer, too",
    },
  ];
}

const PACED_SECONDS = 40;

/** What a writer of 500 commits/s waits at the most: bare, and while snapshots and compactions of its 256 MB run. */
export function stalls(): Figure {
  return {
    name: "stalls",
    seconds: 2 * PACED_SECONDS + 20,
    async run(scratch) {
      const dir = folder(scratch, "stalls");
      const db = path.join(dir, "app.db");
      const config = path.join(dir, "sluice.yml");
      await writer("init", db, 256);
      const bare = await writer<Run>("run", db, PACED_SECONDS, 500, "normal");
      writeFileSync(
        config,
        [
          `dbs: [ { path: ${db}, store: "file://${path.join(dir, "store")}" } ]`,
          "snapshot: { interval: 10s, retention: 1m }",
          "levels: [ { interval: 2s }, { interval: 5s } ]",
        ].join("\n"),
      );
      await using process = new Background(sluice, ["replicate", "--config", config], { LOG_LEVEL: "info" });
      await process.printed(/protected/);
      const run = await writer<Run>("run", db, PACED_SECONDS, 500, "normal");
      return [
        {
          figure: "longest stall that Sluice causes a writer, p99",
          goal: "≤ 10 ms, also during snapshots and compactions",
          measured: `${run.longestPerSecondP99.toFixed(1)} ms; bare ${bare.longestPerSecondP99.toFixed(1)} ms`,
          reached: run.longestPerSecondP99 <= 10,
          note:
            `p99 of the longest commit in each of ${PACED_SECONDS} seconds, 500 commits/s on 256 MB, with a snapshot every ` +
            `10 s and compactions every 2 and 5 s; all commits: p50 ${run.p50} ms, p99 ${run.p99} ms, p99.9 ${run.p999} ms`,
        },
      ];
    },
  };
}

import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { folder, replicate } from "../lib/sluice.ts";
import { peers } from "../../test/peers/peers.ts";
import { litefs } from "../lib/litefs.ts";
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
    section: "one node",
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
      return { rows: rows(bare, beside, ours, theirs) };
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
  const rate = (runs: Run[]): string => Math.round(median(runs.map((run) => run.perSecond))).toLocaleString("en");
  const longest = (runs: Run[]): number[] => runs.map((run) => run.longestPerSecondP99);
  const against = theirs.map((ratio, round) => ours[round]! / ratio);
  return [
    {
      figure: "commits/s of a saturating writer, with Sluice ÷ bare",
      measures: [
        { values: ours, digits: 2, atLeast: 0.9 },
        ...(theirs.length > 0 ? [{ label: "Litestream", values: theirs, digits: 2 }] : []),
        ...(theirs.length > 0 ? [{ label: "÷ Litestream's", values: against, digits: 2, atLeast: 1 }] : []),
      ],
      note: `${ROUNDS} pairs of ${SECONDS} s: ${rate(bare)}/s bare, ${rate(beside)}/s with Sluice; \`synchronous=NORMAL\``,
    },
    {
      figure: "longest commit of each second, saturating writer: p99",
      measures: [
        { label: "Sluice", unit: "ms", digits: 1, values: longest(beside) },
        { label: "bare", unit: "ms", digits: 1, values: longest(bare) },
      ],
      note: "SQLite's own checkpoints stall the bare writer, too",
    },
  ];
}

/** LiteFS' WAL is a file in FUSE: the same writer there, beside Sluice with a replica, and bare. */
export function besideLitefs(): Figure {
  return {
    name: "beside LiteFS",
    section: "one node",
    seconds: 3 * ROUNDS * (SECONDS + 2),
    async run(scratch) {
      if (!existsSync(peers.litefs) || !existsSync("/dev/fuse") || process.getuid?.() !== 0) return { rows: [] };
      const [ours, theirs]: [number[], number[]] = [[], []];
      for (let round = 0; round < ROUNDS; round++) {
        const bare = await measure(scratch);
        const beside = await measure(scratch, async (db, store) => replicate(db, `file://${store}`));
        const mounted = await mountedRun(scratch);
        ours.push(beside.perSecond / bare.perSecond);
        theirs.push(mounted.perSecond / bare.perSecond);
      }
      const measures = [
        { label: "Sluice", values: ours, digits: 2 },
        { label: "LiteFS", values: theirs, digits: 3 },
        { label: "Sluice ÷ LiteFS", values: ours.map((ratio, i) => ratio / theirs[i]!) },
      ];
      const note = `${ROUNDS} pairs of ${SECONDS} s, \`synchronous=NORMAL\`; LiteFS 0.5.14, as a primary by configuration`;
      return { rows: [{ figure: "commits/s of a saturating writer ÷ bare, beside LiteFS", measures, note }] };
    },
  };
}

async function mountedRun(scratch: string): Promise<Run> {
  const dir = folder(scratch, "litefs");
  const mount = path.join(dir, "mount");
  await using _mounted = await litefs(dir, mount);
  const db = path.join(mount, "app.db");
  await writer("init", db, 16);
  return writer<Run>("run", db, SECONDS, 0, "normal");
}

const PACED_SECONDS = 40;

/** What a writer of 500 commits/s waits at the most: bare, and while snapshots and compactions of its 256 MB run. */
export function stalls(): Figure {
  return {
    name: "stalls",
    section: "one node",
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
      const note =
        `p99 of the longest commit in each of ${PACED_SECONDS} seconds, 500 commits/s on 256 MB, with a snapshot every ` +
        `10 s and compactions every 2 and 5 s; all commits: p50 ${run.p50} ms, p99 ${run.p99} ms, p99.9 ${run.p999} ms`;
      return {
        rows: [
          {
            figure: "longest stall that Sluice causes a writer, also during snapshots and compactions: p99",
            measures: [
              { unit: "ms", digits: 1, values: [run.longestPerSecondP99], atMost: 10 },
              { label: "bare", unit: "ms", digits: 1, values: [bare.longestPerSecondP99] },
            ],
            note,
          },
        ],
      };
    },
  };
}

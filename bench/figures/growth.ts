import { rmSync, statSync } from "node:fs";
import path from "node:path";
import { Nodes } from "../../test/e2e/nodes.ts";
import { litestream } from "../lib/litestream.ts";
import { Background, cpuSeconds, idleUse, residentMb, run, seconds, sluice, writer } from "../lib/processes.ts";
import { type Figure, median, type Plot, type Point } from "../lib/report.ts";
import { folder, replicate } from "../lib/sluice.ts";
import { follow, lead, visibleMs } from "../lib/cluster-load.ts";
import { protect } from "./idle.ts";

interface Run {
  readonly commits: number;
  readonly perSecond: number;
}

const RATES = [10, 100, 500, 2000, 5000, 0];
const RATE_SECONDS = 8;

/** What commits cost in processor time: Sluice's, and Litestream's beside the same writer. */
export function writingRate(litestreamBinary: string | undefined): Figure {
  return {
    name: "growth: commits",
    section: "growth",
    seconds: 2 * RATES.length * (RATE_SECONDS + 2),
    async run(scratch) {
      const points: Point[] = [];
      const perCommit = new Map<string, number>();
      const starts: [series: string, start: (db: string, store: string) => Promise<Background>][] = [
        ["Sluice", (db, store) => replicate(db, `file://${store}`)],
      ];
      if (litestreamBinary !== undefined)
        starts.push(["Litestream", (db, store) => litestream(litestreamBinary, db, store)]);
      for (const rate of RATES)
        for (const [series, start] of starts) {
          const dir = folder(scratch, "rate");
          const db = path.join(dir, "app.db");
          await writer("init", db, 16);
          await using beside = await start(db, path.join(dir, "store"));
          const before = cpuSeconds(beside.pids);
          const { commits, perSecond } = await writer<Run>("run", db, RATE_SECONDS, rate, "normal");
          const used = cpuSeconds(beside.pids) - before;
          // Without a rate each series has its own: the fastest is where its line ends.
          points.push({ series, x: rate === 0 ? Math.round(perSecond) : rate, y: [(100 * used) / RATE_SECONDS] });
          perCommit.set(series, (1e6 * used) / commits);
        }
      const plot: Plot = {
        name: "commits",
        title: "Processor time beside a writer",
        x: { title: "commits/s", log: true },
        y: { title: "% of one core" },
        points,
      };
      const measures = Array.from(perCommit, ([label, us]) => ({ label, unit: "µs", values: [us] }));
      const note = `${RATE_SECONDS} s each, 16 MB, \`synchronous=NORMAL\`, a directory as store`;
      return { rows: [{ figure: "processor time for a commit, saturating writer", measures, note }], plots: [plot] };
    },
  };
}

const SIZES_MB = [16, 128, 1024, 10_240];

/** A database's whole life by its size: the first backup, a start in step, a restore, and the memory for it. */
export function databaseSize(): Figure {
  return {
    name: "growth: database size",
    section: "growth",
    seconds: 400,
    async run(scratch) {
      const times: Point[] = [];
      const memory: Point[] = [];
      for (const megabytes of SIZES_MB) {
        const dir = folder(scratch, "size");
        const db = path.join(dir, "app.db");
        const store = `file://${path.join(dir, "store")}`;
        await writer("init", db, megabytes);
        const x = statSync(db).size / 1e6;
        const took = async (series: string, work: () => Promise<unknown>): Promise<void> => {
          times.push({ series, x, y: [await seconds(work)] });
        };
        await took("first backup", () => run(sluice, ["replicate", "--once", db, store]));
        await took("start, in step", async () => {
          await using _started = await replicate(db, store);
        });
        {
          await using started = await replicate(db, store);
          await writer<Run>("run", db, 5, 100, "normal");
          memory.push({ series: "after 500 commits", x, y: [residentMb(started.pids)] });
        }
        rmSync(db);
        await took("restore", () => run(sluice, ["restore", "-o", db, store]));
      }
      const size = { title: "database, MB", log: true } as const;
      const title = "A database by its size";
      return {
        rows: [],
        plots: [
          { name: "size-time", title: `${title}: time`, x: size, y: { title: "s", log: true }, points: times },
          { name: "size-memory", title: `${title}: memory`, x: size, y: { title: "RSS, MB" }, points: memory },
        ],
      };
    },
  };
}

const COUNTS = [1, 10, 100, 1000];
const IDLE_SECONDS = 15;
const SETTLE_MS = 5_000;

/** Databases that nobody writes to, in one process. */
export function databaseCount(): Figure {
  return {
    name: "growth: databases",
    section: "growth",
    seconds: COUNTS.length * (IDLE_SECONDS + 15),
    async run(scratch) {
      const [cpu, memory]: [Point[], Point[]] = [[], []];
      for (const x of COUNTS) {
        await using process = await protect(scratch, x);
        await new Promise((done) => setTimeout(done, SETTLE_MS));
        const use = await idleUse(process.pids, IDLE_SECONDS);
        cpu.push({ series: "idle", x, y: [use.cpuPercent] });
        memory.push({ series: "idle", x, y: [use.rssMb] });
      }
      const count = { title: "databases in one process", log: true } as const;
      const title = "Databases without a writer";
      return {
        rows: [],
        plots: [
          { name: "databases-cpu", title: `${title}: processor`, x: count, y: { title: "% of one core" }, points: cpu },
          { name: "databases-memory", title: `${title}: memory`, x: count, y: { title: "RSS, MB" }, points: memory },
        ],
      };
    },
  };
}

const REPLICAS = [0, 1, 2, 4, 8];
const REPLICA_SECONDS = 6;
const REPLICA_RATE = 500;

/** Replicas on the same machine: what the primary's writer keeps, and how far they are behind. */
export function replicaCount(): Figure {
  return {
    name: "growth: replicas",
    section: "growth",
    seconds: REPLICAS.length * (3 * REPLICA_SECONDS + 10),
    async run() {
      const [kept, lag]: [Point[], Point[]] = [[], []];
      for (const x of REPLICAS) {
        await using nodes = new Nodes();
        await lead(nodes, 16);
        const names = Array.from({ length: x }, (_, i) => `r${i + 1}`);
        await follow(nodes, ...names);
        const { perSecond } = await writer<Run>("run", nodes.db("a"), REPLICA_SECONDS, 0, "normal");
        kept.push({ series: "a saturating writer", x, y: [perSecond] });
        if (x === 0) continue;
        const took = await visibleMs(nodes, names.at(-1)!, REPLICA_SECONDS, REPLICA_RATE);
        lag.push({ series: "p50", x, y: [median(took)] });
        lag.push({ series: "p99", x, y: [took.toSorted((a, b) => a - b)[Math.floor(took.length * 0.99)]!] });
      }
      const count = { title: "replicas, all on the same two cores" };
      return {
        rows: [],
        plots: [
          {
            name: "replicas-writer",
            title: "What the primary's writer keeps",
            x: count,
            y: { title: "commits/s" },
            points: kept,
          },
          {
            name: "replicas-lag",
            title: `Commit → visible on the last replica, ${REPLICA_RATE} commits/s`,
            x: count,
            y: { title: "ms", log: true },
            points: lag,
          },
        ],
      };
    },
  };
}

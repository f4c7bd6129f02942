import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { s3Server } from "../lib/s3.ts";
import { Background, idleUse, residentMb, root, run, sluice, writer } from "../lib/processes.ts";
import { type Figure, type Row } from "../lib/report.ts";
import { Control, folder } from "../lib/sluice.ts";

const SETTLE_MS = 5_000;
const SECONDS = 30;

function row(
  figure: string,
  goal: { cpu: number; rss: number },
  use: { cpuPercent: number; rssMb: number },
  note: string,
): Row {
  const measures = [
    { label: "CPU", unit: "%", digits: 2, values: [use.cpuPercent], atMost: goal.cpu },
    { label: "RSS", unit: "MB", values: [use.rssMb], atMost: goal.rss },
  ];
  return { figure, measures, note };
}

/** One database, nobody writes; twice, so that the compile cache is filled. */
export function idleOne(): Figure {
  return {
    name: "idle process",
    section: "one node",
    seconds: 3 * (SECONDS + 8),
    async run(scratch) {
      const dir = folder(scratch, "idle");
      const db = path.join(dir, "app.db");
      const store = `file://${path.join(dir, "store")}`;
      await writer("init", db, 10);
      const note = `${SECONDS} s after ${SETTLE_MS / 1000} s of rest; CPU by the scheduler's counters, RSS added up over processes`;
      const rows: Row[] = [];
      await using server = await s3Server(scratch);
      const cases: [figure: string, goal: { cpu: number; rss: number }, args: string[], apps: number][] = [
        ["idle, one database, `replicate`, directory store", { cpu: 0.3, rss: 100 }, ["replicate", db, store], 0],
        [
          "the same under `run`, guardian included",
          { cpu: 0.4, rss: 150 },
          ["run", "--db", db, "--store", store, "--", "sleep", "100000"],
          1,
        ],
      ];
      const other = path.join(dir, "s3.db");
      copyFileSync(db, other);
      if (server)
        cases.push(["the same, `replicate`, S3", { cpu: 0.3, rss: 130 }, ["replicate", other, server.url("idle")], 0]);
      for (const [figure, goal, args, apps] of cases) {
        await run(sluice, ["version"]);
        await using process = new Background(sluice, args, { LOG_LEVEL: "info", ...server?.env });
        await process.printed(/protected/);
        await new Promise((done) => setTimeout(done, SETTLE_MS));
        // The application, which is started last, is not Sluice.
        const pids = process.pids.slice(0, process.pids.length - apps);
        rows.push(row(figure, goal, await idleUse(pids, SECONDS), note));
      }
      return { rows };
    },
  };
}

/** Many databases of a directory: idle, and with a few that are written to. */
export function many(): Figure {
  return {
    name: "many databases",
    section: "one node",
    seconds: 120,
    async run(scratch) {
      const rows: Row[] = [];
      {
        await using process = await protect(scratch, 100);
        await new Promise((done) => setTimeout(done, SETTLE_MS));
        const use = await idleUse(process.pids, SECONDS);
        rows.push(row("idle, 100 databases", { cpu: 1, rss: 200 }, use, `directory mode, ${SECONDS} s`));
      }
      rows.push(await written(scratch));
      return { rows };
    },
  };
}

const BUSY = 10;
const BUSY_SECONDS = 20;

/** 1,000 databases, ten written to at any time; what each writer committed must be in the store soon after. */
async function written(scratch: string): Promise<Row> {
  await using process = await protect(scratch, 1000);
  const file = (i: number): string => path.join(scratch, "many", "data", `${i}.db`);
  const start = Date.now();
  let most = 0;
  let slowest = 0;
  for (let turn = 0; Date.now() - start < BUSY_SECONDS * 1000; turn++) {
    const some = Array.from({ length: BUSY }, (_, i) => file((turn * BUSY + i) % 1000));
    await Promise.all(
      some.map((db) => run("python3", [path.join(root, "bench/apps/writer.py"), "run", db, "1", "50", "normal"])),
    );
    const syncs = some.map(async (db) => {
      const since = performance.now();
      await new Control(db).sync(db);
      slowest = Math.max(slowest, performance.now() - since);
    });
    await Promise.all(syncs);
    most = Math.max(most, residentMb(process.pids));
  }
  return {
    figure: "1,000 databases, 10 of them written to at any time, none starved",
    measures: [
      { label: "RSS", unit: "MB", values: [most], atMost: 400, worst: true },
      { label: "slowest `sync --wait store`", unit: "ms", values: [slowest], atMost: 2000, worst: true },
    ],
    note: `${BUSY_SECONDS} s, ten others each second, 50 commits/s each; largest RSS seen`,
  };
}

export async function protect(scratch: string, count: number): Promise<Background> {
  const dir = folder(scratch, "many");
  const data = path.join(dir, "data");
  mkdirSync(data);
  const first = path.join(data, "0.db");
  await writer("init", first, 0.1);
  for (let i = 1; i < count; i++) copyFileSync(first, path.join(data, `${i}.db`));
  const config = path.join(dir, "sluice.yml");
  writeFileSync(config, `dbs: [ { dir: ${data}, store: "file://${path.join(dir, "store")}" } ]\n`);
  const process = new Background(sluice, ["replicate", "--config", config], { LOG_LEVEL: "info" });
  const end = Date.now() + 120_000;
  while (!(await allProtected(first, count)) && Date.now() < end) await new Promise((done) => setTimeout(done, 200));
  return process;
}

async function allProtected(db: string, count: number): Promise<boolean> {
  try {
    const states = await new Control(db).states();
    return states.length === count && states.every((state) => state === "protected");
  } catch {
    return false;
  }
}

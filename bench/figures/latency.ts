import path from "node:path";
import Database from "better-sqlite3";
import { Control, folder, replicate } from "../lib/sluice.ts";
import { writer } from "../lib/processes.ts";
import { type Figure, quantile, type Row } from "../lib/report.ts";

const COMMITS = 400;

/** Commit, then `sync --wait store` over the control socket: until the answer says that it's in the store. */
export function commitToStore(): Figure {
  return {
    name: "commit to store",
    section: "one node",
    seconds: 15,
    async run(scratch) {
      const dir = folder(scratch, "durable");
      const file = path.join(dir, "app.db");
      await writer("init", file, 4);
      await using _sluice = await replicate(file, `file://${path.join(dir, "store")}`);
      const db = new Database(file, { timeout: 5000 });
      const insert = db.prepare("insert into log(t) values(?)");
      const control = new Control(file);
      const took: number[] = [];
      for (let i = 0; i < COMMITS; i++) {
        insert.run(i);
        const start = performance.now();
        await control.sync(file);
        took.push(performance.now() - start);
        await new Promise((done) => setTimeout(done, 10));
      }
      db.close();
      const [p50, p99] = [quantile(took, 0.5), quantile(took, 0.99)];
      return {
        rows: [
          {
            figure: "commit → in the store (directory) with `sync --wait store`",
            measures: [
              { label: "p50", unit: "ms", digits: 1, values: [p50], atMost: 10 },
              { label: "p99", unit: "ms", digits: 1, values: [p99], atMost: 50 },
            ],
            note: `${COMMITS} commits; \`POST /v1/sync\` over the control socket, as the command does once it has started`,
          },
        ],
      };
    },
  };
}

interface CaptureEvent {
  readonly db: string;
  readonly commits: number;
  readonly atMs: number;
}

/** Commits some ms apart; when each was captured is read from the process's events. */
export function commitToCaptured(): Figure {
  return {
    name: "commit to captured",
    section: "one node",
    seconds: 40,
    async run(scratch) {
      const rows: Row[] = [];
      for (const sync of ["full", "normal"]) {
        const dir = folder(scratch, "captured");
        const file = path.join(dir, "app.db");
        await writer("init", file, 4);
        await using _sluice = await replicate(file, `file://${path.join(dir, "store")}`);
        const control = new Control(file);
        const events: CaptureEvent[] = [];
        const stop = control.events((type, data) => {
          if (type === "commit") events.push(data as CaptureEvent);
        });
        await new Promise((done) => setTimeout(done, 500));
        const stamps = await writer<number[]>("stamp", file, COMMITS, 0.03, sync);
        await new Promise((done) => setTimeout(done, 1000));
        stop();
        rows.push(captured(sync, stamps, events));
      }
      return { rows };
    },
  };
}

/** The writer's n-th commit is captured with the first event that has counted n commits. */
function captured(sync: string, stamps: readonly number[], events: readonly CaptureEvent[]): Row {
  const took: number[] = [];
  let counted = 0;
  for (const event of events) {
    const until = Math.min(counted + event.commits, stamps.length);
    for (; counted < until; counted++) took.push(event.atMs - stamps[counted]!);
  }
  const missed = stamps.length - counted;
  const [p50, p99] = [quantile(took, 0.5), quantile(took, 0.99)];
  return {
    figure: `commit → captured, \`synchronous=${sync.toUpperCase()}\``,
    measures: [
      { label: "p50", unit: "ms", digits: 1, values: [p50], atMost: 2 },
      { label: "p99", unit: "ms", digits: 1, values: [p99], atMost: 25 },
      { label: "missed", values: [missed], atMost: 0, worst: true },
    ],
    note: `${stamps.length} commits 30 ms apart, from the return of the commit in another process`,
  };
}

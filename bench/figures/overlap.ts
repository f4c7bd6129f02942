import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import path from "node:path";
import Database from "better-sqlite3";
import { describeLog } from "../../src/log/describe.ts";
import { restore } from "../../src/log/restore.ts";
import { epochOf, seqOf } from "../../src/ltx/position.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { type Background, root } from "../lib/processes.ts";
import { type Figure, median } from "../lib/report.ts";
import { folder, replicate } from "../lib/sluice.ts";

const TAKEOVERS = 20;
const BETWEEN_MS = 700;

/** Sluices that take over from each other beside a writer without a pause, which notes each commit and how long it took. */
export function overlap(): Figure {
  return {
    name: "overlap on one host",
    section: "clusters",
    seconds: 45,
    async run(scratch) {
      const dir = folder(scratch, "overlap");
      const file = path.join(dir, "app.db");
      const db = new Database(file);
      db.pragma("journal_mode = wal");
      db.exec("create table written(name, n, filler)");
      db.close();
      const store = path.join(dir, "store");
      const journal = path.join(dir, "journal");
      let owner = await replicate(file, `file://${store}`);
      const bare = path.join(dir, "bare");
      const writer = start(file, journal);
      try {
        for (let i = 0; i < TAKEOVERS; i++) {
          await new Promise((done) => setTimeout(done, BETWEEN_MS));
          const next = await replicate(file, `file://${store}`);
          await ended(owner);
          owner = next;
        }
      } finally {
        await stop(writer);
        await ended(owner);
      }
      // The same writer with nobody beside it, for as long: what of the longest commit is the machine's.
      const alone = start(file, bare);
      await new Promise((done) => setTimeout(done, TAKEOVERS * BETWEEN_MS));
      await stop(alone);
      const { made, failed, longestMs } = told(journal);
      const { named, rows } = await captured(store, path.join(dir, "copy.db"));
      const lost = made - Math.min(named, rows);
      return {
        rows: [
          {
            figure: "overlap on one host under load of writes",
            measures: [
              { label: "failed writes", values: [failed], atMost: 0, worst: true },
              { label: "commits not captured", values: [lost], atMost: 0, worst: true },
              { label: "longest stall", unit: "ms", values: [longestMs], atMost: 100, worst: true },
            ],
            note:
              `${TAKEOVERS} takeovers beside a saturating writer, ${made} commits (its own record; the log names ${named} one by one, ` +
              `a restore has ${rows}); the longest commit of all, without any Sluice ${told(bare).longestMs.toFixed(0)} ms; ` +
              `median commit ${told(journal).medianMs.toFixed(2)} ms`,
          },
        ],
      };
    },
  };
}

function start(file: string, journal: string): ChildProcess {
  return spawn("python3", [path.join(root, "test/apps/steady.py"), file, journal, "a"], { stdio: "inherit" });
}

async function stop(writer: ChildProcess): Promise<void> {
  const closed = once(writer, "close");
  writer.kill("SIGTERM");
  await closed;
}

async function ended(sluice: Background): Promise<void> {
  await sluice[Symbol.asyncDispose]();
}

interface Told {
  readonly made: number;
  readonly failed: number;
  readonly longestMs: number;
  readonly medianMs: number;
}

function told(journal: string): Told {
  const lines = readFileSync(journal, "utf8").split("\n").slice(0, -1);
  const times = lines.filter((line) => !line.startsWith("failed")).map((line) => Number(line.split(" ")[1]));
  return {
    made: times.length,
    failed: lines.length - times.length,
    longestMs: times.reduce((longest, ms) => Math.max(longest, ms), 0),
    medianMs: median(times),
  };
}

/** How many commits the log's positions name, and how many rows come out of it. */
async function captured(dir: string, copy: string): Promise<{ readonly named: number; readonly rows: number }> {
  const store = new DirectoryStore(dir);
  const last = new Map<number, number>();
  for (const { record } of await describeLog({ store, prefix: "" })) {
    if (record === undefined || epochOf(record.position) === 0) continue;
    const epoch = epochOf(record.position);
    last.set(epoch, Math.max(last.get(epoch) ?? 0, seqOf(record.position)));
  }
  await restore({ store, prefix: "", path: copy });
  const db = new Database(copy, { readonly: true });
  const rows = db.prepare("select count(*) from written").pluck().get() as number;
  db.close();
  return { named: [...last.values()].reduce((sum, seq) => sum + seq, 0), rows };
}

import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import Database from "better-sqlite3";
import { Background, run, seconds, sluice, writer } from "../lib/processes.ts";
import { type Figure, median, type Row } from "../lib/report.ts";
import { folder, replicate } from "../lib/sluice.ts";

const MEGABYTES = 1024;
const ROUNDS = 3;

/** 1 GiB: a log of Sluice's and Litestream's, in one directory store; both programs restore it, and `cp` copies the file. */
export function restoreOneGibibyte(litestreamBinary: string | undefined): Figure {
  return {
    name: "restore of 1 GiB",
    section: "one node",
    seconds: 240,
    async run(scratch) {
      const dir = folder(scratch, "restore");
      const db = path.join(dir, "app.db");
      const store = path.join(dir, "store");
      await writer("init", db, MEGABYTES);
      await run(sluice, ["replicate", "--once", db, `file://${store}`]);
      const out = path.join(dir, "out.db");
      const clear = (): void => {
        for (const suffix of ["", "-wal", "-shm", "-txid"]) rmSync(out + suffix, { force: true });
      };
      const ours: number[] = [];
      const checked: number[] = [];
      const theirs: number[] = [];
      const copies: number[] = [];
      const synced: number[] = [];
      const timed = async (into: number[], command: string, args: string[]): Promise<void> => {
        clear();
        into.push(await seconds(() => run(command, args)));
      };
      for (let round = 0; round <= ROUNDS; round++) {
        await timed(copies, "cp", [db, out]);
        synced.push(copies.at(-1)! + (await seconds(() => run("sync", [out]))));
        await timed(ours, sluice, ["restore", "--integrity-check", "none", "-o", out, `file://${store}`]);
        await timed(checked, sluice, ["restore", "-o", out, `file://${store}`]);
        if (litestreamBinary !== undefined)
          await timed(theirs, litestreamBinary, ["restore", "-o", out, `file://${store}`]);
      }
      // The first round only warms the page cache.
      for (const values of [ours, checked, theirs, copies, synced]) values.shift();
      return { rows: rows(ours, checked, theirs, copies, synced) };
    },
  };
}

function rows(ours: number[], checked: number[], theirs: number[], copies: number[], synced: number[]): Row[] {
  const against = (others: number[]): number[] => others.map((value, i) => value / ours[i]!);
  const row: Row = {
    figure: "restore of 1 GiB from a directory ÷ `cp`",
    measures: [{ values: against(copies), digits: 2, atLeast: 0.4 }],
    note:
      `\`cp\` of the file in the page cache, which leaves it to the system when the copy is written: ${median(copies).toFixed(2)} s ` +
      `(synced, as a restored file is, ${median(synced).toFixed(2)} s: ${median(against(synced)).toFixed(2)}); the restore reads the log from the page cache, decompresses, and checks every checksum`,
  };
  if (theirs.length === 0) return [row];
  const note =
    `${ROUNDS} rounds in one directory store, none with SQLite's own check: ${median(ours).toFixed(1)} s against ${median(theirs).toFixed(1)} s; ` +
    `with the default \`--integrity-check quick\` ${median(checked).toFixed(1)} s`;
  const measures = [{ unit: "×", values: against(theirs), digits: 1, atLeast: 2 }];
  return [{ figure: "restore of 1 GiB, as fast as Litestream, same bucket", measures, note }, row];
}

interface Run {
  readonly p50: number;
  readonly p99: number;
}

const SNAPSHOT_SECONDS = 12;

/** A writer of 500 commits/s on 1 GiB: alone with Sluice, and while the first snapshot is made. */
export function snapshotAndStart(): Figure {
  return {
    name: "snapshot and start of 1 GiB",
    section: "one node",
    seconds: 120,
    async run(scratch) {
      const dir = folder(scratch, "snapshot");
      const db = path.join(dir, "app.db");
      await writer("init", db, MEGABYTES);
      const quiet: Run[] = [];
      const during: Run[] = [];
      for (let round = 0; round < ROUNDS; round++) {
        const store = path.join(dir, `store-${round}`);
        mkdirSync(store);
        const copy = path.join(dir, "copy.db");
        for (const suffix of ["", "-wal", "-shm"]) rmSync(copy + suffix, { force: true });
        rmSync(path.join(dir, ".copy.db-sluice"), { recursive: true, force: true });
        copyFileSync(db, copy);
        quiet.push(await writer<Run>("run", copy, SNAPSHOT_SECONDS, 500, "normal"));
        // Right after the takeover a snapshot follows, because the log has none.
        await using process = await replicate(copy, `file://${store}`);
        during.push(await writer<Run>("run", copy, SNAPSHOT_SECONDS, 500, "normal"));
        await process.printed(/snapshot/);
      }
      return {
        rows: [
          {
            figure: "snapshot of 1 GiB: write latency p99 for the application ÷ bare",
            measures: [{ values: during.map((value, i) => value.p99 / quiet[i]!.p99), digits: 1, atMost: 2 }],
            note:
              `p99 of commits at 500/s for ${SNAPSHOT_SECONDS} s, bare (${median(quiet.map(({ p99 }) => p99)).toFixed(2)} ms) and ` +
              `while Sluice writes the first snapshot (${median(during.map(({ p99 }) => p99)).toFixed(2)} ms); ${ROUNDS} pairs`,
          },
          await startInStep(dir, db),
        ],
      };
    },
  };
}

async function startInStep(dir: string, db: string): Promise<Row> {
  const store = `file://${path.join(dir, "store-start")}`;
  {
    await using process = await replicate(db, store);
    const connection = new Database(db);
    connection.exec("insert into log(t) values(0)");
    connection.close();
    await process.printed(/snapshot/);
  }
  const ready: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const start = performance.now();
    await using process = new Background(sluice, ["replicate", db, store], { LOG_LEVEL: "info" });
    await process.printed(/protected/);
    ready.push((performance.now() - start) / 1000);
  }
  return {
    figure: "start with a 1 GiB database already in step",
    measures: [{ unit: "s", digits: 2, values: ready, atMost: 2, worst: true }],
    note: "from the start of the process until it's ready, after clean stops; the largest counts",
  };
}

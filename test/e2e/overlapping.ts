import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, rmSync } from "node:fs";
import path from "node:path";
import Sqlite from "better-sqlite3";
import { describeLog } from "../../src/log/describe.ts";
import { restore } from "../../src/log/restore.ts";
import { epochOf, seqOf } from "../../src/ltx/position.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { environment, launcher, Place, Running } from "../cli/sluice.ts";
import { until } from "../database/apps.ts";
import type { StopPoint } from "./stop-at-message.ts";

const WRITER = path.resolve(import.meta.dirname, "../apps/steady.py");
const STOP = path.resolve(import.meta.dirname, "stop-at-message.ts");

export interface Commits {
  /** What the writers have written down. */
  readonly made: number;
  readonly failures: readonly string[];
  readonly longestMs: number;
}

/** One database with writers that leave no pause, and Sluices of this host that follow each other. */
export class Overlapping implements AsyncDisposable {
  readonly place = new Place();
  readonly db = this.place.path("app.db");
  readonly #writers: ChildProcess[] = [];
  readonly #sluices: Running[] = [];

  constructor() {
    const db = new Sqlite(this.db);
    db.pragma("journal_mode = wal");
    db.exec("create table written(name, n, filler)");
    db.close();
  }

  /** A Sluice; its log is JSON. `stop`: where it stops itself. */
  sluice(args: readonly string[] = ["replicate", this.db, this.place.store], stop?: StopPoint): Running {
    const env = {
      ...environment(),
      ...(stop && { NODE_OPTIONS: `--import=${STOP}`, SLUICE_STOP: JSON.stringify(stop) }),
    };
    const sluice = new Running(spawn(launcher, args, { env, cwd: this.place.dir, stdio: ["ignore", "pipe", "pipe"] }));
    this.#sluices.push(sluice);
    return sluice;
  }

  /** The same, and waits until it protects the database. */
  async protecting(...args: Parameters<Overlapping["sluice"]>): Promise<Running> {
    const sluice = this.sluice(...args);
    await sluice.said('"message":"protected"');
    return sluice;
  }

  /** Each goes on until `finish`. */
  write(...names: readonly string[]): void {
    for (const name of names) {
      const args = [WRITER, this.db, this.place.path(`${name}.journal`), name];
      this.#writers.push(spawn("python3", args, { stdio: "inherit" }));
    }
  }

  /** Waits until the writers have made so many commits more. */
  async more(commits: number): Promise<void> {
    const { made } = this.commits;
    await until(() => this.commits.made >= made + commits, `${commits} commits more`, 30_000);
  }

  get commits(): Commits {
    const lines = ["a", "b"].flatMap((name) => journal(this.place.path(`${name}.journal`)));
    const times = lines.filter((line) => !line.startsWith("failed")).map((line) => Number(line.split(" ")[1]));
    return {
      made: times.length,
      failures: lines.filter((line) => line.startsWith("failed")),
      longestMs: times.reduce((longest, ms) => Math.max(longest, ms), 0),
    };
  }

  /** The writers end; what they have made. */
  async finish(): Promise<Commits> {
    for (const writer of this.#writers) {
      const closed = once(writer, "close");
      writer.kill("SIGTERM");
      await closed;
    }
    return this.commits;
  }

  /** How many commits the log names, one by one, and how many rows a restore from it has. */
  async stored(): Promise<{ readonly named: number; readonly rows: number }> {
    const store = new DirectoryStore(this.place.path("store"));
    const copy = this.place.path("copy.db");
    rmSync(copy, { force: true });
    const last = new Map<number, number>();
    for (const { record } of await describeLog({ store, prefix: "" }, { level: 0 })) {
      if (record === undefined) continue;
      const epoch = epochOf(record.position);
      last.set(epoch, Math.max(last.get(epoch) ?? 0, seqOf(record.position)));
    }
    // What was there before the first Sluice.
    last.delete(0);
    await restore({ store, prefix: "", path: copy });
    return { named: [...last.values()].reduce((sum, seq) => sum + seq, 0), rows: rowsOf(copy) };
  }

  get rows(): number {
    return rowsOf(this.db);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const writer of this.#writers) writer.kill("SIGKILL");
    for (const sluice of this.#sluices) {
      sluice.child.kill("SIGCONT");
      await sluice.end("SIGKILL");
    }
    await this.place[Symbol.asyncDispose]();
  }
}

function journal(file: string): string[] {
  try {
    return readFileSync(file, "utf8").split("\n").slice(0, -1);
  } catch {
    return [];
  }
}

function rowsOf(file: string): number {
  const db = new Sqlite(file, { readonly: true, timeout: 10_000 });
  try {
    return db.prepare("select count(*) from (select distinct name, n from written)").pluck().get() as number;
  } finally {
    db.close();
  }
}

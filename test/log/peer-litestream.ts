import Database from "better-sqlite3";
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";

const run = promisify(execFile);

/** Runs a Litestream beside a database; `replica`: the YAML of the replica, without indentation. */
export class Litestream {
  readonly #process: ChildProcess;

  constructor(binary: string, db: string, settings: string, environment: NodeJS.ProcessEnv = {}) {
    const config = `${db}.yml`;
    writeFileSync(config, settings);
    this.#process = spawn(binary, ["replicate", "-config", config], {
      stdio: "ignore",
      env: clean(environment),
    });
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode !== null) return;
    this.#process.kill("SIGTERM");
    await once(this.#process, "exit");
  }
}

/** Without a certificate bundle for S3 that this machine may have: Litestream can't take one. */
function clean(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const { AWS_CA_BUNDLE: _, ...inherited } = process.env;
  return { ...inherited, ...environment };
}

/**
 * Settings of Litestream 0.5 with which much happens in ten seconds: three levels, snapshots, retention of level 0, and,
 * with `checkpoints`, a WAL that begins anew. Around that 0.5.12 loses pages of its own log when the machine is busy.
 */
export function busySettings(db: string, replica: Readonly<Record<string, string>>, checkpoints = true): string {
  const lines = Object.entries(replica).map(([key, value]) => `      ${key}: ${value}`);
  return `levels:
  - interval: 2s
  - interval: 4s
snapshot: { interval: 3s, retention: 1h }
l0-retention: 4s
l0-retention-check-interval: 1s
dbs:
  - path: ${db}
    monitor-interval: 50ms
    min-checkpoint-page-count: ${checkpoints ? 100 : 100_000}
    replica:
${lines.join("\n")}
      sync-interval: 100ms
`;
}

/**
 * Writes and deletes, and so grows a database, for `durationMs`. `shrinks`: with VACUUM, too; Litestream 0.5.12, when it
 * is that busy, leaves pages out of its own log around one, and can't restore it either.
 */
export async function churn(db: string, durationMs: number, shrinks = true): Promise<void> {
  const app = new Database(db, { timeout: 10_000 });
  app.pragma("journal_mode = WAL");
  app.exec(
    "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v INTEGER, b BLOB); CREATE INDEX IF NOT EXISTS i ON t(v)",
  );
  const end = Date.now() + durationMs;
  for (let n = 0; Date.now() < end; n++) {
    app.prepare("INSERT INTO t(v, b) VALUES (?, randomblob(?))").run(n, 100 + ((n * 37) % 6000));
    if (n % 9 === 0) app.prepare("UPDATE t SET v = v + 1 WHERE id % 7 = ?").run(n % 7);
    if (n % 50 === 49) app.exec("DELETE FROM t WHERE id % 2 = 0");
    if (n % 50 === 49 && shrinks) app.exec("VACUUM");
    await sleep(20);
  }
  app.close();
}

const NOTHING_THERE =
  /transaction not available|timestamp does not exist|no matching backups|no snapshots? (found|available)/i;

/** What `litestream restore` makes of it; false when it says that there's nothing for these arguments. */
export async function litestreamRestore(
  binary: string,
  url: string,
  output: string,
  args: readonly string[] = [],
  environment: NodeJS.ProcessEnv = {},
): Promise<boolean> {
  for (const suffix of ["", "-wal", "-shm"]) rmSync(output + suffix, { force: true });
  try {
    await run(binary, ["restore", "-o", output, ...args, url], { env: clean(environment) });
  } catch (error) {
    const { stderr } = error as { readonly stderr: string };
    if (NOTHING_THERE.test(stderr)) return false;
    throw new Error(stderr, { cause: error });
  }
  return existsSync(output) && statSync(output).size > 0;
}

/** The time as Litestream's `-timestamp` takes it. */
export function rfc3339(ms: number): string {
  return new Date(ms).toISOString();
}

export function bucketOf(db: string): string {
  return path.join(path.dirname(db), "bucket");
}

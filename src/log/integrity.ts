import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { SluiceError } from "../errors/error.ts";
import type { SqliteAnswer, SqliteTask } from "./sqlite-worker.ts";

/** How thoroughly SQLite looks at a restored file: `quick` leaves out that indexes match their tables. */
export type IntegrityCheck = "none" | "quick" | "full";

const TASKS = { quick: "quick_check", full: "integrity_check" } as const;

/**
 * Lets SQLite check the database at `path`, in another thread. Throws SLU-4507 with what it found; nobody else may
 * have the file open.
 */
export async function checkIntegrity(path: string, check: "quick" | "full", name: string): Promise<void> {
  const answer = await runSqlite({ task: TASKS[check], path });
  const problems = "problems" in answer ? answer.problems : [`${answer.sqliteCode}: ${answer.message}`];
  if (problems.length === 0) return;
  throw new SluiceError("SLU-4507", `${name}: PRAGMA ${TASKS[check]} found: ${problems.join("; ")}`);
}

/** One task for SQLite in a thread of its own. */
export async function runSqlite(task: SqliteTask): Promise<SqliteAnswer> {
  // The compiled program has this file's neighbour as .js, the sources as .ts.
  const file = import.meta.url.endsWith(".ts") ? "./sqlite-worker.ts" : "./sqlite-worker.js";
  const worker = new Worker(new URL(file, import.meta.url), { workerData: task });
  try {
    // `once` rejects with the worker's "error" event.
    const [answer] = (await once(worker, "message")) as [SqliteAnswer];
    return answer;
  } finally {
    await worker.terminate();
  }
}

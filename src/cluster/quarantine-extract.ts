import { copyFileSync, existsSync, ftruncateSync, readSync } from "node:fs";
import type { Quarantined } from "../database/quarantined.ts";
import { readLtx } from "../database/local-batches.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { runSqlite } from "../log/integrity.ts";
import { RestoreTarget, writeError } from "../log/target.ts";
import { writeFully } from "../log/write-fully.ts";
import { DatabaseSum } from "../ltx/database-sum.ts";
import { type Base, basesOf, type BaseSources, writeBase } from "./quarantine-base.ts";

export interface ExtractOptions extends BaseSources {
  readonly entry: Quarantined;
  /** Where the database goes. */
  readonly to: string;
  /** Replace a file that is there. */
  readonly force?: boolean;
}

export interface Extracted {
  readonly path: string;
  readonly sizeBytes: number;
  /** Undefined for a whole file. */
  readonly base: Base | undefined;
  /** Why a better base was not used; undefined when there was none. */
  readonly baseProblem: string | undefined;
  /** Whether it has the checksum of the state that was left; undefined where that is not known. */
  readonly exact: boolean | undefined;
  /** What SQLite's `integrity_check` found; empty when it's sound. */
  readonly problems: readonly string[];
}

interface Built {
  readonly base: Base;
  readonly exact: boolean | undefined;
}

const CHUNK_BYTES = 1024 * 1024;

/**
 * Makes a database of an entry of the quarantine, which stays as it is: a whole file is copied, pages are laid over the
 * state that they go on from. SQLite checks the result; what it finds is told, and the file is put in place all the
 * same, because half of one's data is more than none.
 *
 * Throws SLU-1011 for an entry that can't be read, SLU-1012 when there is nothing to lay its pages over, SLU-4505 when
 * `to` exists and not `force`, and what a restore throws.
 */
export async function extractQuarantined(options: ExtractOptions): Promise<Extracted> {
  const { entry, to, force = false, signal } = options;
  if (entry.problem !== undefined) {
    throw new SluiceError("SLU-1011", `${entry.path}: ${entry.problem}`);
  }
  const target = await RestoreTarget.create(to, { force, like: options.database });
  try {
    let built: Built | undefined;
    const problems: string[] = [];
    if (entry.databaseFile === undefined) built = await build(options, target, problems);
    else await copyWhole(entry.databaseFile, target);
    signal?.throwIfAborted();
    const sizeBytes = target.size();
    const found = await check(target.temporaryPath);
    await target.sync();
    signal?.throwIfAborted();
    await target.install();
    return {
      path: target.path,
      sizeBytes,
      base: built?.base,
      baseProblem: problems[0],
      exact: built?.exact,
      problems: found,
    };
  } catch (error) {
    throw writeError(target.path, error);
  } finally {
    await target.discard();
  }
}

/** Over the first base that gives the state that was left; where none does, over the best there is. */
async function build(options: ExtractOptions, target: RestoreTarget, problems: string[]): Promise<Built> {
  const { entry } = options;
  const usable: Base["kind"][] = [];
  for (const kind of basesOf(entry, options)) {
    try {
      const built = await layOver(kind, options, target);
      if (built.exact !== false) return built;
      usable.push(kind);
    } catch (error) {
      if (!isSluiceError(error) || options.signal?.aborted === true) throw error;
      problems.push(error.message);
    }
  }
  const [best] = usable;
  if (best === undefined) {
    const why = problems.length === 0 ? "its log is not known and the database isn't there" : problems.join("; ");
    throw new SluiceError(
      "SLU-1012",
      `${entry.id} has only the pages that differed, and nothing to lay them over: ${why}`,
    );
  }
  return layOver(best, options, target);
}

async function layOver(kind: Base["kind"], options: ExtractOptions, target: RestoreTarget): Promise<Built> {
  const { entry, signal } = options;
  const base = await writeBase(kind, entry, options, target);
  const from = base.kind === "log" ? base.txid : 0;
  for (const file of entry.files) {
    if (file.header.maxTxid <= from) continue;
    signal?.throwIfAborted();
    const { pageSize, pageCount } = await readLtx(file.path, {
      page: (pgno, content) => writeFully(target.fd, content, (pgno - 1) * content.length),
    });
    ftruncateSync(target.fd, pageCount * pageSize);
  }
  const last = entry.files.at(-1)!;
  if (last.checksum === 0n) return { base, exact: undefined };
  return { base, exact: (await checksumOf(target.fd, last.header.pageSize, last.header.pageCount)) === last.checksum };
}

/** The database's checksum (protocol section 6), with turns for others in between. */
async function checksumOf(fd: number, pageSize: number, pageCount: number): Promise<bigint> {
  const sum = new DatabaseSum(pageSize);
  const chunk = Buffer.alloc(CHUNK_BYTES);
  const sizeBytes = pageSize * pageCount;
  for (let at = 0; at < sizeBytes; at += CHUNK_BYTES) {
    chunk.fill(0, readSync(fd, chunk, 0, CHUNK_BYTES, at));
    sum.add(chunk.subarray(0, Math.min(CHUNK_BYTES, sizeBytes - at)));
    await new Promise(setImmediate);
  }
  return sum.value;
}

/** With a WAL that was left beside it because somebody had it open. */
async function copyWhole(file: string, target: RestoreTarget): Promise<void> {
  copyFileSync(file, target.temporaryPath);
  if (!existsSync(`${file}-wal`)) return;
  copyFileSync(`${file}-wal`, `${target.temporaryPath}-wal`);
  const merged = await runSqlite({ task: "merge", path: target.temporaryPath });
  if ("sqliteCode" in merged) throw new SluiceError("SLU-1011", `${file}: ${merged.sqliteCode}: ${merged.message}`);
}

async function check(file: string): Promise<readonly string[]> {
  const answer = await runSqlite({ task: "integrity_check", path: file });
  return "problems" in answer ? answer.problems : [`${answer.sqliteCode}: ${answer.message}`];
}

import { createWriteStream } from "node:fs";
import { link, mkdir, rm, stat } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { isSluiceError, SluiceError, systemErrorCode } from "../errors/error.ts";
import { Backoff, untilAnswered, UPKEEP_TRIES_MAX, type LogContext } from "./context.ts";
import { formatTxid } from "./layout.ts";
import type { Compaction } from "./levels.ts";
import type { LogFile } from "./listing.ts";
import type { LtxWork } from "./ltx-work.ts";

export interface CompactorOptions {
  readonly context: LogContext;
  /** Where sources and results are kept while a file is made; emptied before and after. */
  readonly workDir: string;
  readonly ltx: LtxWork;
  /** The local file of a confirmed record, while there may be one. */
  readonly localPath: (source: LogFile) => string | undefined;
}

/** A source that the listing shows is not in the store any more. */
export class SourceGone extends Error {
  readonly source: LogFile;

  constructor(source: LogFile) {
    super(`${source.key} is gone`);
    this.source = source;
  }
}

/** A source can't be what was once written: no repetition heals that. */
export class SourceDamaged extends SluiceError {
  constructor(plan: Compaction, cause: SluiceError) {
    super("SLU-4111", `a source of ${describe(plan)} on level ${plan.level} is damaged: ${cause.message}`, { cause });
  }
}

/**
 * Makes one file of a higher level from files of the level below: all of them in the log, so nothing that a deposed
 * primary has sealed gets in. The result is created conditionally, under a name that says all about it; one that is
 * there already holds the same records and is taken for it.
 *
 * Killed anywhere: the work directory is emptied by the next compaction; no source is touched. A full disk fails
 * this compaction (SLU-2008), and it's tried again later.
 */
export class Compactor {
  readonly #options: CompactorOptions;

  constructor(options: CompactorOptions) {
    this.#options = options;
  }

  /**
   * Returns the new file. Throws SourceGone, SourceDamaged, SLU-4109 when `signal` is aborted, SLU-2008, and the
   * store's errors when it does not answer for long.
   */
  async compact(plan: Compaction, signal: AbortSignal): Promise<LogFile> {
    const { context, workDir, ltx } = this.#options;
    const startedMs = context.clock.now();
    try {
      await rm(workDir, { recursive: true, force: true });
      await mkdir(workDir, { recursive: true, mode: 0o700 });
      const inputs: string[] = [];
      for (const [index, source] of plan.sources.entries()) {
        inputs.push(await this.#bring(source, path.join(workDir, `${index}.ltx`), signal));
      }
      const output = path.join(workDir, "merged.ltx");
      const merged = await ltx.merge(inputs, output, signal);
      if (merged.minTxid !== plan.minTxid || merged.maxTxid !== plan.maxTxid) {
        const made = `${formatTxid(merged.minTxid)}-${formatTxid(merged.maxTxid)}`;
        throw new SluiceError("SLU-4111", `${context.url}: merged ${made} instead of ${describe(plan)}`);
      }
      const file = await this.#upload(plan, output, merged, signal);
      const tookMs = context.clock.now() - startedMs;
      const { level, minTxid, maxTxid } = plan;
      context.onEvent({ type: "compacted", level, minTxid, maxTxid, sizeBytes: file.sizeBytes, tookMs });
      return file;
    } catch (error) {
      if (isSluiceError(error) && error.code.startsWith("SLU-5")) throw new SourceDamaged(plan, error);
      throw diskFull(error, workDir);
    } finally {
      await rm(workDir, { recursive: true, force: true });
    }
  }

  /** A source as a local file that stays: a second link to the sealed batch, or a download. */
  async #bring(source: LogFile, target: string, signal: AbortSignal): Promise<string> {
    const { context, localPath } = this.#options;
    const local = localPath(source);
    if (local !== undefined && (await isLinked(local, target, source.sizeBytes))) return target;
    const download = async (): Promise<string> => {
      try {
        const object = await context.store.get(source.key, { signal });
        await pipeline(object.body, createWriteStream(target), { signal });
        return target;
      } catch (error) {
        if (isSluiceError(error, "SLU-3404")) throw new SourceGone(source);
        throw error;
      }
    };
    return untilAnswered(context, `read ${source.key}`, signal, download, UPKEEP_TRIES_MAX);
  }

  async #upload(
    plan: Compaction,
    output: string,
    merged: { readonly sizeBytes: number; readonly timestampMs: number },
    signal: AbortSignal,
  ): Promise<LogFile> {
    const { context } = this.#options;
    const { level, minTxid, maxTxid } = plan;
    const key = context.layout.key(level, minTxid, maxTxid);
    const backoff = new Backoff(context, `compact ${key}`, UPKEEP_TRIES_MAX);
    for (;;) {
      const answer = await context.store
        .put(
          key,
          { path: output, sizeBytes: merged.sizeBytes },
          { condition: "absent", timestampMs: merged.timestampMs, signal },
        )
        .catch((cause: unknown) => ({ outcome: "undecided" as const, cause }));
      if (answer.outcome === "undecided") {
        await backoff.wait(answer.cause, signal);
        continue;
      }
      return { key, level, minTxid, maxTxid, sizeBytes: merged.sizeBytes, modifiedMs: context.clock.now() };
    }
  }
}

/** Whether `target` is now a second name of the complete local file; false when that has gone meanwhile. */
async function isLinked(local: string, target: string, sizeBytes: number): Promise<boolean> {
  try {
    await link(local, target);
    if ((await stat(target)).size === sizeBytes) return true;
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT" && systemErrorCode(error) !== "EXDEV") throw error;
    return false;
  }
  await rm(target, { force: true });
  return false;
}

function diskFull(error: unknown, workDir: string): unknown {
  const code = systemErrorCode(error);
  if (code !== "ENOSPC" && code !== "EDQUOT") return error;
  return new SluiceError("SLU-2008", `${workDir}: no space for a compaction`, { cause: error });
}

function describe(plan: Compaction): string {
  return `${formatTxid(plan.minTxid)}-${formatTxid(plan.maxTxid)}`;
}

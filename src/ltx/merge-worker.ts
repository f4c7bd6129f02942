import { parentPort, workerData } from "node:worker_threads";
import { isSluiceError } from "../errors/error.ts";
import type { LtxHeader } from "./header.ts";
import { mergeFiles } from "./merge.ts";

/** The thread of one merge; what it posts is the result, or the error in parts that cross the border of a thread. */
export type MergeAnswer =
  | { readonly header: LtxHeader; readonly sizeBytes: number }
  | { readonly code: string | undefined; readonly message: string };

/**
 * The LZ4 library frees what it returned only in a turn of the event loop: a merge without turns would keep every
 * compressed page, 2 GB of them for a database of that size.
 */
const PAGES_A_TURN = 128;

async function merge({ inputs, output }: { inputs: readonly string[]; output: string }): Promise<MergeAnswer> {
  try {
    const work = mergeFiles(inputs, output);
    for (let pages = 1; ; pages++) {
      const step = work.next();
      if (step.done === true) return step.value;
      if (pages % PAGES_A_TURN === 0) await new Promise(setImmediate);
    }
  } catch (error) {
    const code = isSluiceError(error) ? error.code : (error as NodeJS.ErrnoException).code;
    return { code, message: (error as Error).message };
  }
}

parentPort?.postMessage(await merge(workerData as { inputs: readonly string[]; output: string }));

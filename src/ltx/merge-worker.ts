import { parentPort, workerData } from "node:worker_threads";
import { isSluiceError } from "../errors/error.ts";
import { mergeFiles } from "./merge.ts";

/** The thread of one merge; what it posts is the result, or the error in parts that cross the border of a thread. */
export type MergeAnswer =
  | { readonly header: import("./header.ts").LtxHeader; readonly sizeBytes: number }
  | { readonly code: string | undefined; readonly message: string };

function merge({ inputs, output }: { inputs: readonly string[]; output: string }): MergeAnswer {
  try {
    const work = mergeFiles(inputs, output);
    for (;;) {
      const step = work.next();
      if (step.done === true) return step.value;
    }
  } catch (error) {
    const code = isSluiceError(error) ? error.code : (error as NodeJS.ErrnoException).code;
    return { code, message: (error as Error).message };
  }
}

parentPort?.postMessage(merge(workerData as { inputs: readonly string[]; output: string }));

import { parentPort } from "node:worker_threads";
import { isSluiceError } from "../errors/error.ts";
import { parseIndex, type PageIndex } from "../ltx/page-index.ts";
import { decodeSegment, type Segment, type SegmentSum } from "./segment.ts";
import { writeFully } from "./write-fully.ts";

/**
 * What a decoding thread is sent; `id` comes back with the answer. A descriptor is the process's, so each thread writes
 * to the file itself.
 */
export type DecodeTask =
  | { readonly id: number; readonly segment: Segment }
  | { readonly id: number; readonly index: Uint8Array };

export type DecodeAnswer =
  | { readonly id: number; readonly result: SegmentSum | PageIndex | undefined }
  /** `code`: of a SluiceError, or the `errno` name of a system error. */
  | { readonly id: number; readonly code: string | undefined; readonly message: string };

function answer(task: DecodeTask): DecodeAnswer {
  try {
    const result = "segment" in task ? decodeSegment(task.segment, writeFully) : parseIndex(task.index);
    return { id: task.id, result };
  } catch (error) {
    const code = isSluiceError(error) ? error.code : (error as NodeJS.ErrnoException).code;
    return { id: task.id, code, message: (error as Error).message };
  }
}

parentPort?.on("message", (task: DecodeTask) => {
  const done = answer(task);
  // Sums of a segment are made for the answer.
  const given = "result" in done && done.result !== undefined && "sums" in done.result ? [done.result.sums.buffer] : [];
  parentPort!.postMessage(done, given as ArrayBuffer[]);
});

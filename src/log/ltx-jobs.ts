import { once } from "node:events";
import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import type { DatabaseSnapshot } from "../database/contract.ts";
import type { ErrorCode } from "../errors/codes.ts";
import { SluiceError } from "../errors/error.ts";
import { LtxEncoder } from "../ltx/encoder.ts";
import { lockPage, type LtxHeader } from "../ltx/header.ts";
import { mergeFiles } from "../ltx/merge.ts";
import type { MergeAnswer } from "../ltx/merge-worker.ts";
import { recordHeader } from "../ltx/record.ts";
import type { LtxWork, MergedFile } from "./ltx-work.ts";

/** Inputs below this are merged between other work; a thread of its own costs 40 ms and 10 MB. */
const SMALL_BYTES = 2 * 1024 * 1024;
/** Pages that are encoded in one turn: about 2 ms. */
const TURN_BYTES = 512 * 1024;
const SLICE_MS = 1;

/** Merges and snapshots: small ones in slices of the event loop, large merges in a thread that ends with them. */
export const ltxJobs: LtxWork = {
  async merge(inputs, output, signal) {
    const bytes = inputs.reduce((sum, input) => sum + statSync(input).size, 0);
    const { header, sizeBytes } =
      bytes < SMALL_BYTES ? await mergeInSlices(inputs, output, signal) : await mergeInThread(inputs, output, signal);
    return merged(header, sizeBytes);
  },

  async *encodeSnapshot(snapshot) {
    const { pageSize, pageCount } = snapshot;
    const most = TURN_BYTES / pageSize;
    const pages = Buffer.allocUnsafeSlow(TURN_BYTES);
    // One buffer for the output of all turns: what is allocated for each would be collected all the time.
    let out = Buffer.allocUnsafeSlow(2 * TURN_BYTES);
    let used = 0;
    const encoder = new LtxEncoder(snapshotHeader(snapshot), (chunk) => {
      // Only the index is longer.
      if (used + chunk.length > out.length) out = Buffer.concat([out.subarray(0, used)], used + chunk.length);
      out.set(chunk, used);
      used += chunk.length;
    });
    const lock = lockPage(pageSize);
    for (let first = 1; first <= pageCount; first += most) {
      const count = Math.min(most, pageCount - first + 1);
      await snapshot.read(first, pages.subarray(0, count * pageSize));
      const since = performance.now();
      for (let i = 0; i < count; i++) if (first + i !== lock) encoder.page(first + i, pages, i * pageSize);
      if (used > 0) yield out.subarray(0, used);
      used = 0;
      // Rests for as long as it has worked: applications and other databases have the processor half of the time.
      await sleep(performance.now() - since);
    }
    encoder.finish();
    yield out.subarray(0, used);
  },
};

function merged({ minTxid, maxTxid, timestampMs }: LtxHeader, sizeBytes: number): MergedFile {
  return { minTxid, maxTxid, timestampMs, sizeBytes };
}

function snapshotHeader(snapshot: DatabaseSnapshot): LtxHeader {
  const { txid, pageSize, pageCount, timestampMs, position, checksum, epoch, writer } = snapshot;
  const about = { pageSize, pageCount, minTxid: 1, maxTxid: txid, timestampMs };
  return recordHeader(about, { position, checksum, epoch, writer, members: [] });
}

async function mergeInSlices(
  inputs: readonly string[],
  output: string,
  signal: AbortSignal,
): Promise<{ header: LtxHeader; sizeBytes: number }> {
  const work = mergeFiles(inputs, output);
  let since = performance.now();
  for (;;) {
    const step = work.next();
    if (step.done === true) return step.value;
    if (performance.now() - since < SLICE_MS) continue;
    await new Promise(setImmediate);
    // Ends the generator: its files are closed and removed.
    if (signal.aborted) work.return(undefined as never);
    signal.throwIfAborted();
    since = performance.now();
  }
}

async function mergeInThread(
  inputs: readonly string[],
  output: string,
  signal: AbortSignal,
): Promise<{ header: LtxHeader; sizeBytes: number }> {
  const file = import.meta.url.endsWith(".ts") ? "../ltx/merge-worker.ts" : "../ltx/merge-worker.js";
  const worker = new Worker(new URL(file, import.meta.url), { workerData: { inputs, output } });
  try {
    const [answer] = (await once(worker, "message", { signal })) as [MergeAnswer];
    if ("header" in answer) return answer;
    if (answer.code?.startsWith("SLU-")) throw new SluiceError(answer.code as ErrorCode, answer.message);
    throw Object.assign(new Error(answer.message), answer.code === undefined ? {} : { code: answer.code });
  } finally {
    await worker.terminate();
  }
}

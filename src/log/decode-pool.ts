import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { SluiceError } from "../errors/error.ts";
import type { ErrorCode } from "../errors/codes.ts";
import type { PageIndex } from "../ltx/page-index.ts";
import type { DecodeAnswer, DecodeTask } from "./assemble-worker.ts";
import type { Segment, SegmentSum } from "./segment.ts";

const WORKERS_MAX = 8;

interface Waiting {
  readonly resolve: (result: SegmentSum | PageIndex | undefined) => void;
  readonly reject: (error: unknown) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly tasks: Map<number, Waiting>;
}

/**
 * Threads that decode segments and parse large indexes. They start with `start`, or as tasks come, and end with `close`;
 * tasks go to the thread with the least to do. Who uses it bounds how many are under way.
 */
export class DecodePool {
  readonly #workers: Thread[] = [];
  readonly size = Math.min(availableParallelism(), WORKERS_MAX);
  #nextId = 0;

  /** Starts all threads: for who knows that there will be much to do. */
  start(): void {
    while (this.#workers.length < this.size) this.#start();
  }

  /** Decodes a segment, whose buffers go away. Gives and rejects as `decodeSegment` does. */
  decode(segment: Segment): Promise<SegmentSum | undefined> {
    const { source, pages, offsets, wanted } = segment;
    const give = [pages.buffer, offsets.buffer, wanted.buffer];
    if (source instanceof Uint8Array) give.push(source.buffer);
    return this.#run((id) => ({ id, segment }), give) as Promise<SegmentSum | undefined>;
  }

  /** Reads the varints of a page index, whose buffer goes away. Rejects as `parseIndex` throws. */
  parseIndex(index: Uint8Array<ArrayBuffer>): Promise<PageIndex> {
    return this.#run((id) => ({ id, index }), [index.buffer]) as Promise<PageIndex>;
  }

  async close(): Promise<void> {
    const workers = this.#workers.splice(0);
    await Promise.all(workers.map(({ worker }) => worker.terminate()));
    const error = new SluiceError("SLU-4000", "the decoding threads were stopped under way");
    for (const { tasks } of workers) for (const { reject } of tasks.values()) reject(error);
  }

  #run(task: (id: number) => DecodeTask, give: ArrayBuffer[]): Promise<SegmentSum | PageIndex | undefined> {
    return new Promise((resolve, reject) => {
      const { worker, tasks } = this.#leastBusy();
      const id = this.#nextId++;
      tasks.set(id, { resolve, reject });
      worker.postMessage(task(id), give);
    });
  }

  #leastBusy(): Thread {
    const idle = this.#workers.find(({ tasks }) => tasks.size === 0);
    if (idle !== undefined) return idle;
    if (this.#workers.length < this.size) return this.#start();
    return this.#workers.reduce((least, other) => (other.tasks.size < least.tasks.size ? other : least));
  }

  #start(): Thread {
    const file = import.meta.url.endsWith(".ts") ? "./assemble-worker.ts" : "./assemble-worker.js";
    const worker = new Worker(new URL(file, import.meta.url));
    const tasks = new Map<number, Waiting>();
    const thread = { worker, tasks };
    worker.on("message", (answer: DecodeAnswer) => {
      const waiting = tasks.get(answer.id)!;
      tasks.delete(answer.id);
      if ("result" in answer) waiting.resolve(answer.result);
      else waiting.reject(errorOf(answer.code, answer.message));
    });
    worker.on("error", (error) => {
      this.#workers.splice(this.#workers.indexOf(thread), 1);
      for (const { reject } of tasks.values()) reject(error);
      tasks.clear();
    });
    this.#workers.push(thread);
    return thread;
  }
}

/** An error of a worker: what crosses a thread's border is no SluiceError any more. */
function errorOf(code: string | undefined, message: string): Error {
  if (code?.startsWith("SLU-")) return new SluiceError(code as ErrorCode, message);
  return Object.assign(new Error(message), code === undefined ? {} : { code });
}

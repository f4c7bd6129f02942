import { closeSync, openSync, readSync, renameSync, rmSync, writeSync } from "node:fs";
import { SluiceError } from "../errors/error.ts";
import { LtxDecoder } from "./decoder.ts";
import { LtxEncoder } from "./encoder.ts";
import type { LtxHeader } from "./header.ts";

/** How much of an input is read at once. */
const CHUNK_BYTES = 64 * 1024;
/** Inputs that are open at the same time. */
const INPUTS_AT_ONCE = 64;

interface Page {
  readonly pgno: number;
  readonly content: Uint8Array;
}

/** What a merge made. */
export interface Merged {
  readonly header: LtxHeader;
  readonly sizeBytes: number;
}

/**
 * Merges contiguous LTX files, oldest first, into the new file `output` (superfly/ltx `Compactor`): the newest content
 * of each page, without pages past the end of the last file's database; the last file's header with the first one's
 * first TXID. Every input is verified.
 *
 * Memory is bounded by a chunk, a frame and a page of each of `inputsAtOnce` inputs, and by their indexes. Where there
 * are more inputs (thousands, where every commit is waited for), runs of them are merged into files beside `output`
 * first.
 *
 * A generator, so that it can be run with pauses: it yields after each file and page. Throws SLU-5001 to SLU-5003 and
 * system errors, with nothing left behind; `output` appears when it's whole. It is not synced.
 */
export function* mergeFiles(
  inputs: readonly string[],
  output: string,
  inputsAtOnce = INPUTS_AT_ONCE,
): Generator<void, Merged> {
  if (inputs.length <= inputsAtOnce) return yield* mergeOnce(inputs, output);
  const runs: string[] = [];
  try {
    for (let first = 0; first < inputs.length; first += inputsAtOnce) {
      const run = `${output}.${inputs.length}-${first}`;
      runs.push(run);
      yield* mergeOnce(inputs.slice(first, first + inputsAtOnce), run);
    }
    return yield* mergeFiles(runs, output, inputsAtOnce);
  } finally {
    for (const run of runs) rmSync(run, { force: true });
  }
}

function* mergeOnce(inputs: readonly string[], output: string): Generator<void, Merged> {
  const temporary = `${output}.tmp`;
  const streams: PageStream[] = [];
  const fd = openSync(temporary, "w", 0o600);
  try {
    for (const input of inputs) {
      streams.push(new PageStream(input));
      yield;
    }
    const header = mergedHeader(streams);
    const encoder = new LtxEncoder(header, (chunk) => writeAll(fd, chunk));
    for (;;) {
      const page = newest(streams);
      if (page === undefined) break;
      if (page.pgno <= header.pageCount) encoder.page(page.pgno, page.content);
      yield;
    }
    const { sizeBytes } = encoder.finish();
    renameSync(temporary, output);
    return { header, sizeBytes };
  } finally {
    closeSync(fd);
    rmSync(temporary, { force: true });
    for (const stream of streams) stream.close();
  }
}

/** Takes the lowest page from all streams that have it; the content of the newest one counts. */
function newest(streams: readonly PageStream[]): Page | undefined {
  let lowest: Page | undefined;
  for (const stream of streams) {
    const page = stream.peek();
    if (page !== undefined && (lowest === undefined || page.pgno <= lowest.pgno)) lowest = page;
  }
  if (lowest !== undefined) for (const stream of streams) if (stream.peek()?.pgno === lowest.pgno) stream.shift();
  return lowest;
}

function mergedHeader(streams: readonly PageStream[]): LtxHeader {
  const [first, last] = [streams[0], streams.at(-1)];
  if (first === undefined || last === undefined) throw new SluiceError("SLU-5000", "a merge of no files");
  let end = first.header.minTxid - 1;
  for (const { header, name } of streams) {
    const fits = header.minTxid <= end + 1 && header.maxTxid > end && header.pageSize === last.header.pageSize;
    if (!fits) throw new SluiceError("SLU-5003", `${name} doesn't follow TXID ${end.toString(16)}`);
    end = header.maxTxid;
  }
  return { ...last.header, minTxid: first.header.minTxid };
}

/** Where a chunk is read to, on its way into a decoder. */
const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);

/** The pages of one file in order, one decoded ahead; the file is verified when the last one was taken. */
class PageStream {
  readonly name: string;
  readonly header: LtxHeader;
  readonly #fd: number;
  readonly #decoder: LtxDecoder;
  #page: Page | undefined;
  #ended = false;

  constructor(file: string) {
    this.name = file;
    this.#fd = openSync(file, "r");
    let header: LtxHeader | undefined;
    this.#decoder = new LtxDecoder(file, {
      passing: true,
      header: (read) => (header = read),
      page: (pgno, content) => (this.#page = { pgno, content }),
    });
    try {
      this.#fill();
      this.#decoder.step();
      if (header === undefined) throw new SluiceError("SLU-5001", `${file} is cut off in its header`);
    } catch (error) {
      this.close();
      throw error;
    }
    this.header = header;
  }

  peek(): Page | undefined {
    while (this.#page === undefined && !this.#ended) if (!this.#decoder.step()) this.#fill();
    return this.#page;
  }

  shift(): void {
    this.#page = undefined;
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Feeds the next chunk; the end of the file ends, and so verifies, what was decoded. */
  #fill(): void {
    const length = readSync(this.#fd, chunk, 0, CHUNK_BYTES, null);
    if (length > 0) return this.#decoder.feed(chunk.subarray(0, length));
    this.#decoder.end();
    this.#ended = true;
  }
}

function writeAll(fd: number, bytes: Uint8Array): void {
  let done = 0;
  while (done < bytes.length) done += writeSync(fd, bytes, done);
}

import { ftruncateSync } from "node:fs";
import { setImmediate as yieldLoop } from "node:timers/promises";
import { SluiceError } from "../errors/error.ts";
import { Crc64 } from "../ltx/crc64.ts";
import { CHECKSUM_FLAG, HEADER_BYTES, PAGE_HEADER_BYTES } from "../ltx/header.ts";
import { lockPageOf } from "../sqlite/database-header.ts";
import type { ObjectStore } from "../store/store.ts";
import { combineCrc } from "./crc-combine.ts";
import { DecodePool } from "./decode-pool.ts";
import { EarlySync } from "./early-sync.ts";
import type { LogFile } from "./listing.ts";
import { parseIndex } from "../ltx/page-index.ts";
import { openLtxFile, type FileHead, type IndexParser, type OpenedFile } from "./ltx-file.ts";
import { PageSet } from "./page-set.ts";
import type { Plan } from "./plan.ts";
import type { RestoreJournal } from "./restore-journal.ts";
import { readRange } from "./read-object.ts";
import { decodeSegment, type Segment, type SegmentSum } from "./segment.ts";
import { Slots } from "./slots.ts";
import { writeFully } from "./write-fully.ts";

/** A segment ends when it has this many compressed bytes, or decodes to the second. */
const SEGMENT_BYTES = 2 * 1024 * 1024;
const SEGMENT_DECODED_BYTES = 16 * 1024 * 1024;
/** Files that are opened ahead of the one whose pages are claimed: their indexes, or all of small ones. */
const OPEN_AHEAD = 16;
/** Segments that are being fetched while the decoders have theirs. */
const FETCHES = 6;
/** Below this a plan is decoded in this thread: starting others would take longer. */
const INLINE_BYTES = 256 * 1024;
/** Larger indexes are read by a decoding thread. */
const INDEX_INLINE_BYTES = 64 * 1024;
/** From this on all threads are started while the first file is being opened. */
const LARGE_BYTES = 8 * 1024 * 1024;
const CLAIMS_A_TURN = 65_536;

export interface AssemblerOptions {
  readonly store: ObjectStore;
  /** The file that pages are written to, at their places. */
  readonly fd: number;
  readonly signal?: AbortSignal;
  /** Told of compressed bytes as they're done with; `kept`: they needn't be fetched, since the journal knew them. */
  readonly onBytes: (bytes: number, kept: boolean) => void;
  /** Knows of segments that are in the file already, and is told of more. */
  readonly journal?: RestoreJournal;
}

/** What the files of a plan amount to. */
export interface Assembly {
  /** Header of the newest file. */
  readonly head: FileHead;
  readonly pageSize: number;
  readonly pageCount: number;
  /** Pages that were written. All but the lock page, unless the plan began at a state that was there. */
  readonly pages: PageSet;
  /** Sums of the written pages: two signed words each, low half first, at 2 · (page − 1); 0 for the others. */
  readonly sums: Int32Array;
  /** XOR of all sums: the database's checksum, where all pages were written. */
  readonly checksum: bigint;
}

/**
 * Builds a database file out of LTX files: every file is read once, in parallel ranges, and every page written once,
 * from the newest file that has it.
 *
 * Files are opened from the newest to the oldest (`OPEN_AHEAD` at a time), and claim from their indexes the pages that
 * no newer one has; a page past the end of a newer state is nobody's, since whoever grew the database again wrote it
 * anew. Claimed or not, every page is decoded, since a file's checksum covers all of them, its header and its index.
 *
 * Files that were finished stay finished when a plan fails because others vanished: for the same state their pages are
 * the same in every plan. Memory: the indexes of `OPEN_AHEAD` files, and a bounded number of segments.
 */
export class Assembler {
  readonly #options: AssemblerOptions;
  readonly #pool = new DecodePool();
  readonly #earlySync: EarlySync;
  readonly #slots: Slots;
  /** What is in the file for the state after `#txid`: pages of finished files, and those files by key. */
  #txid = 0;
  #final = new PageSet(0);
  #finished = new Map<string, FileHead>();
  #sums: Int32Array = new Int32Array(0);

  constructor(options: AssemblerOptions) {
    this.#options = options;
    this.#slots = new Slots(FETCHES + 2 * this.#pool.size);
    this.#earlySync = new EarlySync(options.fd);
  }

  /** Forgets what is in the file. */
  forget(): void {
    this.#txid = 0;
  }

  /** How much of a plan is still to be fetched. */
  missingBytes(plan: Plan): number {
    const finished = plan.txid === this.#txid ? this.#finished : new Map<string, FileHead>();
    return plan.files.reduce((sum, { key, sizeBytes }) => sum + (finished.has(key) ? 0 : sizeBytes), 0);
  }

  /**
   * Fetches and decodes the files of `plan`. `onSize` is told the size of the database before anything is written and
   * may refuse by throwing. `basePages`: the plan begins at a state of that many pages, which are not in the file.
   *
   * Throws SLU-3404 when an object has vanished (plan anew, and call again), SLU-5001, SLU-5002 and SLU-4509 for
   * damage, and what store and disk throw.
   */
  async assemble(
    plan: Plan,
    onSize: (bytes: number) => Promise<void>,
    options: { readonly basePages?: number } = {},
  ): Promise<Assembly> {
    if (plan.txid !== this.#txid) this.#begin(plan.txid);
    const { fd } = this.#options;
    const files = plan.files.toReversed();
    const inline = plan.sizeBytes < INLINE_BYTES;
    if (plan.sizeBytes >= LARGE_BYTES) this.#pool.start();
    const stop = new AbortController();
    const signal = AbortSignal.any([stop.signal, ...(this.#options.signal ? [this.#options.signal] : [])]);
    const opening = new Map<number, Promise<OpenedFile>>();
    const decoding: Promise<void>[] = [];
    let head: FileHead | undefined;
    const claimed = this.#final.copy();
    let endPage = Infinity;
    try {
      for (let i = 0; i < files.length; i++) {
        for (let ahead = i; ahead < Math.min(files.length, i + OPEN_AHEAD); ahead++) {
          if (opening.has(ahead) || this.#finished.has(files[ahead]!.key)) continue;
          const opened = openLtxFile(this.#options.store, files[ahead]!, { parse: this.#parseIndex, signal });
          // It may fail while another one is waited for.
          opened.catch(() => {});
          opening.set(ahead, opened);
        }
        const opened = await opening.get(i);
        opening.delete(i);
        const header: FileHead = opened?.header ?? this.#finished.get(files[i]!.key)!;
        if (head === undefined) {
          head = header;
          ensurePossible(header, plan, options.basePages ?? 0);
          await onSize(header.pageCount * header.pageSize);
          if (this.#sums.length === 0) {
            this.#sums = new Int32Array(new SharedArrayBuffer(8 * header.pageCount));
          }
        } else if (header.pageSize !== head.pageSize) {
          const sizes = `${header.pageSize} bytes, newer files of ${head.pageSize}`;
          throw new SluiceError("SLU-4509", `${files[i]!.key} has pages of ${sizes}`);
        }
        endPage = Math.min(endPage, header.pageCount);
        if (opened === undefined) continue;
        const wanted = await claim(opened, claimed, endPage);
        await this.#slots.acquire(signal);
        const done = this.#decodeFile(opened, wanted, inline, signal);
        done.catch(() => stop.abort());
        decoding.push(done);
      }
      await Promise.all(decoding);
    } catch (error) {
      stop.abort();
      const results = await Promise.allSettled([...decoding, ...opening.values()]);
      throw firstCause(error, results);
    }
    const { pageSize, pageCount } = head!;
    if (options.basePages === undefined) ensureComplete(this.#final, pageCount, pageSize, plan);
    await this.#earlySync.settle();
    ftruncateSync(fd, pageCount * pageSize);
    const checksum = await xorOf(this.#sums);
    return { head: head!, pageSize, pageCount, pages: this.#final, sums: this.#sums, checksum };
  }

  /** Ends the decoding threads, and what else is under way. */
  async close(): Promise<void> {
    await Promise.all([this.#pool.close(), this.#earlySync.idle()]);
  }

  #begin(txid: number): void {
    this.#txid = txid;
    this.#final = new PageSet(0);
    this.#finished = new Map();
    this.#sums = new Int32Array(0);
    if (this.#options.journal?.isEmpty !== false) ftruncateSync(this.#options.fd, 0);
  }

  /** Fetches and decodes one file, whose first slot is acquired; checks its checksum; then its pages are final. */
  async #decodeFile(opened: OpenedFile, wanted: Uint8Array, inline: boolean, signal: AbortSignal): Promise<void> {
    const { file, pages, offsets, tail } = opened;
    const sums: Promise<SegmentSum>[] = [];
    let acquired = true;
    try {
      for (let first = 0; first < pages.length;) {
        const last = segmentEnd(opened, first);
        if (!acquired) await this.#slots.acquire(signal);
        acquired = false;
        const sum = this.#decodeSegment(opened, wanted, first, last, inline, signal).finally(() =>
          this.#slots.release(),
        );
        sum.catch(() => {});
        sums.push(sum);
        first = last;
      }
    } finally {
      if (acquired) this.#slots.release();
      await Promise.allSettled(sums);
    }
    const crc = fileCrc(opened, await Promise.all(sums));
    const view = new DataView(tail.buffer, tail.byteOffset, tail.byteLength);
    if (view.getBigUint64(tail.length - 8) !== (crc | CHECKSUM_FLAG)) {
      throw new SluiceError("SLU-5002", `${file.key}: the file's checksum is wrong`);
    }
    for (let i = 0; i < pages.length; i++) if (wanted[i] === 1) this.#final.add(pages[i]!);
    this.#finished.set(file.key, opened.header);
    this.#options.onBytes(file.sizeBytes - (offsets.at(-1)! - HEADER_BYTES), false);
  }

  async #decodeSegment(
    opened: OpenedFile,
    wanted: Uint8Array,
    first: number,
    last: number,
    inline: boolean,
    signal: AbortSignal,
  ): Promise<SegmentSum> {
    const { file, header, offsets, whole } = opened;
    const { store, fd, onBytes, journal } = this.#options;
    const range = { offset: offsets[first]!, length: offsets[last]! - offsets[first]! };
    const { offset, length } = range;
    const segment = (source: Segment["source"]): Segment => ({
      name: file.key,
      pageSize: header.pageSize,
      source,
      pages: opened.pages.slice(first, last),
      offsets: Uint32Array.from(offsets.subarray(first, last + 1), (at) => at - offset),
      wanted: wanted.slice(first, last),
      fd,
      sums: this.#sums,
    });
    // Small files come whole when they're opened: nothing of them need be remembered.
    const key = whole === undefined ? { store: store.url, file, ...range } : undefined;
    const kept = key && journal?.find(key);
    if (kept !== undefined && (await this.#pool.decode(segment(kept))) !== undefined) {
      onBytes(length, true);
      return kept;
    }
    const path = whole === undefined ? store.localFile?.(file.key) : undefined;
    let sum = path === undefined ? undefined : await this.#pool.decode(segment({ path, ...range }));
    if (sum === undefined) {
      const bytes = whole?.slice(offset, offset + length) ?? (await this.#fetch(file, offset, length, signal));
      signal.throwIfAborted();
      sum = inline ? decodeSegment(segment(bytes), writeFully) : await this.#pool.decode(segment(bytes));
    }
    if (key !== undefined) journal?.add(key, sum!);
    signal.throwIfAborted();
    onBytes(length, false);
    this.#earlySync.wrote((last - first) * header.pageSize);
    return sum!;
  }

  async #fetch(file: LogFile, offset: number, length: number, signal: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = await readRange(this.#options.store, file.key, { offset, length }, signal);
    if (bytes.length === length) return bytes;
    throw new SluiceError("SLU-5001", `${file.key} is cut off: it became shorter while it was read`);
  }

  readonly #parseIndex: IndexParser = (bytes) =>
    bytes.length < INDEX_INLINE_BYTES ? parseIndex(bytes) : this.#pool.parseIndex(bytes);
}

/** The checksum of a whole file out of its segments', without the flag that LTX sets in it. */
function fileCrc({ headBytes, tail }: OpenedFile, sums: readonly SegmentSum[]): bigint {
  let crc = new Crc64().update(headBytes).value();
  for (const sum of sums) crc = combineCrc(crc, sum.crc, sum.hashedBytes);
  const end = tail.subarray(0, -8);
  return combineCrc(crc, new Crc64().update(end).value(), end.length);
}

/** Marks the pages of a file that no newer one has claimed; none past the end of the state after it or a newer one. */
async function claim(opened: OpenedFile, claimed: PageSet, endPage: number): Promise<Uint8Array> {
  const { pages, header } = opened;
  const lockPage = lockPageOf(header.pageSize);
  const wanted = new Uint8Array(pages.length);
  for (let i = 0; i < pages.length; i++) {
    const page = pages[i]!;
    if (page <= endPage && page !== lockPage && claimed.add(page)) wanted[i] = 1;
    if (i % CLAIMS_A_TURN === CLAIMS_A_TURN - 1) await yieldLoop();
  }
  return wanted;
}

function segmentEnd({ offsets, pages, header }: OpenedFile, first: number): number {
  const most = Math.min(pages.length, first + Math.ceil(SEGMENT_DECODED_BYTES / header.pageSize));
  const end = offsets[first]! + SEGMENT_BYTES;
  let last = first + 1;
  while (last < most && offsets[last]! < end) last++;
  return last;
}

/**
 * A page count that no checksum has confirmed yet decides how much memory and disk are asked for: no more than the
 * files can hold.
 */
function ensurePossible({ pageCount }: FileHead, plan: Plan, basePages: number): void {
  // Its frame's header and size, and a byte of content; the lock page has none.
  const most = basePages + 1 + plan.sizeBytes / (PAGE_HEADER_BYTES + 5);
  if (pageCount <= most) return;
  const { key } = plan.files.at(-1)!;
  throw new SluiceError("SLU-4509", `${key} says that the database has ${pageCount} pages, which its files can't hold`);
}

function ensureComplete(pages: PageSet, pageCount: number, pageSize: number, plan: Plan): void {
  const lockPage = lockPageOf(pageSize);
  const expected = pageCount - (pageCount >= lockPage ? 1 : 0);
  if (pages.size === expected) return;
  let missing = 1;
  while (missing === lockPage || pages.has(missing)) missing++;
  throw new SluiceError(
    "SLU-4509",
    `page ${missing} is in none of the ${plan.files.length} files from ${plan.files[0]!.key} on`,
  );
}

async function xorOf(sums: Int32Array): Promise<bigint> {
  let lo = 0;
  let hi = 0;
  for (let i = 0; i < sums.length; i += 2) {
    lo ^= sums[i]!;
    hi ^= sums[i + 1]!;
    if (i % 1_000_000 === 999_998) await yieldLoop();
  }
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

/** What made the others end: everything is aborted with the first failure, which may not be the one that was awaited. */
function firstCause(error: unknown, results: readonly PromiseSettledResult<unknown>[]): unknown {
  const causes = [error, ...results.filter((r) => r.status === "rejected").map((r) => r.reason as unknown)];
  return causes.find((cause) => !(cause instanceof DOMException && cause.name === "AbortError")) ?? error;
}

import type { PageChunk } from "../../database/replication.ts";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import type { Position } from "../../ltx/position.ts";
import { BlockHash, blockCount, sumsOfBlock } from "./blocks.ts";
import { damaged } from "./bytes.ts";
import type { Link } from "./link.ts";
import { BLOCKS_WANTED_MAX, encode, HASHES_MAX, PAGES_WANTED_MAX, type RecordFields } from "./messages.ts";
import { packPages } from "./page-block.ts";
import type { PublishedDatabase } from "./published.ts";
import type { Lent, ResyncSources } from "./resync-sources.ts";

/** Content of one message of pages. */
const READ_BYTES = 512 * 1024;

export interface OutgoingResyncParts {
  readonly channel: number;
  readonly database: PublishedDatabase;
  readonly link: Link;
  readonly sources: ResyncSources;
  readonly quarantine: boolean;
  readonly wake: () => void;
  /** The picture is gone, or there is none. */
  readonly onLost: (error: SluiceError) => void;
}

/**
 * One replica compares one database with a picture of it (protocol section 9).
 *
 *     waiting for a picture ─► telling: its head, then the hashes of all blocks
 *                          ─► answering: sums of blocks and contents of pages, as they are asked for, until `release`
 */
export class OutgoingResync {
  readonly #parts: OutgoingResyncParts;
  readonly #pageSize: number;
  readonly #abort = new AbortController();
  readonly #blocks: number[] = [];
  readonly #hash = new BlockHash();
  #lent: Lent | undefined;
  #isTold = false;
  #nextHash = 0;
  #wanted: Uint32Array[] = [];
  #wantedCount = 0;
  #isReading = false;
  #read: PageChunk | undefined;

  constructor(parts: OutgoingResyncParts) {
    this.#parts = parts;
    this.#pageSize = parts.database.pageSize;
    void this.#begin();
  }

  /** Of the picture; undefined before it was told. */
  get head(): { readonly position: Position; readonly record: RecordFields } | undefined {
    if (this.#lent === undefined || !this.#isTold) return undefined;
    const { head, record } = this.#lent.source;
    return { position: head.position, record };
  }

  sumsWanted(blocks: Uint32Array): void {
    const count = blockCount(this.#lent?.source.head.pageCount ?? 0);
    if (this.#blocks.length + blocks.length > 2 * BLOCKS_WANTED_MAX || blocks.some((block) => block >= count)) {
      throw damaged("sums of blocks that can't be asked for");
    }
    this.#blocks.push(...blocks);
    this.#parts.wake();
  }

  pagesWanted(numbers: Uint32Array): void {
    const pageCount = this.#lent?.source.head.pageCount ?? 0;
    this.#wantedCount += numbers.length;
    const inOrder = numbers.every((page, i) => page > (i === 0 ? 0 : numbers[i - 1]!) && page <= pageCount);
    if (!inOrder || this.#wantedCount > 2 * PAGES_WANTED_MAX) throw damaged("pages that can't be asked for");
    if (numbers.length > 0) this.#wanted.push(numbers);
    this.#readOn();
  }

  /** Sends at most one message; whether there may be more to send. */
  step(): boolean {
    const lent = this.#lent;
    if (lent === undefined) return false;
    if (!this.#isTold) return this.#tellHead(lent);
    if (this.#nextHash < blockCount(lent.source.head.pageCount)) return this.#tellHashes(lent);
    const block = this.#blocks.shift();
    if (block !== undefined) return this.#tellSums(lent, block);
    if (this.#read === undefined) return false;
    const packed = packPages(this.#read);
    this.#wantedCount -= this.#read.numbers.length;
    this.#read = undefined;
    const room = 128 + 4 * packed.numbers.length + packed.content.length;
    this.#parts.link.sendEncoded(encode("pages", { channel: this.#parts.channel, block: packed }, room));
    this.#readOn();
    return false;
  }

  release(): void {
    this.#abort.abort();
    this.#lent?.release();
    this.#lent = undefined;
  }

  async #begin(): Promise<void> {
    const { sources, database, wake } = this.#parts;
    try {
      const lent = await sources.lend(database, this.#abort.signal);
      if (this.#abort.signal.aborted) return lent.release();
      this.#lent = lent;
      lent.source.signal.addEventListener("abort", () => this.#lost(lent.source.signal.reason), {
        once: true,
        signal: this.#abort.signal,
      });
      if (lent.source.signal.aborted) return this.#lost(lent.source.signal.reason);
      wake();
    } catch (error) {
      this.#lost(error);
    }
  }

  #tellHead({ source }: Lent): boolean {
    const { channel, quarantine, link } = this.#parts;
    const { position, pageCount, checksum } = source.head;
    const { txid, epoch, position: at, timestampMs } = source.record;
    const record = { txid, epoch, position: at, timestampMs };
    link.send("resyncHead", { channel, position, pageCount, checksum, record, quarantine });
    this.#isTold = true;
    return true;
  }

  #tellHashes({ source }: Lent): boolean {
    const { pageCount } = source.head;
    const first = this.#nextHash;
    const count = Math.min(HASHES_MAX, blockCount(pageCount) - first);
    const hashes = new Uint32Array(2 * count);
    for (let i = 0; i < count; i++) {
      const { lo, hi } = this.#hash.of(sumsOfBlock(source.sums, pageCount, first + i));
      hashes[2 * i] = lo;
      hashes[2 * i + 1] = hi;
    }
    this.#nextHash += count;
    this.#parts.link.send("blockHashes", { channel: this.#parts.channel, first, hashes });
    return true;
  }

  #tellSums({ source }: Lent, block: number): boolean {
    const sums = new Uint32Array(sumsOfBlock(source.sums, source.head.pageCount, block));
    this.#parts.link.send("pageSums", { channel: this.#parts.channel, block, sums });
    return true;
  }

  /** Reads the next wanted pages while those before are on their way. */
  #readOn(): void {
    const lent = this.#lent;
    const wanted = this.#wanted[0];
    if (lent === undefined || wanted === undefined || this.#isReading || this.#read !== undefined) return;
    const most = Math.max(1, Math.floor(READ_BYTES / this.#pageSize));
    const numbers = wanted.subarray(0, most);
    if (numbers.length === wanted.length) this.#wanted.shift();
    else this.#wanted[0] = wanted.subarray(most);
    this.#isReading = true;
    this.#reading(lent, numbers).catch((error: unknown) => this.#lost(error));
  }

  async #reading(lent: Lent, numbers: Uint32Array): Promise<void> {
    const content = await lent.source.read(numbers);
    this.#isReading = false;
    if (this.#lent !== lent) return;
    this.#read = { numbers, content };
    this.#parts.wake();
  }

  #lost(reason: unknown): void {
    if (this.#abort.signal.aborted) return;
    const message = reason instanceof Error ? reason.message : "its bound was passed";
    this.#parts.onLost(
      isSluiceError(reason) ? reason : new SluiceError("SLU-8213", `${this.#parts.database.name}: ${message}`),
    );
  }
}

import type { ChangeHead, IncomingChange, RecordName } from "../../database/replication.ts";
import { lockPage } from "../../ltx/header.ts";
import { NOTHING } from "../../ltx/position.ts";
import { BlockHash, blockCount, sumsOfBlock } from "./blocks.ts";
import { damaged } from "./bytes.ts";
import type { Link } from "./link.ts";
import { BLOCK_PAGES, BLOCKS_WANTED_MAX, type Content, PAGES_WANTED_MAX } from "./messages.ts";
import { unpackPages } from "./page-block.ts";

/** Content of pages that were asked for and didn't come yet. */
const WANTED_BYTES = 4 * 1024 * 1024;
/** The next pages are asked for while this part of them is still to come. */
const ASK_AT = 1 / 2;

/** What becomes the primary's state: a replica's database, or a new file. */
export interface ResyncTarget {
  readonly pageSize: number;
  readonly pageCount: number;
  /** Two words a page. */
  readonly sums: Int32Array;
  resync(head: ChangeHead, record: RecordName, options: { readonly quarantine: boolean }): Promise<IncomingChange>;
}

/**
 * A replica's side of a comparison with the primary (protocol section 9).
 *
 *     asking ─ head ─► hashing: hashes of all blocks come, and differing blocks are noted
 *                   ─► comparing: the sums of these blocks' pages
 *                   ─► fetching: the pages that differ, into one change ─► done: the change was committed
 *
 * `abort` ends it anywhere; nothing has changed then.
 */
export class IncomingResync {
  readonly #channel: number;
  readonly #link: Link;
  readonly #target: ResyncTarget;
  readonly #hash = new BlockHash();
  readonly #blocks: number[] = [];
  readonly #pages: number[] = [];
  #head: Content<"resyncHead"> | undefined;
  #hashed = 0;
  #sumsDue = 0;
  #wanted: Uint32Array = new Uint32Array(0);
  #asked = 0;
  #got = 0;
  #change: IncomingChange | undefined;

  constructor(channel: number, link: Link, target: ResyncTarget) {
    this.#channel = channel;
    this.#link = link;
    this.#target = target;
    link.send("resync", { channel });
  }

  async head(head: Content<"resyncHead">): Promise<void> {
    if (this.#head !== undefined || head.pageCount === 0)
      throw damaged("a comparison that begins twice, or of nothing");
    this.#head = head;
  }

  async hashes({ first, hashes }: Content<"blockHashes">): Promise<void> {
    const { pageCount } = this.#begun();
    const { sums, pageCount: ownCount } = this.#target;
    const count = hashes.length / 2;
    const blocks = blockCount(pageCount);
    if (first !== this.#hashed || count === 0 || !Number.isInteger(count) || first + count > blocks) {
      throw damaged("hashes out of order");
    }
    for (let i = 0; i < count; i++) {
      const block = first + i;
      if (block * BLOCK_PAGES >= ownCount) {
        this.#wantBlock(block, pageCount);
        continue;
      }
      const { lo, hi } = this.#hash.of(sumsOfBlock(sums, ownCount, block));
      if (lo >>> 0 !== hashes[2 * i] || hi >>> 0 !== hashes[2 * i + 1]) this.#blocks.push(block);
    }
    this.#hashed += count;
    if (this.#hashed === blocks) await this.#compareOn();
  }

  async sums({ block, sums }: Content<"pageSums">): Promise<void> {
    const { pageCount } = this.#begun();
    const { sums: own, pageCount: ownCount } = this.#target;
    const first = block * BLOCK_PAGES;
    if (this.#sumsDue === 0 || sums.length !== 2 * Math.min(BLOCK_PAGES, pageCount - first)) {
      throw damaged("sums that weren't asked for");
    }
    for (let i = 0; i < sums.length; i += 2) {
      const at = 2 * first + i;
      const isEqual = at < 2 * ownCount && own[at] === (sums[i]! | 0) && own[at + 1] === (sums[i + 1]! | 0);
      if (!isEqual) this.#want(first + i / 2 + 1);
    }
    this.#sumsDue--;
    if (this.#sumsDue === 0) await this.#compareOn();
  }

  /** True when the change was committed. Throws what the change throws. */
  async pages({ block }: Content<"pages">): Promise<boolean> {
    const change = this.#change;
    if (change === undefined || this.#got + block.numbers.length > this.#asked) {
      throw damaged("pages that weren't asked for");
    }
    change.pages(unpackPages(block, this.#target.pageSize));
    this.#got += block.numbers.length;
    if (this.#got < this.#wanted.length) {
      this.#askOn();
      return false;
    }
    await change.commit();
    this.#link.send("resynced", { channel: this.#channel });
    return true;
  }

  abort(): void {
    this.#change?.abort();
    this.#change = undefined;
  }

  /** Asks for the sums of the next blocks; when there are none, for the pages that differ. */
  async #compareOn(): Promise<void> {
    const blocks = this.#blocks.splice(0, BLOCKS_WANTED_MAX);
    this.#sumsDue = blocks.length;
    if (blocks.length > 0) {
      return this.#link.send("sumsWanted", { channel: this.#channel, blocks: Uint32Array.from(blocks) });
    }
    const { position, pageCount, checksum, record, quarantine } = this.#begun();
    // A change needs a page; the first is in every database.
    if (this.#pages.length === 0) this.#pages.push(1);
    this.#wanted = Uint32Array.from(this.#pages).sort();
    this.#pages.length = 0;
    const head = { before: NOTHING, position, pageCount, checksum, pages: this.#wanted.length };
    this.#change = await this.#target.resync(head, record, { quarantine });
    this.#askOn();
  }

  #askOn(): void {
    const most = Math.min(PAGES_WANTED_MAX, Math.max(1, Math.floor(WANTED_BYTES / this.#target.pageSize)));
    if (this.#asked - this.#got > most * ASK_AT) return;
    const numbers = this.#wanted.subarray(this.#asked, this.#got + most);
    if (numbers.length === 0) return;
    this.#asked += numbers.length;
    this.#link.send("pagesWanted", { channel: this.#channel, numbers });
  }

  #begun(): Content<"resyncHead"> {
    if (this.#head === undefined) throw damaged("a comparison that has not begun");
    return this.#head;
  }

  #wantBlock(block: number, pageCount: number): void {
    const end = Math.min(pageCount, BLOCK_PAGES * (block + 1));
    for (let page = BLOCK_PAGES * block + 1; page <= end; page++) this.#want(page);
  }

  /** The lock page has no content. */
  #want(page: number): void {
    if (page !== lockPage(this.#target.pageSize)) this.#pages.push(page);
  }
}

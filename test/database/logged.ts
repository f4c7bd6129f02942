import { readFileSync } from "node:fs";
import { Database } from "../../src/database/database.ts";
import type { FrozenBatch } from "../../src/database/contract.ts";
import type { DatabaseEvent } from "../../src/database/events.ts";
import type { DatabaseOptions } from "../../src/database/starting.ts";
import { sumsOf } from "../../src/database/recover.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { recordFields } from "../../src/ltx/record.ts";
import type { PageView } from "../../src/database/page-view.ts";

/** A log that lives in memory: every batch is confirmed at once, unless told otherwise, and applied to an image. */
export class MemoryLog {
  readonly database: Database;
  readonly events: DatabaseEvent[];
  readonly records: FrozenBatch[] = [];
  pages: Buffer[];
  confirming = true;
  #work: Promise<unknown> = Promise.resolve();

  private constructor(database: Database, events: DatabaseEvent[], pages: Buffer[]) {
    this.database = database;
    this.events = events;
    this.pages = pages;
    database.onFrozen = (batch) => {
      this.records.push(batch);
      void this.settle();
    };
  }

  /** Opens without taking over. `pages`: what the log holds so far. */
  static async open(path: string, options: DatabaseOptions = {}, pages: Buffer[] = []): Promise<MemoryLog> {
    const events: DatabaseEvent[] = [];
    const database = await Database.open(path, { ...options, onEvent: (event) => void events.push(event) });
    return new MemoryLog(database, events, pages);
  }

  /** Opens, sends what an earlier life left, and takes over. */
  static async begin(path: string, options: DatabaseOptions = {}, pages: Buffer[] = []): Promise<MemoryLog> {
    const log = await MemoryLog.open(path, options, pages);
    await log.takeOver();
    return log;
  }

  async takeOver(): Promise<void> {
    const { database } = this;
    if (database.logState === undefined) await database.bindLog({ logId: "log", nodeId: "node" });
    await this.settle();
    const txid = database.logState!.confirmed.txid + 1;
    await database.freezeTakeover({ txid, writer: BigInt(txid) + 7n, minTimestampMs: 0 });
    await this.settle();
    await database.begin(txid, BigInt(txid) + 7n);
  }

  /** Applies and confirms what is frozen. */
  settle(): Promise<void> {
    const settled = this.#work.then(() => this.#settle());
    this.#work = settled.catch(() => undefined);
    return settled;
  }

  async #settle(): Promise<void> {
    while (this.confirming) {
      const batch = this.database.frozen[0];
      if (batch === undefined) return;
      this.#apply(batch);
      await this.database.confirm(batch.txid);
    }
  }

  /** Seals what is open, and waits until it's confirmed. */
  async flush(): Promise<void> {
    await this.database.freeze();
    await this.idle();
  }

  async idle(): Promise<void> {
    await this.#work;
  }

  #apply(batch: FrozenBatch): void {
    const decoder = new LtxDecoder(batch.path, {
      page: (pgno, content) => void (this.pages[pgno - 1] = Buffer.from(content)),
    });
    decoder.push(readFileSync(batch.path));
    const header = decoder.end();
    this.pages.length = header.pageCount;
    const fields = recordFields(header);
    if (header.maxTxid !== batch.txid || fields?.position !== batch.position || fields.epoch !== batch.epoch) {
      throw new Error(`record ${batch.txid} is not what it was said to be`);
    }
    if (fields.checksum !== batch.checksum) throw new Error(`record ${batch.txid} has another checksum`);
  }

  get bytes(): Buffer {
    const { pageSize } = this.database;
    return Buffer.concat(Array.from(this.pages, (page) => page ?? Buffer.alloc(pageSize)));
  }

  /** Database checksum of what the log holds. */
  async checksum(): Promise<bigint> {
    const { bytes } = this;
    const { pageSize } = this.database;
    const view = {
      pageSize,
      pageCount: this.pages.length,
      read: async (first: number, into: Uint8Array) =>
        void bytes.copy(into, 0, (first - 1) * pageSize, (first - 1) * pageSize + into.length),
    };
    return (await sumsOf(view as unknown as PageView)).checksum;
  }
}

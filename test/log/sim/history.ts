import { LogLayout } from "../../../src/log/layout.ts";
import { logFile, type LogFile } from "../../../src/log/listing.ts";
import { Reachable, withoutStrays } from "../../../src/log/plan.ts";
import { epochOf, formatPosition, NOTHING, type Position } from "../../../src/ltx/position.ts";
import { recordFields, type RecordFields } from "../../../src/ltx/record.ts";
import { checksumOf } from "./database.ts";
import { decode, type Pages } from "./ltx.ts";
import type { SimBucket } from "./store.ts";

const layout = new LogLayout("ltx-prefix");

export interface TrueRecord {
  readonly txid: number;
  readonly fields: RecordFields;
  readonly timestampMs: number;
  /** The whole database after it. */
  readonly pages: Pages;
  readonly client: string;
}

/**
 * What really happened, beside what the nodes believe: every state that got a name, and the first object that was
 * ever written to each slot. Its checks are the properties of the protocol's model, on the bytes in the bucket.
 */
export class History {
  readonly #bucket: SimBucket;
  readonly #states = new Map<Position, Pages>();
  readonly #records: TrueRecord[] = [];

  constructor(bucket: SimBucket) {
    this.#bucket = bucket;
  }

  /** A position is a name: two states never get one (invariant 13). */
  named(position: Position, pages: Pages): void {
    const known = this.#states.get(position);
    if (known === undefined) this.#states.set(position, pages);
    else if (!equal(known, pages)) throw new Error(`${formatPosition(position)} names two states`);
  }

  /** The log as it was written, without regard to what was deleted since. */
  records(): readonly TrueRecord[] {
    for (let txid = this.#records.length + 1; ; txid++) {
      const object = this.#bucket.first.get(layout.slotKey(txid));
      if (object === undefined) return this.#records;
      const { header, pages } = decode(`slot ${txid}`, object.bytes);
      const fields = recordFields(header);
      if (fields === undefined) throw new Error(`slot ${txid} is not Sluice's`);
      const before = this.#records.at(-1);
      const after: Pages = new Map([...(before?.pages ?? []), ...pages]);
      const { timestampMs } = header;
      this.#records.push({ txid, fields, timestampMs, pages: after, client: object.client });
      this.#checkRecord(this.#records.at(-1)!, before);
    }
  }

  /** Invariant 8: no gap, no epoch decreases, every record extends the one before and is what its name says. */
  #checkRecord(record: TrueRecord, before: TrueRecord | undefined): void {
    const { txid, fields, pages } = record;
    const where = `slot ${txid} (${formatPosition(fields.position)}, epoch ${fields.epoch})`;
    if (fields.epoch !== txid && fields.epoch !== before?.fields.epoch) throw new Error(`${where}: not its epoch`);
    if (fields.epoch !== txid && fields.writer !== before?.fields.writer) throw new Error(`${where}: two writers`);
    if (before !== undefined && fields.position < before.fields.position) throw new Error(`${where}: goes back`);
    const state = this.#states.get(fields.position);
    if (state === undefined) throw new Error(`${where}: nobody has made this state`);
    if (!equal(state, pages)) throw new Error(`${where}: not the state that it names`);
    if (checksumOf(pages) !== fields.checksum) throw new Error(`${where}: wrong checksum`);
  }

  /**
   * What was confirmed is in the log. The first record that reaches a position holds it if it names a state of the
   * same epoch; where a later epoch is the first to pass it, it was not in the history that this one began with.
   */
  checkConfirmed(position: Position, client: string): void {
    const found = this.records().find(({ fields }) => fields.position >= position);
    const what = `${formatPosition(position)}, confirmed to ${client},`;
    if (found === undefined) throw new Error(`${what} is not in the log`);
    if (epochOf(found.fields.position) === epochOf(position)) return;
    throw new Error(`${what} is not in the history of ${found.client}`);
  }

  /** Whether the log has got as far as this. */
  reaches(position: Position): boolean {
    return (this.records().at(-1)?.fields.position ?? NOTHING) >= position;
  }

  /** No takeover has left it out: it is in the history, or may still get there. */
  checkKept(position: Position, client: string): void {
    const ended = this.records().find(({ fields }) => fields.epoch > epochOf(position));
    if (ended === undefined || ended.fields.position >= position) return;
    const what = `${formatPosition(position)}, confirmed to ${client},`;
    throw new Error(`${what} was left out by ${ended.client}'s takeover ${ended.txid}`);
  }

  /** Every slot is covered, and every state that the files make is the true one. */
  checkRestorable(): void {
    const records = this.records();
    const files = listed(this.#bucket);
    const reachable = new Reachable(withoutStrays(files));
    const head = records.length;
    if (head > 0 && reachable.newest !== head) throw new Error(`restores ${reachable.newest}, the log ends at ${head}`);
    const beyond = reachable.beyondGap;
    if (beyond !== undefined) throw new Error(`a gap before ${beyond}`);
    for (const txid of reachable.txids) {
      const pages: Pages = new Map();
      for (const file of reachable.plan(txid)!.files) {
        for (const [pgno, page] of decode(file.key, this.#bucket.objects.get(file.key)!.bytes).pages)
          pages.set(pgno, page);
      }
      if (!equal(pages, records[txid - 1]!.pages)) throw new Error(`the restored state of ${txid} is another`);
    }
  }

  /** Takeover records are there for ever (slot 1 excepted). */
  checkFences(): void {
    for (const { txid, fields } of this.records()) {
      if (fields.epoch !== txid || txid === 1) continue;
      if (!this.#bucket.objects.has(layout.slotKey(txid))) throw new Error(`takeover record ${txid} was deleted`);
    }
  }
}

export function listed(bucket: SimBucket): LogFile[] {
  const files: LogFile[] = [];
  for (const [key, { bytes, modifiedMs }] of bucket.objects) {
    const file = logFile(layout, { key, sizeBytes: bytes.length, modifiedMs });
    if (file !== undefined) files.push(file);
  }
  return files;
}

function equal(a: Pages, b: Pages): boolean {
  if (a.size !== b.size) return false;
  for (const [pgno, page] of a) {
    const other = b.get(pgno);
    if (other === undefined || Buffer.compare(page, other) !== 0) return false;
  }
  return true;
}

import { merged, type PageSet, Source } from "./page-sets.ts";

const ACCOUNTS = 500;
const JOURNAL = 60;

const schema = `
create table account(id integer primary key, balance integer, pad blob);
create table journal(n integer primary key, body blob);
create table state(n integer, payload integer);
insert into state values(0, 0);
insert into journal values(0, x'');
with i(n) as (select 1 union all select n + 1 from i where n < ${ACCOUNTS})
  insert into account select n, 0, zeroblob(20) from i;
create index by_balance on account(balance);`;

/**
 * A bank whose commits are numbered: number n moves money, adds row n to its journal, takes old ones away, and notes n
 * and the journal's size. The file grows and shrinks.
 */
export class BankSource {
  readonly source: Source;
  readonly #random: () => number;
  #n = 0;

  constructor(path: string, pageSize: number, random: () => number) {
    this.source = new Source(path, pageSize, schema, "full");
    this.#random = random;
  }

  /** The state's number. */
  get n(): number {
    return this.#n;
  }

  next(): PageSet {
    const { db } = this.source;
    const random = (below: number): number => Math.floor(this.#random() * below);
    const n = ++this.#n;
    if (random(100) === 0) db.exec("vacuum");
    const amount = random(1000);
    const kind = random(30);
    const size = kind === 0 ? 300_000 : kind < 10 ? 5_000 : random(200);
    db.transaction(() => {
      db.exec(`update account set balance = balance - ${amount} where id = ${1 + random(ACCOUNTS)};
        update account set balance = balance + ${amount} where id = ${1 + random(ACCOUNTS)};
        insert into journal values(${n}, randomblob(${size}));
        delete from journal where n <= ${n - JOURNAL};`);
      if (kind === 1) db.exec(`update journal set body = '' where n < ${n}`);
      if (kind === 2) db.exec(`update account set pad = randomblob(100) where id % 3 = ${random(3)}`);
      db.exec(`update state set n = ${n}, payload = (select sum(length(body)) from journal)`);
    })();
    return merged(this.source.take(), this.source.pageSize);
  }
}

/** Writes page sets one behind the other. */
export function recordOf(set: PageSet): Buffer {
  const head = Uint32Array.of(set.numbers.length, set.pageCount);
  return Buffer.concat([new Uint8Array(head.buffer), new Uint8Array(set.numbers.slice().buffer), set.content]);
}

/** The other way round. */
export function recordsIn(bytes: Buffer, pageSize: number): PageSet[] {
  const sets: PageSet[] = [];
  for (let at = 0; at < bytes.length;) {
    const count = bytes.readUInt32LE(at);
    const pageCount = bytes.readUInt32LE(at + 4);
    const numbers = Uint32Array.from({ length: count }, (_, i) => bytes.readUInt32LE(at + 8 + 4 * i));
    at += 8 + 4 * count;
    sets.push({ numbers, content: bytes.subarray(at, at + count * pageSize), pageCount });
    at += count * pageSize;
  }
  return sets;
}

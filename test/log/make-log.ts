import Database from "better-sqlite3";
import { copyFileSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import path from "node:path";
import { LogLayout } from "../../src/log/layout.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { lockPage, type LtxHeader } from "../../src/ltx/header.ts";
import { PageSum, sumValue } from "../../src/ltx/page-sum.ts";
import { position } from "../../src/ltx/position.ts";
import { recordHeader } from "../../src/ltx/record.ts";

/** Number of the epoch and the writer of every file that is made here. */
const EPOCH = 1;
const WRITER = 0x0123456789abcdefn;

/** Times of records are this far apart. */
export const TICK_MS = 1000;
export const FIRST_MS = Date.UTC(2026, 0, 1);

/**
 * A log in a directory as Sluice writes it, of a real SQLite database that is written to between records; the state
 * after each record is kept to compare with.
 */
export class MadeLog {
  readonly bucket: string;
  /** The database file after each record; index 0 is unused. */
  readonly states: Buffer[] = [Buffer.alloc(0)];
  readonly #directory: string;
  readonly #db: Database.Database;
  readonly #layout: LogLayout;

  constructor(directory: string, options: { readonly pageSize?: number; readonly prefix?: string } = {}) {
    this.#directory = directory;
    this.bucket = path.join(directory, "bucket");
    this.#layout = new LogLayout("ltx-prefix", options.prefix ?? "");
    mkdirSync(this.bucket, { recursive: true });
    this.#db = new Database(path.join(directory, "source.db"));
    this.#db.pragma(`page_size = ${options.pageSize ?? 4096}`);
    this.#db.pragma("journal_mode = WAL");
    this.#db.exec("CREATE TABLE kv(id INTEGER PRIMARY KEY, ver INTEGER, fill BLOB); CREATE INDEX by_ver ON kv(ver)");
    this.#db.exec("CREATE TABLE meta(ver INTEGER, rows INTEGER)");
    const identity = { logId: "0123456789abcdef0123456789abcdef", created: "", version: 1, base: 0 };
    const file = path.join(this.bucket, this.#layout.identityKey);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, JSON.stringify(identity));
  }

  get head(): number {
    return this.states.length - 1;
  }

  /** Makes all rows say the next version, with `rows` of them, and keeps the state; `write` puts its record too. */
  commit(rows: number, options: { readonly record?: boolean } = {}): number {
    const version = this.head + 1;
    const insert = this.#db.prepare("INSERT INTO kv(ver, fill) VALUES (?, randomblob(700))");
    this.#db.transaction(() => {
      this.#db.prepare("DELETE FROM kv WHERE id > ?").run(rows);
      const { n } = this.#db.prepare("SELECT count(*) AS n FROM kv").get() as { n: number };
      for (let i = n; i < rows; i++) insert.run(version);
      this.#db.prepare("UPDATE kv SET ver = ?").run(version);
      this.#db.exec("DELETE FROM meta");
      this.#db.prepare("INSERT INTO meta VALUES (?, (SELECT count(*) FROM kv))").run(version);
    })();
    if (version % 4 === 3) this.#db.exec("VACUUM");
    this.#db.pragma("wal_checkpoint(TRUNCATE)");
    const copy = path.join(this.#directory, "copy.db");
    copyFileSync(path.join(this.#directory, "source.db"), copy);
    this.states.push(readFileSync(copy));
    if (options.record !== false) this.put(0, version, version);
    return version;
  }

  /** Path of a file of the log. */
  file(level: number, minTxid: number, maxTxid: number): string {
    return path.join(this.bucket, this.#layout.key(level, minTxid, maxTxid));
  }

  /** Puts the file that leads from the state before `minTxid` to the one after `maxTxid`. */
  put(level: number, minTxid: number, maxTxid: number, change: Partial<LtxHeader> = {}): string {
    const after = this.states[maxTxid]!;
    const before = this.states[minTxid - 1]!;
    const pageSize = pageSizeOf(after);
    const pageCount = after.length / pageSize;
    const header = recordHeader(
      { pageSize, pageCount, minTxid, maxTxid, timestampMs: FIRST_MS + maxTxid * TICK_MS },
      { position: position(EPOCH, maxTxid), checksum: checksumOf(after), epoch: EPOCH, writer: WRITER, members: [] },
    );
    const chunks: Uint8Array[] = [];
    const encoder = new LtxEncoder({ ...header, ...change }, (chunk) => chunks.push(chunk.slice()));
    for (let page = 1; page <= pageCount; page++) {
      if (page === lockPage(pageSize)) continue;
      const at = (state: Buffer) => state.subarray((page - 1) * pageSize, page * pageSize);
      // A page may have changed and changed back in between, which only the records of the way tell.
      const changed = this.states.slice(minTxid, maxTxid + 1).some((state) => !at(state).equals(at(before)));
      if (minTxid === 1 || changed) encoder.page(page, at(after));
    }
    encoder.finish();
    const file = this.file(level, minTxid, maxTxid);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, Buffer.concat(chunks));
    utimesSync(file, new Date(), new Date(header.timestampMs));
    return file;
  }

  close(): void {
    this.#db.close();
  }
}

function pageSizeOf(database: Buffer): number {
  const size = database.readUInt16BE(16);
  return size === 1 ? 65536 : size;
}

/** The checksum of a database (protocol section 6), computed the plain way. */
export function checksumOf(database: Buffer): bigint {
  const pageSize = pageSizeOf(database);
  const sum = new PageSum(pageSize);
  let checksum = 0n;
  for (let page = 1; page * pageSize <= database.length; page++) {
    if (page === lockPage(pageSize)) continue;
    const { lo, hi } = sum.of(page, database, (page - 1) * pageSize, page * pageSize);
    checksum ^= sumValue(lo, hi);
  }
  return checksum;
}

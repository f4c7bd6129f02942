import { existsSync, readFileSync } from "node:fs";
import Sqlite from "better-sqlite3";
import { FRAME_HEADER_BYTES, frameOffset, FrameScanner, parseWalHeader } from "../../src/sqlite/wal.ts";

/** What one commit leaves: each page that it changed, once, and the size of the database after it. */
export interface PageSet {
  readonly numbers: Uint32Array;
  readonly content: Buffer;
  readonly pageCount: number;
}

/** A database of SQLite's own, whose commits are to be applied elsewhere. */
export class Source {
  readonly path: string;
  readonly db: Sqlite.Database;
  readonly pageSize: number;
  #taken = 0;
  #salt = 0;
  #size = 0;

  constructor(path: string, pageSize: number, schema: string, autoVacuum = "none") {
    this.path = path;
    this.pageSize = pageSize;
    this.db = new Sqlite(path);
    this.db.pragma(`page_size = ${pageSize}`);
    this.db.pragma(`auto_vacuum = ${autoVacuum}`);
    this.db.pragma("journal_mode = wal");
    this.db.pragma("wal_autocheckpoint = 0");
    this.db.exec(schema);
    this.rewind();
  }

  /** Brings the WAL into the file, so that the file is the whole database. All commits must have been taken. */
  rewind(): void {
    this.db.pragma("wal_checkpoint(truncate)");
    this.#taken = 0;
    this.#size = this.db.pragma("page_count", { simple: true }) as number;
  }

  /** All pages, as SQLite reads them. */
  get bytes(): Buffer {
    return this.db.serialize();
  }

  /** The commits since the last call. */
  take(): PageSet[] {
    const { pageSize } = this;
    const wal = existsSync(`${this.path}-wal`) ? readFileSync(`${this.path}-wal`) : Buffer.alloc(0);
    if (wal.length === 0) return [];
    const words = new Int32Array(wal.buffer.slice(wal.byteOffset, wal.byteOffset + wal.length - (wal.length % 4)));
    const header = parseWalHeader(words);
    if (header === undefined) return [];
    if (this.#salt !== header.salt2) this.#taken = 0;
    this.#salt = header.salt2;
    const scanner = new FrameScanner(pageSize);
    scanner.begin(header.salt1, header.salt2, header.bigEndian, header.sum1, header.sum2);
    const commits: PageSet[] = [];
    let pages = new Map<number, Buffer>();
    for (let frame = 1; frameOffset(frame + 1, pageSize) <= wal.length; frame++) {
      const at = frameOffset(frame, pageSize);
      if (!scanner.next(words, at / 4)) break;
      if (frame <= this.#taken) continue;
      const content = at + FRAME_HEADER_BYTES;
      pages.set(scanner.page, wal.subarray(content, content + pageSize));
      if (scanner.commitSize === 0) continue;
      commits.push(this.#set(pages, scanner.commitSize));
      pages = new Map();
      this.#taken = frame;
    }
    return commits;
  }

  /** With the pages that the database grew by and that SQLite had no need to write. */
  #set(pages: Map<number, Buffer>, pageCount: number): PageSet {
    const { pageSize } = this;
    for (let page = this.#size + 1; page <= pageCount; page++) {
      if (!pages.has(page)) pages.set(page, this.bytes.subarray((page - 1) * pageSize, page * pageSize));
    }
    this.#size = pageCount;
    const numbers = Uint32Array.from([...pages.keys()].filter((page) => page <= pageCount));
    const content = Buffer.concat(Array.from(numbers, (page) => pages.get(page)!));
    return { numbers, content, pageCount };
  }

  close(): void {
    this.db.close();
  }
}

/** Several commits as one. */
export function merged(commits: readonly PageSet[], pageSize: number): PageSet {
  const pages = new Map<number, Buffer>();
  let pageCount = 0;
  for (const set of commits) {
    for (const [i, page] of set.numbers.entries()) {
      pages.set(page, set.content.subarray(i * pageSize, (i + 1) * pageSize));
    }
    pageCount = set.pageCount;
  }
  const numbers = Uint32Array.from([...pages.keys()].filter((page) => page <= pageCount));
  return { numbers, content: Buffer.concat(Array.from(numbers, (page) => pages.get(page)!)), pageCount };
}

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import Sqlite from "better-sqlite3";
import {
  FRAME_HEADER_BYTES,
  frameOffset,
  FrameScanner,
  parseWalHeader,
  WAL_HEADER_BYTES,
} from "../../src/sqlite/wal.ts";

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
  readonly #scanner: FrameScanner;
  #taken = 0;
  #size = 0;

  constructor(path: string, pageSize: number, schema: string, autoVacuum = "none") {
    this.path = path;
    this.pageSize = pageSize;
    this.#scanner = new FrameScanner(pageSize);
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
    const frameBytes = FRAME_HEADER_BYTES + pageSize;
    const wal = openSync(`${this.path}-wal`, "r");
    try {
      if (this.#taken === 0 && !this.#begin(wal)) return [];
      const count = Math.floor((fstatSync(wal).size - WAL_HEADER_BYTES) / frameBytes) - this.#taken;
      const bytes = Buffer.alloc(count * frameBytes);
      readSync(wal, bytes, 0, bytes.length, frameOffset(this.#taken + 1, pageSize));
      return this.#commits(bytes);
    } finally {
      closeSync(wal);
    }
  }

  #begin(wal: number): boolean {
    const words = new Int32Array(WAL_HEADER_BYTES / 4);
    readSync(wal, words);
    const header = parseWalHeader(words);
    if (header === undefined) return false;
    this.#scanner.begin(header.salt1, header.salt2, header.bigEndian, header.sum1, header.sum2);
    return true;
  }

  /** Frames past the last commit are rolled back ones: SQLite keeps them until it writes over them. */
  #commits(bytes: Buffer): PageSet[] {
    const scanner = this.#scanner;
    const frameBytes = FRAME_HEADER_BYTES + this.pageSize;
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    const commits: PageSet[] = [];
    let pages = new Map<number, Buffer>();
    let { s1, s2 } = scanner.sum;
    for (let at = 0, frame = this.#taken + 1; at < bytes.length; at += frameBytes, frame++) {
      if (!scanner.next(words, at / 4)) break;
      pages.set(scanner.page, bytes.subarray(at + FRAME_HEADER_BYTES, at + frameBytes));
      if (scanner.commitSize === 0) continue;
      commits.push(this.#set(pages, scanner.commitSize));
      pages = new Map();
      ({ s1, s2 } = scanner.sum);
      this.#taken = frame;
    }
    scanner.sum.set(s1, s2);
    return commits;
  }

  /** With the pages that the database grew by and that SQLite had no need to write. */
  #set(pages: Map<number, Buffer>, pageCount: number): PageSet {
    const { pageSize } = this;
    let all: Buffer | undefined;
    for (let page = this.#size + 1; page <= pageCount; page++) {
      if (pages.has(page)) continue;
      all ??= this.bytes;
      pages.set(page, all.subarray((page - 1) * pageSize, page * pageSize));
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

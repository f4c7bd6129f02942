import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { open, unlink, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { SluiceError } from "../errors/error.ts";
import { lockPageOf, PENDING_BYTE } from "../sqlite/database-header.ts";
import { SHARED_FIRST, SHARED_SIZE, tryLock, unlock } from "../sqlite/locks.ts";
import { hasStamp, stampHeader } from "./follow-header.ts";

const RESERVED_BYTE = PENDING_BYTE + 1;
/** Header of a rollback journal, padded to the smallest sector (SQLite's "Database File Format", section 3). */
const JOURNAL_HEADER_BYTES = 512;
const JOURNAL_MAGIC = Uint8Array.of(0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7);

/** The pages that lead a database from the state it's in to another one. */
export interface PageChanges {
  readonly pageSize: number;
  /** Size of the database after them, in pages. */
  readonly pageCount: number;
  /** Ascending, 1-based, page 1 among them, all pages past the old end, never the lock page. */
  readonly pages: Iterable<number>;
  /** Fills `into` with the new content of a page, as the source has it. */
  read(page: number, into: Uint8Array): Promise<void>;
}

export interface ApplyOptions {
  /** What `stampHeader` gave page 1 at the last update. */
  readonly counter: number;
  /** How long readers may keep the lock before this update is put off. */
  readonly readersWaitMs: number;
  /** Called for each page whose content changes; `before` or `after` is missing where the file grows or shrinks. */
  readonly onPage: (page: number, before: Uint8Array | undefined, after: Uint8Array | undefined) => void;
  /** Called after the last `onPage` and before the file is touched; a rejection calls the update off. */
  readonly beforeCommit?: () => Promise<void>;
}

/**
 * Applies `changes` to the database file at `path` as one transaction that every SQLite sees whole or not at all. It
 * is what SQLite's pager does in rollback mode (pager.c; "Atomic Commit In SQLite"): SHARED and RESERVED, the old pages
 * into `-journal`, synced; PENDING and EXCLUSIVE; the new pages into the file, synced; the journal deleted, which is the
 * commit. Killed before that, the journal is hot, and whoever opens the file next, reader or follower, rolls back.
 * SHARED matters: a reader that has found an older journal hot, and was slow, would else take this one for it.
 *
 * Returns false, with nothing changed, when readers kept their lock for `readersWaitMs`, or when there is a journal to
 * be rolled back first. Throws SLU-4514 when another
 * writer was there, and what the system throws; the file is then rolled back by the next to open it.
 */
export async function applyAtomically(path: string, changes: PageChanges, options: ApplyOptions): Promise<boolean> {
  const file = await open(path, "r+");
  try {
    if (!lockShared(file.fd) || existsSync(`${path}-journal`)) return false;
    if (!tryLock(file.fd, "exclusive", RESERVED_BYTE)) {
      throw new SluiceError("SLU-4514", `${path}: another process is writing to the followed file`);
    }
    return await underReserved(path, file, changes, options);
  } finally {
    // Also releases the locks.
    await file.close();
  }
}

/** Takes SQLite's SHARED lock (unixLock: through PENDING, so that nobody is locked out for ever); false when it's busy. */
export function lockShared(fd: number): boolean {
  if (!tryLock(fd, "shared", PENDING_BYTE)) return false;
  try {
    return tryLock(fd, "shared", SHARED_FIRST, SHARED_SIZE);
  } finally {
    unlock(fd, PENDING_BYTE);
  }
}

async function underReserved(
  path: string,
  file: FileHandle,
  changes: PageChanges,
  options: ApplyOptions,
): Promise<boolean> {
  const { pageSize, pageCount } = changes;
  const oldCount = Math.floor((await file.stat()).size / pageSize);
  // Never over an existing one: that is what brings the old pages back after a kill.
  const journal = await open(`${path}-journal`, "wx", (await file.stat()).mode & 0o777);
  let changed: number[];
  try {
    const writer = new JournalWriter(journal, pageSize, oldCount);
    await writer.begin();
    changed = await journalPages(path, file, writer, oldCount, changes, options);
    await writer.seal();
    await syncDirectory(path);
    await options.beforeCommit?.();
  } catch (error) {
    // RESERVED is held and the database is as it was, so nobody needs the journal.
    await unlink(`${path}-journal`);
    throw error;
  } finally {
    await journal.close();
  }
  if (!(await lockOutReaders(file.fd, options.readersWaitMs))) {
    await unlink(`${path}-journal`);
    return false;
  }
  const page = Buffer.allocUnsafe(pageSize);
  for (const number of changed) {
    await readNew(changes, number, page, options.counter + 1);
    await writeAll(file, page, (number - 1) * pageSize);
  }
  // Also where the lock page is the last one, which is in no file and no journal.
  if (pageCount !== oldCount) await file.truncate(pageCount * pageSize);
  await file.datasync();
  await unlink(`${path}-journal`);
  await syncDirectory(path);
  return true;
}

/** Writes the old content of what will differ to the journal; returns the pages that do. */
async function journalPages(
  path: string,
  file: FileHandle,
  journal: JournalWriter,
  oldCount: number,
  changes: PageChanges,
  options: ApplyOptions,
): Promise<number[]> {
  const { pageSize, pageCount } = changes;
  const before = Buffer.allocUnsafe(pageSize);
  const after = Buffer.allocUnsafe(pageSize);
  const changed: number[] = [];
  for (const page of changes.pages) {
    if (page > pageCount) continue;
    await changes.read(page, after);
    if (page > oldCount) {
      options.onPage(page, undefined, after);
      changed.push(page);
      continue;
    }
    await readAll(file, before, (page - 1) * pageSize);
    if (page === 1 && !hasStamp(before, options.counter)) {
      throw new SluiceError("SLU-4514", `${path}: the header is not as the last update left it`);
    }
    if (page !== 1 && before.equals(after)) continue;
    options.onPage(page, before, after);
    await journal.add(page, before);
    changed.push(page);
  }
  const lockPage = lockPageOf(pageSize);
  for (let page = pageCount + 1; page <= oldCount; page++) {
    if (page === lockPage) continue;
    await readAll(file, before, (page - 1) * pageSize);
    options.onPage(page, before, undefined);
    await journal.add(page, before);
  }
  return changed;
}

async function readNew(changes: PageChanges, page: number, into: Buffer, counter: number): Promise<void> {
  await changes.read(page, into);
  if (page === 1) stampHeader(into, counter);
}

/** PENDING keeps new readers out (they wait in their busy handler) while those who read come to an end. */
async function lockOutReaders(fd: number, waitMs: number): Promise<boolean> {
  if (!tryLock(fd, "exclusive", PENDING_BYTE)) return false;
  for (const deadline = Date.now() + waitMs; ;) {
    if (tryLock(fd, "exclusive", SHARED_FIRST, SHARED_SIZE)) return true;
    if (Date.now() >= deadline) break;
    await sleep(2);
  }
  unlock(fd, PENDING_BYTE);
  return false;
}

/** A rollback journal with one header: written with no record first, and with their number when all are synced. */
class JournalWriter {
  readonly #file: FileHandle;
  readonly #header = Buffer.alloc(JOURNAL_HEADER_BYTES);
  readonly #record: Buffer;
  readonly #nonce = randomBytes(4).readUInt32BE();
  #records = 0;

  constructor(file: FileHandle, pageSize: number, pageCount: number) {
    this.#file = file;
    this.#record = Buffer.alloc(pageSize + 8);
    this.#header.set(JOURNAL_MAGIC);
    this.#header.writeUInt32BE(this.#nonce, 12);
    this.#header.writeUInt32BE(pageCount, 16);
    this.#header.writeUInt32BE(JOURNAL_HEADER_BYTES, 20);
    this.#header.writeUInt32BE(pageSize, 24);
  }

  begin(): Promise<void> {
    return writeAll(this.#file, this.#header, 0);
  }

  async add(page: number, content: Buffer): Promise<void> {
    const record = this.#record;
    record.writeUInt32BE(page, 0);
    content.copy(record, 4);
    // pager_cksum(): every 200th byte from the end, above offset 0.
    let sum = this.#nonce;
    for (let i = content.length - 200; i > 0; i -= 200) sum = (sum + content[i]!) >>> 0;
    record.writeUInt32BE(sum, content.length + 4);
    await writeAll(this.#file, record, JOURNAL_HEADER_BYTES + this.#records * record.length);
    this.#records++;
  }

  async seal(): Promise<void> {
    await this.#file.datasync();
    this.#header.writeUInt32BE(this.#records, 8);
    await writeAll(this.#file, this.#header, 0);
    await this.#file.datasync();
  }
}

async function readAll(file: FileHandle, into: Buffer, position: number): Promise<void> {
  const { bytesRead } = await file.read(into, 0, into.length, position);
  if (bytesRead !== into.length) into.fill(0, bytesRead);
}

async function writeAll(file: FileHandle, from: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < from.length;) {
    const { bytesWritten } = await file.write(from, done, from.length - done, position + done);
    if (bytesWritten === 0) throw Object.assign(new Error("write returned 0"), { code: "EIO" });
    done += bytesWritten;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(dirname(path), "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

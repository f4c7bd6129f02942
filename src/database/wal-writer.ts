import { randomFillSync } from "node:crypto";
import { fdatasync, fdatasyncSync } from "node:fs";
import { promisify } from "node:util";
import { SluiceError } from "../errors/error.ts";
import {
  bigEndianValue,
  FRAME_HEADER_BYTES,
  frameOffset,
  parseWalHeader,
  putWalHeader,
  signFrame,
  WAL_HEADER_BYTES,
  WalChecksum,
} from "../sqlite/wal.ts";
import { HEADER_COPIES_BYTES, WAL_INDEX_HEADER_BYTES, WalIndexHeader, WalIndexImage } from "../sqlite/wal-index.ts";
import { type DatabaseFiles, fileError } from "./files.ts";
import { readAt, SHARED_BUFFER_BYTES, sharedBuffer, writeAt } from "./io.ts";
import { SharedIndex } from "./shared-index.ts";

const datasync = promisify(fdatasync);
const noHeader = new Uint8Array(FRAME_HEADER_BYTES);

/** A commit that `WalWriter` has published: its last frame, and that frame's cumulative checksum. */
export interface PublishedCommit {
  readonly frame: number;
  readonly sum1: number;
  readonly sum2: number;
}

/**
 * Appends commits to a WAL that is in use, as SQLite would (protocol section 5; wal.c, `walFrames`, `walIndexAppend`,
 * `walIndexWriteHdr`). Readers in other processes see a commit when the header of the wal-index is written, which is
 * one write; until then its frames and index entries are nobody's, and the next try writes over them.
 *
 *     idle ── (prepare) ── begin ─► open ── append … ─► full ── publish ─► idle
 *                                   └──────────────────┴─ abort, or an error and then abort ─► idle
 *
 * The caller holds the end of the WAL: the gate is closed, and `HeldLocks.beginChange` was called. A writer is made
 * when the gate is closed, and made anew when it was open since. Everything is synchronous; nothing is allocated for a
 * page.
 */
export class WalWriter {
  readonly #files: DatabaseFiles;
  readonly #pageSize: number;
  readonly #frameBytes: number;
  readonly #index: SharedIndex;
  readonly #image = new WalIndexImage();
  /** The header as it was at `begin`, and as it is to become. */
  readonly #before = new WalIndexHeader();
  readonly #header = new WalIndexHeader();
  readonly #now = new WalIndexHeader();
  readonly #sum = new WalChecksum();
  /** The page whose frame ends the change, and its content. */
  readonly #lastPage = new Uint32Array(1);
  readonly #lastContent: Buffer;
  #state: "idle" | "preparing" | "open" | "full" | "failed" = "idle";
  /** The WAL's header is written and synced, for the wal-index header `#before`. */
  #isPrepared = false;
  /** The last frame of the change. */
  #last = 0;
  /** The last frame that was written. */
  #frame = 0;

  constructor(files: DatabaseFiles, pageSize: number) {
    this.#files = files;
    this.#pageSize = pageSize;
    this.#frameBytes = FRAME_HEADER_BYTES + pageSize;
    this.#lastContent = Buffer.alloc(pageSize);
    this.#index = new SharedIndex(files);
  }

  /**
   * Right after a restart of the WAL, writes its header and syncs it off the event loop, so that `begin` needs not do it.
   * Resolves at once otherwise. SLU-2008 to SLU-2010 for system errors.
   */
  async prepare(header: WalIndexHeader): Promise<void> {
    if (this.#state !== "idle") throw this.#misused(`prepares while the writer is ${this.#state}`);
    if (header.mxFrame > 0) return;
    this.#state = "preparing";
    try {
      this.#writeHeader(header);
      await datasync(this.#files.wal);
      this.#isPrepared = true;
    } catch (error) {
      throw fileError(error, this.#files.walPath, "begin of the WAL");
    } finally {
      this.#state = "idle";
    }
  }

  /**
   * A change of `pages` pages (at least 1: SQLite never commits without a frame, also when a database only shrinks) after
   * which the database has `pageCount`. `header`: the wal-index's as it is now. When the WAL was restarted, its header
   * is written, and synced: a power loss must not leave old frames behind an old header. Throws SLU-2007 when the index
   * is damaged beyond repair, SLU-2008 to SLU-2010 for system errors; nothing has begun then.
   */
  begin(header: WalIndexHeader, pages: number, pageCount: number): void {
    if (this.#state !== "idle" || pages < 1 || pageCount < 1) {
      throw this.#misused(`a change of ${pages} pages to ${pageCount} begins while the writer is ${this.#state}`);
    }
    if (header.mxFrame > 0 && header.pageSize !== this.#pageSize) {
      throw this.#misused(`the WAL has pages of ${header.pageSize} bytes, not ${this.#pageSize}`);
    }
    const isPrepared = this.#isPrepared && this.#before.isSame(header);
    this.#isPrepared = false;
    try {
      if (header.mxFrame > 0) {
        this.#header.assign(header);
        this.#sum.set(header.frameSum1, header.frameSum2);
      } else if (!isPrepared) {
        this.#writeHeader(header);
        fdatasyncSync(this.#files.wal);
      }
      this.#index.begin(header);
    } catch (error) {
      throw fileError(error, this.#files.path, "begin of a change");
    }
    this.#before.assign(header);
    this.#header.pageCount = pageCount;
    this.#header.change = (header.change + 1) >>> 0;
    this.#header.mxFrame = this.#last = header.mxFrame + pages;
    this.#frame = header.mxFrame;
    this.#state = "open";
  }

  /**
   * Whoever writes frame 1 draws the salts, as in `walFrames`: anew for each try, so that frames of one that failed never
   * continue those of the next.
   */
  #writeHeader(before: WalIndexHeader): void {
    const { wal } = this.#files;
    const { bytes, words } = sharedBuffer();
    const old = readAt(wal, bytes, WAL_HEADER_BYTES, 0) === WAL_HEADER_BYTES ? parseWalHeader(words) : undefined;
    const header = this.#header;
    this.#before.assign(before);
    header.assign(before);
    header.pageSize = this.#pageSize;
    header.bigEndian = false;
    if (header.salt1 === 0) header.salt1 = randomWord();
    header.salt2 = randomWord();
    const sequence = ((old?.sequence ?? -1) + 1) >>> 0;
    const { pageSize, salt1, salt2 } = header;
    putWalHeader(words, { pageSize, sequence, salt1, salt2 }, this.#sum);
    writeAt(wal, bytes, 0, WAL_HEADER_BYTES, 0);
  }

  /**
   * Appends pages: `numbers[i]`'s content is at `i * pageSize` in `content`. Each page once in a change, in any order; the
   * caller has checked the numbers. The last page of the change is kept until `publish`: without the commit frame, nobody
   * who recovers the WAL can take the change for a commit. System errors as SLU-2008 to SLU-2010; only `abort` makes
   * sense then.
   */
  append(numbers: Uint32Array, content: Uint8Array): void {
    const count = numbers.length;
    if (this.#state !== "open" || this.#frame + count > this.#last || content.length !== count * this.#pageSize) {
      throw this.#misused(`${count} pages in ${content.length} bytes, after frame ${this.#frame} of ${this.#last}`);
    }
    const pages = Buffer.from(content.buffer, content.byteOffset, content.length);
    const isLast = this.#frame + count === this.#last;
    const end = isLast ? count - 1 : count;
    const chunk = Math.floor(SHARED_BUFFER_BYTES / this.#frameBytes);
    this.#state = "failed";
    try {
      for (let i = 0; i < end; i += chunk) this.#write(numbers, pages, i, Math.min(end, i + chunk));
      this.#index.append(numbers, end);
    } catch (error) {
      throw fileError(error, this.#files.path, "append to the WAL");
    }
    if (isLast && count > 0) {
      this.#lastPage[0] = numbers[end]!;
      pages.copy(this.#lastContent, 0, end * this.#pageSize);
      this.#state = "full";
    } else {
      this.#state = "open";
    }
  }

  #write(numbers: Uint32Array, pages: Buffer, from: number, to: number): void {
    const pageSize = this.#pageSize;
    const { bytes, words } = sharedBuffer();
    const offset = frameOffset(this.#frame + 1, pageSize);
    let at = 0;
    for (let i = from; i < to; i++) {
      this.#frame++;
      words[at / 4] = bigEndianValue(numbers[i]!);
      words[at / 4 + 1] = bigEndianValue(this.#frame === this.#last ? this.#header.pageCount : 0);
      pages.copy(bytes, at + FRAME_HEADER_BYTES, i * pageSize, (i + 1) * pageSize);
      signFrame(words, at / 4, pageSize, this.#header, this.#sum);
      at += this.#frameBytes;
    }
    writeAt(this.#files.wal, bytes, 0, at, offset);
  }

  /**
   * Shows the change to readers. Throws SLU-2000 when pages are missing, SLU-2007 when somebody went around the closed gate
   * and has committed meanwhile, SLU-2008 to SLU-2010 for system errors; nothing was shown then.
   */
  publish(): PublishedCommit {
    if (this.#state !== "full") throw this.#misused(`published at frame ${this.#frame} of ${this.#last}`);
    const { shm, path } = this.#files;
    const header = this.#header;
    this.#state = "failed";
    try {
      this.#compare();
      this.#write(this.#lastPage, this.#lastContent, 0, 1);
      this.#index.append(this.#lastPage, 1);
      header.frameSum1 = this.#sum.s1;
      header.frameSum2 = this.#sum.s2;
      this.#image.put(header);
      writeAt(shm, this.#image.bytes, 0, HEADER_COPIES_BYTES, 0);
    } catch (error) {
      this.#takeBack();
      throw fileError(error, path, "publish");
    }
    this.#index.published(header);
    this.#state = "idle";
    return { frame: header.mxFrame, sum1: header.frameSum1, sum2: header.frameSum2 };
  }

  /** A commit frame that was written but not shown must not come to life in a recovery. */
  #takeBack(): void {
    if (this.#frame < this.#last) return;
    try {
      writeAt(this.#files.wal, noHeader, 0, FRAME_HEADER_BYTES, frameOffset(this.#last, this.#pageSize));
    } catch {
      // The disk fails: the next change writes over it.
    }
  }

  /** The header in the file is still the one that the change began with. */
  #compare(): void {
    const { shm, path } = this.#files;
    const image = this.#image;
    const now = this.#now;
    const length = readAt(shm, image.bytes, WAL_INDEX_HEADER_BYTES, 0);
    if (length === WAL_INDEX_HEADER_BYTES && image.isWhole) {
      image.parse(0, now);
      if (now.isSame(this.#before)) return;
    }
    throw new SluiceError("SLU-2007", `${path}: somebody wrote to the wal-index while the gate was closed`);
  }

  /** Forgets a change that wasn't published. Harmless when there is none. */
  abort(): void {
    if (this.#state !== "preparing") this.#state = "idle";
  }

  #misused(what: string): SluiceError {
    return new SluiceError("SLU-2000", `${this.#files.path}: ${what}`);
  }
}

function randomWord(): number {
  return randomFillSync(new Int32Array(1))[0]!;
}

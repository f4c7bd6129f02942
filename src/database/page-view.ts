import { read } from "node:fs";
import { promisify } from "node:util";
import { lockPageOf } from "../sqlite/database-header.ts";
import { FRAME_HEADER_BYTES, frameOffset } from "../sqlite/wal.ts";
import { type DatabaseFiles, fileError } from "./files.ts";
import { readAt } from "./io.ts";

const readAsync = promisify(read);

/**
 * One state of the database: pages out of the frames that are not backfilled, or else out of the database file
 * (protocol section 4, "consistent snapshot"). Right for as long as nothing is backfilled and the WAL is not restarted.
 */
export class PageView {
  /** Bytes. */
  readonly pageSize: number;
  /** Pages in the database. */
  readonly pageCount: number;
  readonly #files: DatabaseFiles;
  readonly #pairs: Uint32Array;
  readonly #lockPage: number;

  /** `pairs`: page, frame, … in the order of pages, as `FrameList.newest` gives them. */
  constructor(files: DatabaseFiles, pageSize: number, pageCount: number, pairs: Uint32Array) {
    this.#files = files;
    this.pageSize = pageSize;
    this.pageCount = pageCount;
    this.#pairs = pairs;
    this.#lockPage = lockPageOf(pageSize);
  }

  /**
   * Fills `into` with whole pages from `firstPage` (1-based) on, without blocking the event loop for the database file.
   * Pages that are in neither file, and the lock page, are zeros. Throws SLU-2010.
   */
  async read(firstPage: number, into: Uint8Array): Promise<void> {
    const count = into.length / this.pageSize;
    if (!Number.isInteger(count) || firstPage < 1 || firstPage + count - 1 > this.pageCount) {
      throw new RangeError(`pages ${firstPage} to ${firstPage + count - 1} of ${this.pageCount}`);
    }
    try {
      await this.#readFile(firstPage, into);
      this.#overlay(firstPage, count, into);
    } catch (error) {
      throw fileError(error, this.#files.path, "read");
    }
    const lock = this.#lockPage - firstPage;
    if (lock >= 0 && lock < count) into.fill(0, lock * this.pageSize, (lock + 1) * this.pageSize);
  }

  async #readFile(firstPage: number, into: Uint8Array): Promise<void> {
    const position = (firstPage - 1) * this.pageSize;
    let done = 0;
    while (done < into.length) {
      const { bytesRead } = await readAsync(this.#files.db, into, done, into.length - done, position + done);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    into.fill(0, done);
  }

  #overlay(firstPage: number, count: number, into: Uint8Array): void {
    const pairs = this.#pairs;
    for (let i = this.#find(firstPage); i < pairs.length && pairs[i]! < firstPage + count; i += 2) {
      const at = (pairs[i]! - firstPage) * this.pageSize;
      const frame = pairs[i + 1]!;
      const offset = frameOffset(frame, this.pageSize) + FRAME_HEADER_BYTES;
      const page = into.subarray(at, at + this.pageSize);
      if (readAt(this.#files.wal, page, this.pageSize, offset) === this.pageSize) continue;
      throw Object.assign(new Error(`the WAL ends inside frame ${frame}`), { code: "EIO" });
    }
  }

  /** Index of the first pair whose page is `page` or above. */
  #find(page: number): number {
    let low = 0;
    let high = this.#pairs.length / 2;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#pairs[2 * middle]! < page) low = middle + 1;
      else high = middle;
    }
    return 2 * low;
  }
}

import { FRAME_HEADER_BYTES, frameOffset } from "../sqlite/wal.ts";
import type { DatabaseFiles } from "./files.ts";
import { readAt, SHARED_BUFFER_BYTES, sharedBuffer, writeAt } from "./io.ts";

/**
 * Copies page versions from the WAL into the database file, in page order; neighbouring pages in one write. Works in
 * steps, so that the event loop is never held for long.
 */
export class PageCopy {
  readonly #files: DatabaseFiles;
  readonly #pageSize: number;
  readonly #pairs: Uint32Array;
  #at = 0;

  /** `pairs`: page, frame, page, frame, … in the order of pages. */
  constructor(files: DatabaseFiles, pageSize: number, pairs: Uint32Array) {
    this.#files = files;
    this.#pageSize = pageSize;
    this.#pairs = pairs;
  }

  get done(): boolean {
    return this.#at === this.#pairs.length;
  }

  /** Copies one run of neighbouring pages, of at most the shared buffer's size. Throws system errors; may be repeated. */
  step(): void {
    const { bytes } = sharedBuffer();
    const pairs = this.#pairs;
    const size = this.#pageSize;
    const most = Math.floor(SHARED_BUFFER_BYTES / size);
    const first = pairs[this.#at]!;
    let count = 0;
    while (count < most && pairs[this.#at + 2 * count] === first + count) {
      const frame = pairs[this.#at + 2 * count + 1]!;
      const into = bytes.subarray(count * size, (count + 1) * size);
      const read = readAt(this.#files.wal, into, size, frameOffset(frame, size) + FRAME_HEADER_BYTES);
      if (read < size) throw Object.assign(new Error(`the WAL ends inside frame ${frame}`), { code: "EIO" });
      count++;
    }
    writeAt(this.#files.db, bytes, 0, count * size, (first - 1) * size);
    this.#at += 2 * count;
  }
}

import { SluiceError } from "../errors/error.ts";
import { bigEndianValue, FRAME_HEADER_BYTES, frameOffset } from "../sqlite/wal.ts";
import type { WalPlace } from "./capture.ts";
import type { DatabaseFiles } from "./files.ts";
import { readAt, SHARED_BUFFER_BYTES, sharedBuffer, writeAt } from "./io.ts";

/**
 * Copies page versions from the WAL into the database file, in page order; neighbouring pages in one write. Works in
 * steps, so that the event loop is never held for long. Each frame's header is compared with what was captured before
 * its page is believed.
 */
export class PageCopy {
  readonly #files: DatabaseFiles;
  readonly #pageSize: number;
  readonly #pairs: Uint32Array;
  readonly #place: WalPlace;
  #at = 0;

  /** `pairs`: page, frame, page, frame, … in the order of pages; `place`: the generation of the frames. */
  constructor(files: DatabaseFiles, pageSize: number, pairs: Uint32Array, place: WalPlace) {
    this.#files = files;
    this.#pageSize = pageSize;
    this.#pairs = pairs;
    this.#place = place;
  }

  get done(): boolean {
    return this.#at === this.#pairs.length;
  }

  /** Copies one run of neighbouring pages, as far as the shared buffer goes. Throws system errors; may be repeated. */
  step(): void {
    const { bytes, words } = sharedBuffer();
    const pairs = this.#pairs;
    const size = this.#pageSize;
    // The end of the buffer takes one frame with its header.
    const frameAt = SHARED_BUFFER_BYTES - size - FRAME_HEADER_BYTES;
    const most = Math.floor(frameAt / size);
    const first = pairs[this.#at]!;
    let count = 0;
    while (count < most && pairs[this.#at + 2 * count] === first + count) {
      this.#readFrame(bytes, words, frameAt, first + count, pairs[this.#at + 2 * count + 1]!);
      bytes.copyWithin(count * size, frameAt + FRAME_HEADER_BYTES, SHARED_BUFFER_BYTES);
      count++;
    }
    writeAt(this.#files.db, bytes, 0, count * size, (first - 1) * size);
    this.#at += 2 * count;
  }

  #readFrame(bytes: Buffer, words: Int32Array, at: number, page: number, frame: number): void {
    const length = this.#pageSize + FRAME_HEADER_BYTES;
    const read = readAt(this.#files.wal, bytes.subarray(at), length, frameOffset(frame, this.#pageSize));
    const word = at / 4;
    if (
      read === length &&
      bigEndianValue(words[word]!) >>> 0 === page &&
      words[word + 2] === this.#place.salt1 &&
      words[word + 3] === this.#place.salt2
    ) {
      return;
    }
    throw new SluiceError("SLU-2007", `${this.#files.walPath}: frame ${frame} is not what was captured`);
  }
}

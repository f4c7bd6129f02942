import { SluiceError } from "../errors/error.ts";
import { FRAME_HEADER_BYTES, frameOffset, FrameScanner, parseWalHeader, WAL_HEADER_BYTES } from "../sqlite/wal.ts";
import { WAL_INDEX_HEADER_BYTES, WalIndexHeader, WalIndexImage } from "../sqlite/wal-index.ts";
import { type DatabaseFiles, fileError } from "./files.ts";
import type { FrameList } from "./frame-list.ts";
import { readAt, SHARED_BUFFER_BYTES, sharedBuffer } from "./io.ts";

/** What a look at the wal-index header showed. */
export type Look =
  /** The header is that of the last capture. */
  | "same"
  /** There are commits that were not captured yet. */
  | "moved"
  /** Both copies differ, a checksum is wrong, or `nBackfill` is past `mxFrame`: a writer is at it, or was killed at it. */
  | "torn";

/** Told of each commit, in order, when all its frames have been read and verified. */
export interface CommitSink {
  /** Frames `first` … `last` are one commit; `frames` says which pages they hold. Sizes are in pages. */
  commit(frames: FrameList, first: number, last: number, sizeBefore: number, sizeAfter: number): void;
}

/** Sees every frame while it is read anyway. Nothing is to be allocated for a frame. */
export interface CaptureTap {
  /** The page of the next frame is in `bytes` from byte `from` on; its commit may end later. */
  frame(page: number, bytes: Uint8Array, from: number): void;
  /** Frames `first` … `last`, which came since the last commit, are one. */
  commit(first: number, last: number, sizeBefore: number, sizeAfter: number): void;
  /** The WAL begins anew. */
  restarted(): void;
}

/** A place in the WAL: a generation, a commit's last frame in it, and the cumulative checksum of that frame. */
export interface WalPlace {
  readonly salt1: number;
  readonly salt2: number;
  readonly frame: number;
  readonly sum1: number;
  readonly sum2: number;
}

const words8 = new Int32Array(8);
const bytes32 = new Uint8Array(words8.buffer);

/**
 * Reads what is committed out of the WAL (protocol section 3): every frame from the last captured one to `mxFrame`,
 * salts and checksums verified, cut at commit frames. Frames past `mxFrame` are not looked at.
 *
 * - **Between generations** (`frame` is 0): nothing has been captured of the WAL as it is now. The salts of the wal-index
 *   mean nothing until its `mxFrame` is above 0; then the WAL's header names the generation.
 * - **In a generation** (`frame` above 0): salts must stay and `mxFrame` must not go back. Anything else means that
 *   frames were lost: SLU-2007, from every call from then on.
 *
 * All methods are synchronous and allocate nothing for a frame. Read errors are thrown as SLU-2010 and leave the state
 * at the last whole frame, so the call can be repeated.
 */
export class Capture {
  readonly image = new WalIndexImage();
  readonly header = new WalIndexHeader();
  readonly pageSize: number;
  readonly #files: DatabaseFiles;
  readonly #frames: FrameList;
  readonly #sink: CommitSink;
  readonly #scanner: FrameScanner;
  readonly #frameBytes: number;
  #salt1 = 0;
  #salt2 = 0;
  #frame = 0;
  #sum1 = 0;
  #sum2 = 0;
  /** Frames that were read and verified, at or above `#frame`: the commit that they belong to has not ended. */
  #scanned = 0;
  #size: number;
  #unsummed = 0;
  #lost: SluiceError | undefined;
  /** Set between commits only: it sees whole commits. */
  tap: CaptureTap | undefined;

  /** `size`: pages in the database before the first frame. */
  constructor(files: DatabaseFiles, pageSize: number, size: number, frames: FrameList, sink: CommitSink) {
    this.#files = files;
    this.pageSize = pageSize;
    this.#size = size;
    this.#frames = frames;
    this.#sink = sink;
    this.#scanner = new FrameScanner(pageSize);
    this.#frameBytes = FRAME_HEADER_BYTES + pageSize;
  }

  /** Last frame of the last captured commit in this generation; 0 between generations. */
  get frame(): number {
    return this.#frame;
  }

  /** Pages in the database after the last captured commit. */
  get size(): number {
    return this.#size;
  }

  /**
   * The first captured frame that SQLite left without salts and checksum, or 0. Live connections read it well, but
   * SQLite's recovery stops there: what follows would be lost, or mixed with newer pages of the database file.
   */
  get unsummed(): number {
    return this.#unsummed;
  }

  /** All captured frames have salts and checksums again; `s1`, `s2` are those of the last. */
  healed(s1: number, s2: number): void {
    this.#unsummed = 0;
    this.#sum1 = this.header.frameSum1 = s1;
    this.#sum2 = this.header.frameSum2 = s2;
    this.#scanner.begin(this.#salt1, this.#salt2, this.header.bigEndian, s1, s2);
  }

  get place(): WalPlace {
    return { salt1: this.#salt1, salt2: this.#salt2, frame: this.#frame, sum1: this.#sum1, sum2: this.#sum2 };
  }

  /** Why nothing can be captured any more; undefined while all is well. */
  get lost(): SluiceError | undefined {
    return this.#lost;
  }

  /** Reads the header of the wal-index into `image`, and into `header` unless it is torn. */
  look(): Look {
    if (this.#lost !== undefined) throw this.#lost;
    for (let attempt = 0; ; attempt++) {
      let length;
      try {
        length = readAt(this.#files.shm, this.image.bytes, WAL_INDEX_HEADER_BYTES, 0);
      } catch (error) {
        throw fileError(error, this.#files.shmPath, "read");
      }
      if (length < WAL_INDEX_HEADER_BYTES) throw this.#fail("SLU-2006", `${this.#files.shmPath} was truncated`);
      if (this.image.isWhole) break;
      // A writer may be between the copies just now; it takes nanoseconds unless it was killed there.
      if (attempt === 3) return "torn";
    }
    this.image.parse(0, this.header);
    const { mxFrame, pageSize } = this.header;
    if (this.image.backfill > mxFrame) return "torn";
    if (this.#frame === 0) return mxFrame === 0 ? "same" : "moved";
    if (pageSize !== this.pageSize) throw this.#fail("SLU-2007", `page size is ${pageSize}, was ${this.pageSize}`);
    if (this.header.salt1 !== this.#salt1 || this.header.salt2 !== this.#salt2) {
      throw this.#fail("SLU-2007", `the WAL was restarted by somebody else after frame ${this.#frame}`);
    }
    if (mxFrame < this.#frame)
      throw this.#fail("SLU-2007", `the WAL went back from frame ${this.#frame} to ${mxFrame}`);
    return mxFrame === this.#frame ? "same" : "moved";
  }

  /**
   * Reads frames up to the `mxFrame` of the last `look`, at most about `budgetBytes` of them. True when it got there.
   * After "same" there is nothing to do; after "torn" it must not be called.
   */
  advance(budgetBytes = Number.POSITIVE_INFINITY): boolean {
    if (this.#lost !== undefined) throw this.#lost;
    const end = this.header.mxFrame;
    if (this.#scanned === 0 && end > 0) this.#begin();
    const { bytes, words } = sharedBuffer();
    const chunk = Math.max(1, Math.floor(SHARED_BUFFER_BYTES / this.#frameBytes));
    let budget = budgetBytes;
    while (this.#scanned < end) {
      if (budget <= 0) return false;
      const count = Math.min(chunk, end - this.#scanned);
      const length = count * this.#frameBytes;
      let read;
      try {
        read = readAt(this.#files.wal, bytes, length, frameOffset(this.#scanned + 1, this.pageSize));
      } catch (error) {
        throw fileError(error, this.#files.walPath, "read");
      }
      if (read < length) throw this.#fail("SLU-2007", `${this.#files.walPath} ends before frame ${end}`);
      for (let i = 0; i < count; i++) this.#accept(bytes, words, i * this.#frameBytes);
      budget -= length;
    }
    if (this.#frame !== end) throw this.#fail("SLU-2007", `no commit ends at frame ${end}`);
    if (end > 0) this.#compareSum();
    return true;
  }

  /** The WAL's header names the generation of its first frame (wal.c, `walFrames`: whoever writes it may draw salts). */
  #begin(): void {
    let read;
    try {
      read = readAt(this.#files.wal, bytes32, WAL_HEADER_BYTES, 0);
    } catch (error) {
      throw fileError(error, this.#files.walPath, "read");
    }
    const header = read === WAL_HEADER_BYTES ? parseWalHeader(words8) : undefined;
    if (header === undefined) throw this.#fail("SLU-2007", `${this.#files.walPath} has no valid header`);
    if (!this.header.sameGeneration(header) || header.bigEndian !== this.header.bigEndian) {
      throw this.#fail("SLU-2007", `the WAL and its index are of different generations`);
    }
    if (header.pageSize !== this.pageSize) {
      throw this.#fail("SLU-2007", `page size is ${header.pageSize}, was ${this.pageSize}`);
    }
    this.#salt1 = header.salt1;
    this.#salt2 = header.salt2;
    this.#scanner.begin(header.salt1, header.salt2, header.bigEndian, header.sum1, header.sum2);
  }

  #compareSum(): void {
    const { frameSum1, frameSum2, mxFrame } = this.header;
    if (this.#scanner.isUnsummed) {
      // The next writer continues from what the wal-index says.
      this.#scanner.sum.set(frameSum1, frameSum2);
      this.#sum1 = frameSum1;
      this.#sum2 = frameSum2;
    } else if (this.#sum1 !== frameSum1 || this.#sum2 !== frameSum2) {
      throw this.#fail("SLU-2007", `the wal-index has another checksum for frame ${mxFrame}`);
    }
  }

  #accept(bytes: Uint8Array, words: Int32Array, at: number): void {
    const scanner = this.#scanner;
    if (!scanner.next(words, at / 4)) {
      throw this.#fail("SLU-2007", `frame ${this.#scanned + 1} is not what the WAL's checksums say`);
    }
    this.#scanned++;
    this.#frames.push(scanner.page);
    this.tap?.frame(scanner.page, bytes, at + FRAME_HEADER_BYTES);
    if (scanner.isUnsummed && this.#unsummed === 0) this.#unsummed = this.#scanned;
    if (scanner.commitSize === 0) return;
    const first = this.#frame + 1;
    const before = this.#size;
    this.#frame = this.#scanned;
    this.#size = scanner.commitSize;
    this.#sum1 = scanner.sum.s1;
    this.#sum2 = scanner.sum.s2;
    this.tap?.commit(first, this.#frame, before, this.#size);
    this.#sink.commit(this.#frames, first, this.#frame, before, this.#size);
  }

  /** Sluice has restarted the WAL itself, with every frame captured and backfilled (invariant 3). */
  restarted(): void {
    if (this.#frame !== this.header.mxFrame || this.#scanned !== this.#frame) {
      throw new SluiceError("SLU-2000", `${this.#files.path}: the WAL was restarted with frames not captured`);
    }
    this.#frames.clear();
    this.#frame = 0;
    this.#scanned = 0;
    this.#unsummed = 0;
    this.#salt1 = this.#salt2 = this.#sum1 = this.#sum2 = 0;
    this.tap?.restarted();
  }

  /** Stops capture for good: whatever is read from now on is not the history that was captured. */
  #fail(code: "SLU-2006" | "SLU-2007", message: string): SluiceError {
    this.#lost = new SluiceError(code, `${this.#files.path}: ${message}`);
    return this.#lost;
  }

  /** The files were replaced: every later call throws `error`. */
  stop(error: SluiceError): void {
    this.#lost ??= error;
  }
}

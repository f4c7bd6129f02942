import { SluiceError } from "../errors/error.ts";
import { lockPage } from "../ltx/header.ts";
import { PageSum } from "../ltx/page-sum.ts";
import { formatPosition } from "../ltx/position.ts";
import type { Followed } from "./followed.ts";
import type { HeldLocks } from "./held-locks.ts";
import type { LiveWal } from "./live-wal.ts";
import type { ChangeHead, IncomingChange, PageChunk } from "./replication.ts";
import { adopt, checksumAfter } from "./seal.ts";
import type { WalWriter } from "./wal-writer.ts";

export interface ChangeParts {
  readonly head: ChangeHead;
  readonly wal: LiveWal;
  readonly locks: HeldLocks;
  readonly followed: Followed;
  readonly writer: WalWriter;
  /** Runs when the checksum is right and nothing is shown yet, with the pages that will change. */
  readonly beforePublish?: (pages: Uint32Array) => Promise<void>;
  /** Runs when the change is shown and captured, before the next may begin. */
  readonly afterPublish?: () => Promise<void>;
}

/**
 * A change on its way into a replica's WAL (protocol section 5).
 *
 *     writing ── pages: frames past mxFrame, which nobody reads; sums are computed on the way
 *       ├─ commit ─► checked ─► shown (journal, wal-index header) ─► captured ─► done
 *       └─ abort, or a wrong checksum, or a failing disk ─► done, and the next change writes over the frames
 */
export class WalChange implements IncomingChange {
  readonly #parts: ChangeParts;
  readonly #sum: PageSum;
  readonly #pages: Uint32Array;
  readonly #sums: Int32Array;
  readonly #lock: number;
  #count = 0;
  #done = false;

  /** Holds the WAL's end: made after `HeldLocks.beginChange`, with everything captured. */
  constructor(parts: ChangeParts) {
    this.#parts = parts;
    const { head, wal } = parts;
    this.#sum = new PageSum(wal.pageSize);
    this.#lock = lockPage(wal.pageSize);
    if (head.pages < 1 || head.pages > head.pageCount) {
      throw this.#wrong(`a change of ${head.pages} pages in a database of ${head.pageCount}`);
    }
    this.#pages = new Uint32Array(head.pages);
    this.#sums = new Int32Array(2 * head.pages);
    parts.writer.begin(wal.capture.header, head.pages, head.pageCount);
  }

  pages({ numbers, content }: PageChunk): void {
    if (this.#done) throw new SluiceError("SLU-2000", "pages for a change that is over");
    const { head, wal, writer } = this.#parts;
    const { pageSize } = wal;
    if (content.length !== numbers.length * pageSize || this.#count + numbers.length > head.pages) {
      throw this.#wrong(`${numbers.length} pages in ${content.length} bytes after ${this.#count} of ${head.pages}`);
    }
    for (let i = 0; i < numbers.length; i++) {
      const page = numbers[i]!;
      if (page < 1 || page > head.pageCount || page === this.#lock) throw this.#wrong(`page ${page}`);
      this.#sum.of(page, content, i * pageSize, (i + 1) * pageSize);
      this.#pages[this.#count] = page;
      this.#sums[2 * this.#count] = this.#sum.lo;
      this.#sums[2 * this.#count + 1] = this.#sum.hi;
      this.#count++;
    }
    writer.append(numbers, content);
  }

  async commit(): Promise<void> {
    if (this.#done) throw new SluiceError("SLU-2000", "commits a change that is over");
    const { head, wal, followed, writer } = this.#parts;
    const { position, pageCount, checksum } = head;
    try {
      const size = pageCount;
      const sealed = { pages: this.#pages, sums: this.#sums, size };
      const found = checksumAfter(followed.sums, sealed.pages, sealed.sums, size);
      if (this.#count !== head.pages || found !== checksum) {
        throw this.#wrong(
          `${this.#count} of ${head.pages} pages, checksum ${found.toString(16)}, not ${checksum.toString(16)}`,
        );
      }
      await this.#parts.beforePublish?.(this.#pages);
      followed.journal.append({ position, checksum, pageCount });
      followed.expect(head);
      try {
        writer.publish();
      } catch (error) {
        followed.journal.takeBack();
        throw error;
      }
      adopt(followed.sums, sealed);
      await wal.captureInTurns();
      await this.#parts.afterPublish?.();
    } finally {
      this.abort();
    }
  }

  abort(): void {
    if (this.#done) return;
    this.#done = true;
    this.#parts.writer.abort();
    this.#parts.locks.endChange();
  }

  #wrong(what: string): SluiceError {
    const { head, wal } = this.#parts;
    return new SluiceError("SLU-2019", `${wal.files.path}: the change to ${formatPosition(head.position)}: ${what}`);
  }
}

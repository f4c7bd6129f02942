import { closeSync, fsyncSync, ftruncateSync, mkdirSync, openSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { stateDirOf } from "../../database/database.ts";
import { syncDirectory } from "../../database/directories.ts";
import { fileError } from "../../database/files.ts";
import { writeAt } from "../../database/io.ts";
import { PageSums } from "../../database/page-sums.ts";
import type { ChangeHead, IncomingChange, PageChunk, RecordName } from "../../database/replication.ts";
import { markSeeded } from "../../database/seed.ts";
import { seedReplica } from "../../database/seed-replica.ts";
import { SluiceError } from "../../errors/error.ts";
import { PageSum } from "../../ltx/page-sum.ts";
import { newNodeId } from "../restore-missing.ts";
import type { ResyncTarget } from "./incoming-resync.ts";

/**
 * A database that is copied from the primary to where there is none: a comparison of nothing with everything. Pages go
 * to a file of another name; when all are there and the checksum is right it is synced, gets its state, and its name.
 */
export class SeedFile implements ResyncTarget {
  readonly pageSize: number;
  readonly pageCount = 0;
  readonly sums = new Int32Array(0);
  readonly #path: string;
  readonly #logId: string;

  constructor(file: string, pageSize: number, logId: string) {
    this.#path = file;
    this.pageSize = pageSize;
    this.#logId = logId;
  }

  async resync(head: ChangeHead, record: RecordName): Promise<IncomingChange> {
    return new SeedChange(this.#path, this.pageSize, this.#logId, head, record);
  }
}

/** All pages of a new file. */
class SeedChange implements IncomingChange {
  readonly #path: string;
  readonly #temporary: string;
  readonly #pageSize: number;
  readonly #logId: string;
  readonly #head: ChangeHead;
  readonly #record: RecordName;
  readonly #sums = new PageSums();
  readonly #sum: PageSum;
  #fd: number | undefined;
  #count = 0;

  constructor(file: string, pageSize: number, logId: string, head: ChangeHead, record: RecordName) {
    this.#path = file;
    this.#temporary = `${file}.seeding`;
    this.#pageSize = pageSize;
    this.#logId = logId;
    this.#head = head;
    this.#record = record;
    this.#sum = new PageSum(pageSize);
    this.#sums.resize(head.pageCount);
    try {
      mkdirSync(path.dirname(file), { recursive: true });
      // As a restored file: applications may run as another user.
      // Of a copy that was killed, or a link that somebody has put there.
      rmSync(this.#temporary, { force: true });
      this.#fd = openSync(this.#temporary, "wx", 0o644);
    } catch (error) {
      throw fileError(error, this.#temporary, "create");
    }
  }

  pages({ numbers, content }: PageChunk): void {
    const fd = this.#fd;
    if (fd === undefined) throw new SluiceError("SLU-2000", `${this.#path}: pages for a copy that is over`);
    const size = this.#pageSize;
    try {
      for (let i = 0; i < numbers.length;) {
        // Pages that lie side by side are one write.
        let end = i + 1;
        while (end < numbers.length && numbers[end] === 1 + numbers[end - 1]!) end++;
        writeAt(fd, content, i * size, (end - i) * size, (numbers[i]! - 1) * size);
        i = end;
      }
    } catch (error) {
      throw fileError(error, this.#temporary, "write");
    }
    for (let i = 0; i < numbers.length; i++) {
      const { lo, hi } = this.#sum.of(numbers[i]!, content, i * size, (i + 1) * size);
      this.#sums.set(numbers[i]!, lo, hi);
    }
    this.#count += numbers.length;
  }

  async commit(): Promise<void> {
    const { position, checksum, pageCount } = this.#head;
    const fd = this.#fd;
    if (fd === undefined) throw new SluiceError("SLU-2000", `${this.#path}: commits a copy that is over`);
    if (this.#sums.checksum !== checksum) {
      throw new SluiceError("SLU-2019", `${this.#path}: the copy of ${this.#count} pages has another checksum`);
    }
    const stateDir = stateDirOf(this.#path);
    try {
      ftruncateSync(fd, pageCount * this.#pageSize);
      fsyncSync(fd);
    } catch (error) {
      throw fileError(error, this.#temporary, "sync");
    }
    await seedReplica(stateDir, {
      logId: this.#logId,
      nodeId: newNodeId(),
      pageSize: this.#pageSize,
      record: this.#record,
      position,
      checksum,
      pageCount,
      sums: this.#sums.words,
    });
    try {
      // What an older file of this name has left behind would be played into this one.
      for (const suffix of ["-wal", "-shm", "-journal"]) rmSync(this.#path + suffix, { force: true });
      syncDirectory(path.dirname(this.#path));
      renameSync(this.#temporary, this.#path);
      syncDirectory(path.dirname(this.#path));
    } catch (error) {
      throw fileError(error, this.#path, "create");
    }
    await markSeeded(stateDir, this.#path);
    this.#close();
  }

  abort(): void {
    if (this.#fd === undefined) return;
    this.#close();
    rmSync(this.#temporary, { force: true });
  }

  #close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

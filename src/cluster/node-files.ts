import { close, fstatSync, stat, write } from "node:fs";
import { promisify } from "node:util";
import { fileError } from "../database/files.ts";
import { formatPosition, type Position } from "../ltx/position.ts";
import { type PrimaryFiles, replaceFile } from "./primary-files.ts";

const closeAsync = promisify(close);
const statAsync = promisify(stat);
const writeAsync = promisify(write);

/** LiteFS's helpers look every 30 ms; a commit of every 10 ms is soon enough. */
const EVERY_MS = 10;
/** How long a failing disk is left alone, and how often it's looked whether the file is still there. */
const LOOK_AGAIN_MS = 1000;
/** Two numbers of 16 hex digits, `/` and a newline (LiteFS, `PosFileSize`). */
const POSITION_BYTES = 34;

export interface NodeFilesOptions {
  /** Shared by all databases of the node. */
  readonly primaries: PrimaryFiles;
  /** Told of an error of the file system once until it's over: SLU-2006 to SLU-2010. Must not throw. */
  readonly onProblem: (error: Error) => void;
  /** The least time between two writes of the position. */
  readonly everyMs?: number;
}

/**
 * The files beside a database that applications made for LiteFS read: `.primary` and `NAME-pos`. Nothing depends on
 * them here: what goes wrong with them is told and tried again, and stops nothing.
 *
 * The position is rewritten in place by one write of 34 bytes in another thread, at most one at a time and each
 * `everyMs`; what comes meanwhile waits as the one newest value. The file comes into being whole, by a rename, and keeps its
 * length: a reader gets 34 bytes, also through a descriptor that it has had open for long. It outlives this process.
 *
 *     idle ─ position ─► writing ─► resting (everyMs) ─► idle, or writing what is new
 *                           └ error ─► resting (LOOK_AGAIN_MS) ─► …
 */
export class NodeFiles {
  readonly #file: string;
  readonly #path: string;
  readonly #options: NodeFilesOptions;
  readonly #everyMs: number;
  readonly #bytes = Buffer.alloc(POSITION_BYTES);
  #position: Position | undefined;
  #checksum = 0n;
  /** There is something that isn't written. */
  #isNew = false;
  #fd: number | undefined;
  #ino = 0;
  #lookedMs = 0;
  #working: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #hasFailed = false;
  #hasPrimaryFailed = false;
  #isClosed = false;

  /** `file`: of the database. */
  constructor(file: string, options: NodeFilesOptions) {
    this.#file = file;
    this.#path = `${file}-pos`;
    this.#options = options;
    this.#everyMs = options.everyMs ?? EVERY_MS;
  }

  /** The database follows the primary called `name`; undefined: it's the primary's, or follows nobody. */
  primary(name: string | undefined): void {
    try {
      this.#options.primaries.set(this.#file, name);
      this.#hasPrimaryFailed = false;
    } catch (error) {
      if (!this.#hasPrimaryFailed) this.#options.onProblem(fileError(error, `.primary beside ${this.#file}`, "write"));
      this.#hasPrimaryFailed = true;
    }
  }

  /** The database is at this position now, with this checksum. Returns at once. */
  position(position: Position, checksum: bigint): void {
    if (position === this.#position && checksum === this.#checksum) return;
    this.#position = position;
    this.#checksum = checksum;
    this.#isNew = true;
    if (this.#timer === undefined && !this.#isClosed) this.#start();
  }

  /** Ends it: `.primary` goes, the position is written once more and stays. Never rejects. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.primary(undefined);
    await this.#working;
    if (this.#isNew) await this.#write();
    await this.#drop();
  }

  #start(): void {
    this.#working ??= this.#writeAndRest();
  }

  async #writeAndRest(): Promise<void> {
    const restMs = await this.#write();
    this.#working = undefined;
    if (this.#isClosed) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      if (this.#isNew) this.#start();
    }, restMs);
    this.#timer.unref();
  }

  /** Resolves to how long to rest then. */
  async #write(): Promise<number> {
    this.#isNew = false;
    this.#bytes.write(`${formatPosition(this.#position!)}/${formatPosition(this.#checksum)}\n`, "latin1");
    try {
      if (this.#fd !== undefined && Date.now() - this.#lookedMs >= LOOK_AGAIN_MS) await this.#look();
      if (this.#fd === undefined) this.#create();
      else await writeAsync(this.#fd, this.#bytes, 0, POSITION_BYTES, 0);
      this.#hasFailed = false;
      return this.#everyMs;
    } catch (error) {
      this.#isNew = true;
      if (!this.#hasFailed) this.#options.onProblem(fileError(error, this.#path, "write"));
      this.#hasFailed = true;
      await this.#drop();
      return LOOK_AGAIN_MS;
    }
  }

  #create(): void {
    this.#fd = replaceFile(this.#path, this.#bytes.toString("latin1"), this.#file);
    this.#ino = fstatSync(this.#fd).ino;
    this.#lookedMs = Date.now();
  }

  /** Somebody may have removed the file, or put another one in its place. */
  async #look(): Promise<void> {
    this.#lookedMs = Date.now();
    const found = await statAsync(this.#path).catch(() => undefined);
    if (found?.ino !== this.#ino || found.size !== POSITION_BYTES) await this.#drop();
  }

  async #drop(): Promise<void> {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) await closeAsync(fd).catch(() => undefined);
  }
}

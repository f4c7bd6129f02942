import { type BigIntStats, closeSync, fstatSync, futimesSync, openSync, statSync } from "node:fs";
import { SluiceError, systemErrorCode, type SluiceErrorOptions } from "../errors/error.ts";

/** Identifies a file with its content, for as long as nobody sets clocks back; plain strings, to be persisted. */
export interface FileMark {
  readonly dev: string;
  readonly ino: string;
  readonly sizeBytes: number;
  readonly mtimeNs: string;
}

interface Identity {
  readonly dev: number;
  readonly ino: number;
}

/**
 * The descriptors of one database: the file, its WAL and its wal-index, opened once and kept for the life of the
 * database (protocol section 2), with what tells whether the paths still lead to them.
 */
export class DatabaseFiles {
  readonly path: string;
  readonly walPath: string;
  readonly shmPath: string;
  readonly db: number;
  readonly wal: number;
  readonly shm: number;
  readonly #paths: readonly string[];
  readonly #identities: readonly Identity[];
  #next = 0;
  #open = true;

  /**
   * Opens all three. Throws SLU-2006 when a path leads elsewhere by then, SLU-2008 to SLU-2010 for system errors.
   * While a SQLite connection of this process is open on the database: close that first, then these; closing any
   * descriptor of a file drops the process's POSIX locks on it (fcntl(2)).
   */
  constructor(path: string) {
    this.path = path;
    this.walPath = `${path}-wal`;
    this.shmPath = `${path}-shm`;
    this.#paths = [this.path, this.walPath, this.shmPath];
    const opened: number[] = [];
    try {
      for (const p of this.#paths) opened.push(openSync(p, "r+"));
    } catch (error) {
      for (const fd of opened) closeSync(fd);
      throw fileError(error, path, "open");
    }
    [this.db, this.wal, this.shm] = opened as [number, number, number];
    this.#identities = opened.map((fd) => {
      const { dev, ino } = fstatSync(fd);
      return { dev, ino };
    });
  }

  /** What of the three is not what the path leads to any more, for a message; undefined when all is as it was. */
  difference(): string | undefined {
    return this.#differenceOf(0) ?? this.#differenceOf(1) ?? this.#differenceOf(2);
  }

  /** The same for one of them, the next at each call: an idle database costs one system call. */
  nextDifference(): string | undefined {
    this.#next = (this.#next + 1) % 3;
    return this.#differenceOf(this.#next);
  }

  #differenceOf(i: number): string | undefined {
    const path = this.#paths[i]!;
    const then = this.#identities[i]!;
    const now = statSync(path, { throwIfNoEntry: false });
    if (now === undefined) return `${path} is gone`;
    if (now.ino !== then.ino || now.dev !== then.dev) return `${path} is another file`;
    if (i === 0 && now.size === 0) return `${path} was truncated`;
    return undefined;
  }

  /**
   * What tells the database file from any other, and from itself after a change. Its time of change is set back a
   * little first: a write in the same tick of the kernel's clock would leave it as it is.
   */
  markNow(): FileMark {
    const { atime, mtime } = fstatSync(this.db);
    try {
      futimesSync(this.db, atime, new Date(Math.min(mtime.getTime(), Date.now()) - 20));
    } catch (error) {
      // Only the owner may set times; the mark is a little weaker then.
      if (systemErrorCode(error) !== "EPERM") throw error;
    }
    return markOf(fstatSync(this.db, { bigint: true }));
  }

  /** The same, only looked at. */
  get mark(): FileMark {
    return markOf(fstatSync(this.db, { bigint: true }));
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    for (const fd of [this.shm, this.wal, this.db]) closeSync(fd);
  }
}

/** The mark of the file at `path`, or undefined when there is none. */
export function fileMark(path: string): FileMark | undefined {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat === undefined ? undefined : markOf(stat);
}

function markOf(stat: BigIntStats): FileMark {
  const { dev, ino, size, mtimeNs } = stat;
  return {
    dev: String(dev),
    ino: String(ino),
    sizeBytes: Number(size),
    mtimeNs: String(mtimeNs),
  };
}

export function isSameMark(a: FileMark, b: FileMark): boolean {
  return a.dev === b.dev && a.ino === b.ino && a.sizeBytes === b.sizeBytes && a.mtimeNs === b.mtimeNs;
}

/** A system error as one of the catalogue: full disk, no permission, or input/output. Passes SluiceErrors through. */
export function fileError(error: unknown, path: string, what: string): Error {
  if (error instanceof SluiceError) return error;
  const system = systemErrorCode(error);
  if (system === undefined) return error instanceof Error ? error : new Error(String(error));
  const options: SluiceErrorOptions = { cause: error };
  const message = `${path}: ${what}: ${(error as Error).message}`;
  if (system === "ENOSPC" || system === "EDQUOT" || system === "EFBIG") {
    return new SluiceError("SLU-2008", message, options);
  }
  if (system === "EACCES" || system === "EPERM" || system === "EROFS") {
    return new SluiceError("SLU-2009", message, options);
  }
  if (system === "ENOENT") return new SluiceError("SLU-2006", message, options);
  return new SluiceError("SLU-2010", message, options);
}

import type { ObjectInfo, ObjectStore } from "../store/store.ts";
import { formatTxid, SNAPSHOT_LEVEL, type FileName, type LogLayout } from "./layout.ts";

/** One LTX file of a log, as a listing of the store shows it. */
export interface LogFile extends FileName {
  readonly key: string;
  readonly sizeBytes: number;
  /** When the store says it was written, ms since 1970. */
  readonly modifiedMs: number;
}

export interface ListLogOptions {
  /** Level 0 only from this slot on. Default: everything. */
  readonly fromTxid?: number;
  readonly signal?: AbortSignal;
}

/**
 * All LTX files of a log: level 0 first, then 1 to 9, each in order of TXIDs; objects with other names are skipped.
 * Upwards, because a file is on the higher level before it's deleted on the lower one: what moves while the listing
 * is made is seen twice, never missed. Rejects as the store's `list` does.
 */
export async function listLog(store: ObjectStore, layout: LogLayout, options: ListLogOptions = {}): Promise<LogFile[]> {
  const { fromTxid, signal } = options;
  const files: LogFile[] = [];
  const startAfter = fromTxid === undefined ? undefined : layout.levelPrefix(0) + formatTxid(fromTxid);
  const found = store.list(layout.filesPrefix, {
    ...(startAfter !== undefined && { startAfter }),
    ...(signal !== undefined && { signal }),
  });
  for await (const object of found) {
    const file = logFile(layout, object);
    if (file !== undefined) files.push(file);
  }
  return files;
}

/** The files of one level, in order of TXIDs. */
export async function listLevel(
  store: ObjectStore,
  layout: LogLayout,
  level: number,
  signal?: AbortSignal,
): Promise<LogFile[]> {
  const files: LogFile[] = [];
  for await (const object of store.list(layout.levelPrefix(level), signal === undefined ? {} : { signal })) {
    const file = logFile(layout, object);
    if (file !== undefined) files.push(file);
  }
  return files;
}

/** The LTX file that an object is, or undefined when its name is not one's. */
export function logFile(layout: LogLayout, object: ObjectInfo): LogFile | undefined {
  const name = layout.parse(object.key);
  return name && { ...name, key: object.key, sizeBytes: object.sizeBytes, modifiedMs: object.modifiedMs };
}

/**
 * What a writer knows of its log: one listing after the takeover, kept true by its own writes and deletions, so that
 * nothing has to be listed again while it runs.
 */
export class LogListing {
  /** By level, each in order of `maxTxid`, then `minTxid`. */
  readonly #levels: LogFile[][] = Array.from({ length: SNAPSHOT_LEVEL + 1 }, () => []);

  constructor(files: Iterable<LogFile> = []) {
    for (const file of files) this.#levels[file.level]!.push(file);
    for (const level of this.#levels) level.sort(byEnd);
  }

  /** Files of a level in order of their ends. */
  level(level: number): readonly LogFile[] {
    return this.#levels[level]!;
  }

  get files(): LogFile[] {
    return this.#levels.flat();
  }

  /** End of the newest file of a level; 0 when the level is empty. */
  maxTxid(level: number): number {
    return this.#levels[level]!.at(-1)?.maxTxid ?? 0;
  }

  /** The last slot that any file reaches. */
  get head(): number {
    let head = 0;
    for (let level = 0; level <= SNAPSHOT_LEVEL; level++) head = Math.max(head, this.maxTxid(level));
    return head;
  }

  /** Adds a file, or replaces what is known of the object with its key. */
  add(file: LogFile): void {
    const level = this.#levels[file.level]!;
    let at = level.length;
    while (at > 0 && byEnd(level[at - 1]!, file) > 0) at--;
    const replaces = at > 0 && byEnd(level[at - 1]!, file) === 0;
    level.splice(replaces ? at - 1 : at, replaces ? 1 : 0, file);
  }

  remove(file: LogFile): void {
    const level = this.#levels[file.level]!;
    const at = level.findIndex((other) => other.key === file.key);
    if (at >= 0) level.splice(at, 1);
  }

  /** A file on a level above `level` that covers all of `minTxid` … `maxTxid`, oldest by the store's clock. */
  cover(minTxid: number, maxTxid: number, level: number): LogFile | undefined {
    let oldest: LogFile | undefined;
    for (let above = level + 1; above <= SNAPSHOT_LEVEL; above++) {
      const files = this.#levels[above]!;
      for (let i = files.length - 1; i >= 0 && files[i]!.maxTxid >= maxTxid; i--) {
        const file = files[i]!;
        if (file.minTxid <= minTxid && (oldest === undefined || file.modifiedMs < oldest.modifiedMs)) oldest = file;
      }
    }
    return oldest;
  }

  /** The first slot up to the head that no file covers, or undefined when there's none. */
  firstGap(): number | undefined {
    const all = this.#levels.flat().sort((a, b) => a.minTxid - b.minTxid);
    let covered = 0;
    for (const file of all) {
      if (file.minTxid > covered + 1) return covered + 1;
      covered = Math.max(covered, file.maxTxid);
    }
    return undefined;
  }
}

function byEnd(a: LogFile, b: LogFile): number {
  return a.maxTxid - b.maxTxid || a.minTxid - b.minTxid;
}

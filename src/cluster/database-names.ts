import path from "node:path";

/** What a directory entry of the configuration says about its databases. */
export interface NamePattern {
  /** A glob for the file's base name. */
  readonly pattern: string;
  readonly recursive: boolean;
}

/** A file's name has at most 255 bytes on every usual file system, and `.NAME-sluice` stands beside the database. */
const NAME_BYTES_MAX = 255 - ".-sluice".length;
/** What SQLite and Sluice put beside a database `NAME`. */
const BESIDE = /-(?:wal|shm|journal|pos)$|\.seeding$/;

/** Whether a file of this base name can be a database: not a hidden one, nor what stands beside one. */
export function isDatabaseName(name: string, { pattern }: Pick<NamePattern, "pattern">): boolean {
  return !name.startsWith(".") && !BESIDE.test(name) && path.matchesGlob(name, pattern);
}

/**
 * Whether a database of a directory can have this path relative to it. Buckets and other nodes say such paths, and what
 * a look at the directory would never find is not believed: nothing outside, hidden, or said in two ways.
 */
export function isDatabasePath(relative: string, entry: NamePattern): boolean {
  const parts = relative.split("/");
  if (!entry.recursive && parts.length > 1) return false;
  const isSound = (part: string): boolean =>
    part !== "" && !part.startsWith(".") && !part.includes("\0") && Buffer.byteLength(part) <= NAME_BYTES_MAX;
  return parts.every(isSound) && isDatabaseName(parts.at(-1)!, entry);
}

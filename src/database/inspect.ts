import { closeSync, openSync, statSync } from "node:fs";
import { SluiceError } from "../errors/error.ts";
import { fileError } from "./files.ts";
import { readAt } from "./io.ts";

/** The smallest page SQLite has: a shorter file that begins as a database does is one that is being written. */
const SMALLEST_PAGE = 512;
/** The first 16 bytes of a database that isn't encrypted (file format, section 1.3). */
const MAGIC = Buffer.from("SQLite format 3\0", "latin1");

/**
 * Looks at what a file begins with, before SQLite does: SLU-2005 when there's no database yet, SLU-2016 for what is
 * none, SLU-2017 for what looks encrypted, SLU-2004 for what is no regular file; SLU-2008 to SLU-2010 when it can't be
 * read. Not to be called while a SQLite connection of this process is open on it (fcntl(2): its locks would go).
 */
export function requireDatabase(path: string): void {
  const head = Buffer.alloc(SMALLEST_PAGE);
  let size: number;
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat !== undefined && !stat.isFile()) throw new SluiceError("SLU-2004", `${path} is not a regular file`);
    size = stat?.size ?? 0;
    if (size === 0) throw new SluiceError("SLU-2005", `${path}: there is no database yet`);
    const fd = openSync(path, "r");
    try {
      readAt(fd, head, head.length, 0);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw fileError(error, path, "read");
  }
  const known = Math.min(size, MAGIC.length);
  if (head.subarray(0, known).equals(MAGIC.subarray(0, known))) {
    if (size < SMALLEST_PAGE) throw new SluiceError("SLU-2005", `${path}: there is no database yet`);
    return;
  }
  // Page size and reserved bytes of an encrypted database are encrypted, too; its size is still whole pages.
  if (size % SMALLEST_PAGE === 0 && looksRandom(head)) {
    throw new SluiceError("SLU-2017", `${path} looks like an encrypted database`);
  }
  throw new SluiceError("SLU-2016", `${path} is not a SQLite database`);
}

/** Of 512 random bytes about 221 values differ; text and machine code have far fewer. */
function looksRandom(bytes: Uint8Array): boolean {
  return new Set(bytes).size > 180;
}

import { closeSync, fchmodSync, fchownSync, openSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";

/** The file that says who the primary is, as LiteFS has it in its mount. */
const NAME = ".primary";

interface Directory {
  /** Databases in this directory that follow a primary. */
  readonly followers: Set<string>;
  /** What is in the file; undefined while there is none. */
  name: string | undefined;
}

/**
 * The `.primary` files of a node: one in each directory with databases, on replicas only. It holds the primary's name and
 * a newline (LiteFS, "Determining the primary"). Databases in one directory share it: it's there while one of them
 * follows, and says what the last of them said.
 */
export class PrimaryFiles {
  readonly #directories = new Map<string, Directory>();

  /**
   * The database `file` follows the primary `name`; undefined: it follows none. One that a killed process left goes with
   * the first call. Throws what the file system does.
   */
  set(file: string, name: string | undefined): void {
    const dir = path.dirname(file);
    let known = this.#directories.get(dir);
    if (known === undefined) {
      known = { followers: new Set(), name: undefined };
      rmSync(path.join(dir, NAME), { force: true });
      this.#directories.set(dir, known);
    }
    if (name === undefined) {
      known.followers.delete(file);
      if (known.followers.size > 0 || known.name === undefined) return;
      rmSync(path.join(dir, NAME), { force: true });
    } else {
      known.followers.add(file);
      if (name === known.name) return;
      closeSync(replaceFile(path.join(dir, NAME), `${name}\n`, file));
    }
    known.name = name;
  }
}

/**
 * Puts a small file in place, never to be seen empty, with the mode and the owner of the file `like`. Returns its
 * descriptor.
 */
export function replaceFile(file: string, text: string, like: string): number {
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${process.pid}.tmp`);
  rmSync(temporary, { force: true });
  const fd = openSync(temporary, "wx+", 0o644);
  try {
    writeFileSync(fd, text);
    matchOwner(fd, like);
    renameSync(temporary, file);
    return fd;
  } catch (error) {
    closeSync(fd);
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Who can read the database can read what stands beside it. */
function matchOwner(fd: number, like: string): void {
  const stat = statSync(like, { throwIfNoEntry: false });
  if (stat === undefined) return;
  const { uid, gid, mode } = stat;
  if (uid !== process.getuid?.() || gid !== process.getgid?.()) {
    try {
      fchownSync(fd, uid, gid);
    } catch (error) {
      // Only root may; without it the mode has to do.
      if ((error as NodeJS.ErrnoException).code !== "EPERM") throw error;
    }
  }
  fchmodSync(fd, mode & 0o666);
}

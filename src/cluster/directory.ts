import { constants } from "node:fs";
import { open, readdir, stat } from "node:fs/promises";
import path from "node:path";
import { isDatabaseName } from "./database-names.ts";

/** First 16 bytes of every unencrypted SQLite database (file format, section 1.3). */
const MAGIC = Buffer.from("SQLite format 3\0", "latin1");

export interface DirectoryOptions {
  readonly dir: string;
  /** A glob for the file's base name. */
  readonly pattern: string;
  readonly recursive: boolean;
  readonly pollMs?: number;
  /** Told of every database that is new since the last look; a path relative to `dir`. */
  readonly onAppeared: (relativePath: string) => void;
  /** Told of every database that was there at the last look and is not any more. */
  readonly onGone: (relativePath: string) => void;
  /** Told once of every file that matches but holds something else than a database, or can't be read: nothing protects it. */
  readonly onUnusable: (relativePath: string) => void;
  readonly onError: (error: unknown) => void;
}

interface Folder {
  /** The folder's mtime at the last look; any other value means that entries came or went. */
  mtimeMs: number;
  readonly files: Set<string>;
  readonly folders: Set<string>;
  /** Files that match but don't begin with SQLite's magic yet. */
  readonly candidates: Set<string>;
}

/**
 * Looks after the databases of a directory. A file counts as soon as it begins with SQLite's magic: one of 0 bytes is
 * a database that its application has not begun yet. Folders are polled by their mtime, which costs one `stat` each;
 * a file watch would fire for every write to every WAL in the folder.
 */
export class DatabaseDirectory {
  readonly #options: DirectoryOptions;
  #folders = new Map<string, Folder>();
  #known = new Set<string>();
  /** Candidates that `onUnusable` was told of. */
  #unusable = new Set<string>();
  #timer: NodeJS.Timeout | undefined;
  #scanning: Promise<void> = Promise.resolve();
  /** A look that has not begun. */
  #next: Promise<void> | undefined;
  #stopped = false;

  constructor(options: DirectoryOptions) {
    this.#options = options;
  }

  /** Looks once, reports everything found, and goes on looking. Throws when `dir` can't be read. */
  async start(): Promise<void> {
    await this.#scan();
    this.#arm();
  }

  /** Looks now: what was there before the call has been reported when it resolves. Rejects when `dir` can't be read. */
  look(): Promise<void> {
    // All who come before it begins share one.
    this.#next ??= this.#scanning.then(() => {
      this.#next = undefined;
      return this.#scan();
    });
    this.#scanning = this.#next.catch(() => undefined);
    return this.#next;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#scanning;
  }

  #arm(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => {
      this.#scanning = this.#scanning
        .then(() => this.#scan())
        .catch(this.#options.onError)
        .finally(() => this.#arm());
    }, this.#options.pollMs ?? 1000);
    this.#timer.unref();
  }

  async #scan(): Promise<void> {
    const seen = new Map<string, Folder>();
    const unusable = new Set<string>();
    await this.#enter("", seen, unusable);
    if (this.#stopped) return;
    this.#folders = seen;
    for (const file of unusable) if (!this.#unusable.has(file)) this.#options.onUnusable(file);
    this.#unusable = unusable;
    const found = new Set([...seen.values()].flatMap((folder) => [...folder.files]));
    const before = this.#known;
    this.#known = found;
    for (const file of before) if (!found.has(file)) this.#options.onGone(file);
    for (const file of found) if (!before.has(file)) this.#options.onAppeared(file);
  }

  async #enter(relative: string, seen: Map<string, Folder>, unusable: Set<string>): Promise<void> {
    const absolute = path.join(this.#options.dir, relative);
    const folder = await this.#read(relative, absolute).catch((error: NodeJS.ErrnoException) => {
      // A folder below that was removed meanwhile has nothing in it any more; the top one must exist.
      if (relative !== "" && error.code === "ENOENT") return undefined;
      throw error;
    });
    if (!folder) return;
    seen.set(relative, folder);
    for (const candidate of folder.candidates) {
      const content = await contentOf(path.join(this.#options.dir, candidate));
      if (content === "database") {
        folder.candidates.delete(candidate);
        folder.files.add(candidate);
      } else if (content === "unusable") unusable.add(candidate);
    }
    for (const below of folder.folders) await this.#enter(below, seen, unusable);
  }

  async #read(relative: string, absolute: string): Promise<Folder> {
    // Before the entries are read: what changes meanwhile shows as another mtime at the next look.
    const { mtimeMs } = await stat(absolute);
    const last = this.#folders.get(relative);
    // Within the clock's granularity a later change can leave the same mtime.
    if (last?.mtimeMs === mtimeMs && Date.now() - mtimeMs > 2000) return last;
    const now: Folder = { mtimeMs, files: new Set(), folders: new Set(), candidates: new Set() };
    for (const entry of await readdir(absolute, { withFileTypes: true })) {
      const below = path.join(relative, entry.name);
      if (entry.isDirectory()) {
        if (this.#options.recursive && !entry.name.startsWith(".")) now.folders.add(below);
      } else if (isDatabaseName(entry.name, this.#options)) {
        (last?.files.has(below) ? now.files : now.candidates).add(below);
      }
    }
    return now;
  }
}

/** "nothing" is what can still become a database: an empty file, or one whose first page SQLite has not written yet. */
async function contentOf(file: string): Promise<"database" | "unusable" | "nothing"> {
  try {
    // A pipe of that name would make an `open` wait that nobody ends.
    const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      if (!(await handle.stat()).isFile()) return "nothing";
      const head = Buffer.alloc(MAGIC.length);
      const { bytesRead } = await handle.read(head, 0, head.length, 0);
      if (bytesRead === MAGIC.length && head.equals(MAGIC)) return "database";
      return bytesRead < MAGIC.length || head.every((byte) => byte === 0) ? "nothing" : "unusable";
    } finally {
      await handle.close();
    }
  } catch (error) {
    // Gone: it stays a candidate, and the next look tries again.
    const { code } = error as NodeJS.ErrnoException;
    return code === "EACCES" || code === "EPERM" ? "unusable" : "nothing";
  }
}

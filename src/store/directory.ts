import { randomBytes } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { type FileHandle, link, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { isSluiceError, SluiceError, systemErrorCode } from "../errors/error.ts";
import { lockFile } from "./lock-file.ts";
import type {
  Body,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  PutOutcome,
  StoredObject,
} from "./store.ts";

/** Held while an object is compared and replaced; a listing skips it. */
const LOCK_NAME = ".sluice.lock";
/** Names of files that are being written; a listing skips them. */
const TEMPORARY = /^\.sluice-[0-9a-f]{16}\.tmp$/;
/** A temporary file that nobody has touched for this long was left by a writer that was killed. */
const LEFT_OVER_MS = 24 * 60 * 60_000;
const HIGH = /[\uD800-\uFFFF]/;
const COPY_BYTES = 1024 * 1024;
const SMALL_BYTES = 64 * 1024;

/**
 * Objects as files below one directory, which is made when the first is written. An object appears whole: temporary
 * file, fsync, then `link(2)` where it may not exist yet, or `rename(2)`, and fsync of the directory. On a network
 * file system a repeated `link` can say that the name exists though it made it: the log reads the object back then.
 * Costs nothing while nobody calls.
 */
export class DirectoryStore implements ObjectStore {
  readonly url: string;
  readonly layout = "ltx-prefix";
  readonly #root: string;
  /** Directories that were made, or found, and synced into their parents by this process. */
  readonly #made = new Set<string>();

  constructor(root: string) {
    this.#root = path.resolve(root);
    this.url = `file://${this.#root}`;
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncIterable<ObjectInfo> {
    const folder = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    for await (const key of this.#keys(folder, prefix, options.startAfter ?? "")) {
      options.signal?.throwIfAborted();
      const found = await this.#stat(key);
      if (found !== undefined) yield infoOf(key, found);
    }
  }

  async get(key: string, options: GetOptions = {}): Promise<StoredObject> {
    try {
      options.signal?.throwIfAborted();
      // A pipe of that name would make an `open` wait that nobody ends.
      const handle = await open(this.#file(key), constants.O_RDONLY | constants.O_NONBLOCK);
      try {
        const found = await handle.stat();
        if (!found.isFile()) throw new SluiceError("SLU-3104", `${this.url}/${key} is not a file`);
        const { start, end } = bounds(found.size, options.range);
        const etag = etagOf(found);
        // A body that nobody begins to read must hold nothing: what is small is read now, the rest opened again.
        const isSmall = end - start <= SMALL_BYTES;
        const body = isSmall
          ? once(await readWhole(handle, start, end))
          : this.#read(key, etag, start, end, options.signal);
        return { ...infoOf(key, found), etag, body };
      } finally {
        await handle.close();
      }
    } catch (error) {
      throw this.#error(error, key);
    }
  }

  localFile(key: string): string {
    return this.#file(key);
  }

  async put(key: string, body: Body, options: PutOptions = {}): Promise<PutOutcome> {
    const target = this.#file(key);
    const temporary = path.join(path.dirname(target), `.sluice-${randomBytes(8).toString("hex")}.tmp`);
    try {
      await this.#makeDirectory(path.dirname(target));
      const etag = await write(temporary, body, options);
      const outcome = await this.#place(temporary, target, options.condition);
      if (outcome === "refused") return { outcome };
      await syncDirectory(path.dirname(target));
      return { outcome: "written", etag };
    } catch (error) {
      const failed = this.#error(error, key);
      // To a writer, what is missing is a directory or its own source, never the object.
      throw isSluiceError(failed, "SLU-3404") ? new SluiceError("SLU-3104", failed.message, { cause: error }) : failed;
    } finally {
      // What can't be removed now is removed by a later listing.
      await rm(temporary, { force: true }).catch(() => undefined);
    }
  }

  async delete(keys: readonly string[], options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    for (const key of keys) {
      options.signal?.throwIfAborted();
      await rm(this.#file(key), { force: true }).catch((error: unknown) => {
        throw this.#error(error, key);
      });
    }
  }

  async close(): Promise<void> {
    // Every call opens what it needs and closes it.
  }

  #file(key: string): string {
    const parts = key.split("/");
    if (parts.some((part) => part === "" || part === "." || part === ".." || part.includes("\0")))
      throw new SluiceError("SLU-3104", `${this.url}: "${key}" can't be a key here`);
    return path.join(this.#root, ...parts);
  }

  /**
   * Keys in byte order below `folder` (empty, or ending with a slash). A folder sorts as its name and a slash, since
   * that is how its keys go on.
   */
  async *#keys(folder: string, prefix: string, after: string): AsyncIterable<string> {
    let entries;
    try {
      entries = await readdir(path.join(this.#root, folder), { withFileTypes: true });
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === "ENOENT" || code === "ENOTDIR") return;
      throw this.#error(error, folder);
    }
    const names = entries.map((entry) => ({
      key: folder + entry.name + (entry.isDirectory() ? "/" : ""),
      isFolder: entry.isDirectory(),
      name: entry.name,
    }));
    names.sort((a, b) => compareKeys(a.key, b.key));
    for (const { key, isFolder, name } of names) {
      if (name === LOCK_NAME) continue;
      if (TEMPORARY.test(name)) await this.#sweep(key);
      else if (isFolder && mayHold(key, prefix, after)) yield* this.#keys(key, prefix, after);
      else if (!isFolder && key.startsWith(prefix) && isAfter(key, after)) yield key;
    }
  }

  async #sweep(key: string): Promise<void> {
    const found = await this.#stat(key);
    if (found !== undefined && Date.now() - found.mtimeMs > LEFT_OVER_MS)
      await rm(this.#file(key), { force: true }).catch(() => undefined);
  }

  async #stat(key: string): Promise<Stats | undefined> {
    try {
      return await stat(this.#file(key));
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") return undefined;
      throw this.#error(error, key);
    }
  }

  /** Throws SLU-3404 when the object was replaced since it was looked at. */
  async *#read(
    key: string,
    etag: string,
    start: number,
    end: number,
    signal: AbortSignal | undefined,
  ): AsyncIterable<Uint8Array> {
    let handle: FileHandle | undefined;
    try {
      handle = await open(this.#file(key), "r");
      if (etagOf(await handle.stat()) !== etag)
        throw new SluiceError("SLU-3404", `${this.url}/${key} was replaced meanwhile`);
      for (let at = start; at < end;) {
        signal?.throwIfAborted();
        const chunk = Buffer.allocUnsafe(Math.min(COPY_BYTES, end - at));
        const { bytesRead } = await handle.read(chunk, 0, chunk.length, at);
        if (bytesRead === 0) throw new SluiceError("SLU-3104", `${this.url}/${key} ended early`);
        at += bytesRead;
        yield chunk.subarray(0, bytesRead);
      }
    } catch (error) {
      throw this.#error(error, key);
    } finally {
      await handle?.close();
    }
  }

  async #place(temporary: string, target: string, condition: PutOptions["condition"]): Promise<"written" | "refused"> {
    if (condition === "absent") return linkNew(temporary, target);
    if (condition === undefined) {
      await rename(temporary, target);
      return "written";
    }
    // Between the comparison and the rename nobody else may swap.
    const release = await lockFile(path.join(this.#root, LOCK_NAME));
    try {
      const now = await stat(target).catch(() => undefined);
      if (now === undefined || etagOf(now) !== condition.etag) return "refused";
      await rename(temporary, target);
      return "written";
    } finally {
      release();
    }
  }

  /** Makes a directory and its parents, each synced into the one above. */
  async #makeDirectory(dir: string): Promise<void> {
    if (this.#made.has(dir)) {
      if (await stat(dir).catch(() => undefined)) return;
      this.#made.clear();
    }
    // A backup of a database that is not for everybody isn't either; who wants it so makes the root beforehand.
    const firstOfRoot = await mkdir(this.#root, { recursive: true, mode: 0o700 });
    const firstBelow = await mkdir(dir, { recursive: true });
    const first = firstOfRoot ?? firstBelow;
    if (first !== undefined) {
      for (let made = dir; made.length >= first.length; made = path.dirname(made))
        await syncDirectory(path.dirname(made));
    }
    this.#made.add(dir);
  }

  #error(error: unknown, key: string): unknown {
    if (isSluiceError(error)) return error;
    const system = systemErrorCode(error);
    const place = `${this.url}/${key}`;
    const message = `${place}: ${(error as Error).message}`;
    switch (system) {
      case "ENOENT":
      case "ENOTDIR":
        return new SluiceError("SLU-3404", `${place} doesn't exist`, { cause: error });
      case "EACCES":
      case "EPERM":
      case "EROFS":
        return new SluiceError("SLU-3102", message, { cause: error });
      case "ENOSPC":
      case "EDQUOT":
      case "EFBIG":
        return new SluiceError("SLU-3103", message, { cause: error });
      case undefined:
        return error;
      default:
        return new SluiceError("SLU-3104", message, { cause: error });
    }
  }
}

/** Writes and syncs a file; returns its etag, which stays when it's linked or renamed. */
async function write(file: string, body: Body, { timestampMs, signal }: PutOptions): Promise<string> {
  const handle = await open(file, "wx", 0o644);
  try {
    if (body instanceof Uint8Array) await handle.writeFile(body);
    else {
      const chunks = "path" in body ? readThrough(body.path) : body;
      let sizeBytes = 0;
      for await (const chunk of chunks) {
        signal?.throwIfAborted();
        await handle.writeFile(chunk);
        sizeBytes += chunk.length;
      }
      if ("path" in body && sizeBytes !== body.sizeBytes)
        throw new SluiceError("SLU-3104", `${body.path} has ${sizeBytes} bytes instead of ${body.sizeBytes}`);
    }
    signal?.throwIfAborted();
    if (timestampMs !== undefined) await handle.utimes(timestampMs / 1000, timestampMs / 1000);
    await handle.sync();
    return etagOf(await handle.stat());
  } finally {
    await handle.close();
  }
}

/** The bytes of a file, all in one buffer that is used again and again. */
async function* readThrough(file: string): AsyncIterable<Uint8Array> {
  const handle = await open(file, "r");
  try {
    const buffer = Buffer.allocUnsafe(COPY_BYTES);
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await handle.close();
  }
}

async function readWhole(handle: FileHandle, start: number, end: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(end - start);
  const { bytesRead } = await handle.read(bytes, 0, bytes.length, start);
  if (bytesRead === bytes.length) return bytes;
  throw new SluiceError("SLU-3104", `an object ended after ${bytesRead} of ${bytes.length} bytes`);
}

async function* once(bytes: Buffer): AsyncIterable<Uint8Array> {
  if (bytes.length > 0) yield bytes;
}

async function linkNew(temporary: string, target: string): Promise<"written" | "refused"> {
  try {
    await link(temporary, target);
    return "written";
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") return "refused";
    throw error;
  }
}

async function syncDirectory(dir: string): Promise<void> {
  const handle = await open(dir, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** The change time is when the object was put in place; the modification time is the LTX header's. */
function infoOf(key: string, found: Stats): ObjectInfo {
  return { key, sizeBytes: found.size, modifiedMs: found.ctimeMs, statedMs: found.mtimeMs };
}

/** Every write makes another inode; a number that is used again comes with another time. */
function etagOf({ ino, size, mtimeMs }: Stats): string {
  return `${ino.toString(36)}-${size.toString(36)}-${mtimeMs.toString(36)}`;
}

function bounds(size: number, range: GetOptions["range"]): { start: number; end: number } {
  if (range === undefined) return { start: 0, end: size };
  if (range.offset < 0) return { start: Math.max(0, size + range.offset), end: size };
  const end = range.length === undefined ? size : Math.min(size, range.offset + range.length);
  return { start: Math.min(range.offset, end), end };
}

/** Whether keys that begin with `folder` can begin with `prefix` and come after `after`. */
function mayHold(folder: string, prefix: string, after: string): boolean {
  const fits = folder.startsWith(prefix) || prefix.startsWith(folder);
  return fits && (isAfter(folder, after) || after.startsWith(folder));
}

function isAfter(key: string, after: string): boolean {
  return after === "" || compareKeys(key, after) > 0;
}

/** In the order of UTF-8's bytes, which is that of UTF-16's units but for surrogates. */
function compareKeys(a: string, b: string): number {
  if (HIGH.test(a) || HIGH.test(b)) return Buffer.compare(Buffer.from(a), Buffer.from(b));
  return a < b ? -1 : a > b ? 1 : 0;
}

import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  type Stats,
} from "node:fs";
import { link, open, readdir, realpath, rename, stat, statfs, unlink } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { isSluiceError, SluiceError, systemErrorCode } from "../errors/error.ts";
import { SHARED_FIRST, SHARED_SIZE, tryLock } from "../sqlite/locks.ts";
import { runSqlite } from "./integrity.ts";
import { RestoreJournal } from "./restore-journal.ts";

/** What SQLite keeps beside a database, and what must never meet another database file. */
const COMPANIONS = ["-journal", "-wal", "-shm"] as const;

/** Room that must be left on the disk after a restore: journals, logs, the application's first writes. */
const ROOM_LEFT_BYTES = 16 * 1024 * 1024;

const TEMPORARY = /^\.(.+)\.[0-9a-f]{12}\.restoring$/;
const JOURNAL_SUFFIX = "-parts";

export interface TargetOptions {
  /** Replace a file that is there. */
  readonly force?: boolean;
  /** Go on with what an earlier restore to the same target has left, and note what is done (`journal`). */
  readonly resume?: boolean;
  /** The database of which it is a copy: where nothing is replaced, who can't read that can't read this either. */
  readonly like?: string;
}

/** A temporary file, and its descriptor, which holds the lock. */
interface Begun {
  readonly temporaryPath: string;
  readonly fd: number;
}

/**
 * The place that a restore writes to: a temporary file beside the target, which replaces it at the end or goes.
 *
 * At every moment the target is what it was, or the whole new file with nothing of the old one beside it:
 * 1. the temporary file is written, verified and synced;
 * 2. the old database's WAL is merged into it and a hot journal rolled back (by SQLite), so that it is whole in its
 *    one file; somebody who has it open, which would make its WAL stay, is a refusal;
 * 3. the old `-journal`, `-wal` and `-shm` are deleted and the directory synced: the target is still the old database;
 * 4. `rename` (or `link`, which never overwrites, where nothing may be there); the directory is synced.
 *
 * A lock on the temporary file says that its restore is alive. Without it, the next restore to the same target goes on
 * with it where there is a journal of what is in it, and otherwise removes it.
 */
export class RestoreTarget implements Disposable {
  /** The file itself, behind any symbolic link. */
  readonly path: string;
  readonly temporaryPath: string;
  /** Of the temporary file; workers write to it, too. -1 after it was closed. */
  #fd: number;
  readonly #force: boolean;
  readonly #old: Stats | undefined;
  /** Of what is in the temporary file; undefined for who doesn't want to go on with an earlier restore's. */
  readonly journal: RestoreJournal | undefined;
  #done = false;
  #left = false;

  private constructor(path: string, begun: Begun, options: TargetOptions, old: Stats | undefined) {
    this.path = path;
    this.temporaryPath = begun.temporaryPath;
    this.#fd = begun.fd;
    this.#force = options.force ?? false;
    this.#old = old;
    this.journal = options.resume === true ? new RestoreJournal(this.temporaryPath + JOURNAL_SUFFIX) : undefined;
  }

  get fd(): number {
    return this.#fd;
  }

  /**
   * Creates the temporary file for a restore to `path`, and removes those of restores that were killed, or goes on with
   * one of them. Throws SLU-4505 when there is a file at `path` and not `force`, SLU-4511 when the directory can't be written.
   */
  static async create(path: string, options: TargetOptions = {}): Promise<RestoreTarget> {
    const { force = false, resume = false, like } = options;
    const real = await realpath(path).catch(() => resolve(path));
    const old = await stat(real).catch(() => undefined);
    if (old !== undefined) await refuseExisting(real, old, force);
    try {
      // As SQLite creates databases (SQLITE_DEFAULT_FILE_PERMISSIONS), or never wider than the file it will replace.
      const pattern = old ?? (like === undefined ? undefined : await stat(like).catch(() => undefined));
      const mode = pattern === undefined ? 0o644 : pattern.mode & 0o666;
      return new RestoreTarget(real, (await takeAbandoned(real, resume, mode)) ?? begin(real, mode), options, old);
    } catch (error) {
      throw writeError(real, error);
    }
  }

  /** Throws SLU-4506 unless the disk has room for `sizeBytes` in the temporary file, and a little more. */
  async ensureRoom(sizeBytes: number): Promise<void> {
    const { bavail, bsize } = await statfs(dirname(this.path));
    // What an earlier attempt has written there already is taken, but not by others.
    const freeBytes = bavail * bsize + fstatSync(this.#fd).blocks * 512;
    if (freeBytes >= sizeBytes + ROOM_LEFT_BYTES) return;
    throw new SluiceError(
      "SLU-4506",
      `${this.path}: the restored database has ${megabytes(sizeBytes)}, and only ${megabytes(freeBytes)} are free`,
    );
  }

  /** Empties the temporary file. */
  reset(): void {
    this.journal?.clear();
    ftruncateSync(this.#fd, 0);
  }

  /** Leaves the temporary file for a later restore, unless nothing is known of it; how many bytes that then needn't fetch. */
  leave(): number {
    this.#left = this.journal?.isEmpty === false;
    return this.#left ? this.journal!.bytes : 0;
  }

  /** Of the temporary file, in bytes. */
  size(): number {
    return fstatSync(this.#fd).size;
  }

  /** Makes the written file durable. Its descriptor stays open. */
  async sync(): Promise<void> {
    try {
      const handle = await open(this.temporaryPath, "r");
      try {
        await handle.sync();
      } finally {
        await handle.close();
      }
    } catch (error) {
      throw writeError(this.path, error);
    }
  }

  /**
   * Puts the file in place. Throws SLU-4505 when a file has appeared at the target meanwhile, SLU-4516 when the old
   * database is open somewhere, SLU-4511 when the system refuses; the target is then as it was.
   */
  async install(): Promise<void> {
    try {
      this.#keepOwner();
      const now = await stat(this.path).catch(() => undefined);
      if (now !== undefined) await refuseExisting(this.path, now, this.#force);
      const isEmpty = now?.size === 0 && !this.#force;
      const lock = now === undefined || isEmpty ? undefined : await this.#retireOld();
      try {
        await removeCompanions(this.path);
        this.journal?.remove();
        if (isEmpty) await remove(this.path);
        if (this.#force) await rename(this.temporaryPath, this.path);
        else await this.#createOnly();
        this.#done = true;
        await syncDirectory(dirname(this.path));
      } finally {
        if (lock !== undefined) closeSync(lock);
      }
    } catch (error) {
      throw writeError(this.path, error);
    }
    this.#close();
  }

  /** Removes the temporary file, unless it's in place or left for later. */
  async discard(): Promise<void> {
    this.#close();
    if (this.#done || this.#left) return;
    await removeTemporary(this.temporaryPath);
  }

  [Symbol.dispose](): void {
    this.#close();
  }

  #close(): void {
    this.journal?.close();
    if (this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }

  #keepOwner(): void {
    if (this.#old === undefined) return;
    const { uid, gid, mode } = this.#old;
    if (uid !== process.getuid?.() || gid !== process.getgid?.()) fchownSync(this.#fd, uid, gid);
    fchmodSync(this.#fd, mode & 0o7777);
    fsyncSync(this.#fd);
  }

  /** Makes the old database whole in its one file and locks it against readers; the descriptor holds the lock. */
  async #retireOld(): Promise<number> {
    const answer = await runSqlite({ task: "merge", path: this.path });
    const busy = "sqliteCode" in answer && /^SQLITE_(BUSY|LOCKED)/.test(answer.sqliteCode);
    const fd = openSync(this.path, "r+");
    if (!busy && tryLock(fd, "exclusive", SHARED_FIRST, SHARED_SIZE)) {
      // SQLite can't open it (no database, encrypted, damaged): its companions are of no use to anybody then.
      if ("sqliteCode" in answer) return fd;
      // A last close deletes the WAL; one that is still there has somebody else's connection on it.
      if ((await sizeOf(`${this.path}-wal`)) === 0 && (await sizeOf(`${this.path}-journal`)) === 0) return fd;
    }
    closeSync(fd);
    throw new SluiceError("SLU-4516", `${this.path} is open in another process, so it was not replaced`);
  }

  async #createOnly(): Promise<void> {
    try {
      await link(this.temporaryPath, this.path);
    } catch (error) {
      // A file system without hard links; a file that appeared since the check above is overwritten there.
      if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"].includes(systemErrorCode(error) ?? "")) throw error;
      await rename(this.temporaryPath, this.path);
      return;
    }
    await unlink(this.temporaryPath);
  }
}

/** A file of 0 bytes counts as none: SQLite makes one when something looks for a database that isn't there. */
async function refuseExisting(path: string, existing: Stats, force: boolean): Promise<void> {
  if (!existing.isFile()) throw new SluiceError("SLU-4505", `${path} is not a file`, { hint: "Choose another path." });
  const isBegun = existing.size > 0 || (await sizeOf(`${path}-journal`)) > 0 || (await sizeOf(`${path}-wal`)) > 0;
  if (!force && isBegun) throw new SluiceError("SLU-4505", `${path} exists`);
}

function begin(path: string, mode: number): Begun {
  const name = `.${basename(path)}.${randomBytes(6).toString("hex")}.restoring`;
  const temporaryPath = join(dirname(path), name);
  const fd = openSync(temporaryPath, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, mode);
  markAlive(fd);
  return { temporaryPath, fd };
}

/**
 * Removes what restores to `path` left behind that were killed (their locks went with them) or broken off; with `resume`,
 * the largest that has a journal is taken over.
 */
async function takeAbandoned(path: string, resume: boolean, mode: number): Promise<Begun | undefined> {
  const directory = dirname(path);
  const names = await readdir(directory);
  let taken: (Begun & { readonly bytes: number }) | undefined;
  for (const name of names.filter((name) => TEMPORARY.exec(name)?.[1] === basename(path))) {
    const temporaryPath = join(directory, name);
    const fd = openOwn(temporaryPath);
    if (fd === undefined) continue;
    // A journal that is empty says nothing.
    const bytes = resume ? await sizeOf(temporaryPath + JOURNAL_SUFFIX) : 0;
    const isMine = markAlive(fd);
    const isBest = isMine && bytes > (taken?.bytes ?? 0);
    const unwanted = isBest ? taken : isMine ? { temporaryPath, fd } : undefined;
    if (isBest) taken = { temporaryPath, fd, bytes };
    else if (!isMine) closeSync(fd);
    if (unwanted === undefined) continue;
    await removeTemporary(unwanted.temporaryPath);
    closeSync(unwanted.fd);
  }
  const orphans = names.filter((name) => {
    const owner = name.endsWith(JOURNAL_SUFFIX) ? name.slice(0, -JOURNAL_SUFFIX.length) : "";
    return TEMPORARY.exec(owner)?.[1] === basename(path) && !names.includes(owner);
  });
  for (const name of orphans) await remove(join(directory, name));
  if (taken === undefined) return undefined;
  for (const suffix of COMPANIONS) await remove(taken.temporaryPath + suffix);
  fchmodSync(taken.fd, mode);
  return taken;
}

/**
 * Opens what an earlier restore of this user left. In a directory that others can write to, something of that name may be
 * theirs: a link to a file that is to be overwritten, or a pipe. Undefined for those: they are left alone.
 */
function openOwn(path: string): number | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if (["ELOOP", "EMLINK", "ENXIO", "EACCES", "EISDIR", "ENOENT"].includes(systemErrorCode(error) ?? ""))
      return undefined;
    throw error;
  }
  const found = fstatSync(fd);
  if (found.isFile() && found.nlink === 1 && found.uid === process.getuid?.()) return fd;
  closeSync(fd);
  return undefined;
}

async function removeTemporary(path: string): Promise<void> {
  await Promise.all(["", JOURNAL_SUFFIX, ...COMPANIONS].map((suffix) => remove(path + suffix)));
}

/** Locks byte 0, which SQLite doesn't use for locks; false when another restore holds it, or can't be asked. */
function markAlive(fd: number): boolean {
  try {
    return tryLock(fd, "exclusive", 0, 1);
  } catch (error) {
    // Without locks nobody can tell a killed restore's file from a live one's: it stays.
    if (isSluiceError(error)) return false;
    throw error;
  }
}

/** The journal and the WAL first: without them the old file is what SQLite just made it; with them a new one isn't. */
async function removeCompanions(path: string): Promise<void> {
  for (const suffix of COMPANIONS) await remove(path + suffix);
  await syncDirectory(dirname(path));
}

async function remove(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (systemErrorCode(error) !== "ENOENT") throw error;
  });
}

async function sizeOf(path: string): Promise<number> {
  return (await stat(path).catch(() => undefined))?.size ?? 0;
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** What a system error means for a restore; a SluiceError passes as it is. */
export function writeError(path: string, error: unknown): unknown {
  const code = systemErrorCode(error);
  if (isSluiceError(error) || code === undefined) return error;
  if (code === "ENOSPC" || code === "EDQUOT") {
    return new SluiceError("SLU-4506", `${path}: the disk is full (${code})`, { cause: error });
  }
  if (code === "ENOENT") {
    const hint = "Make that directory, or choose another path.";
    return new SluiceError("SLU-4511", `${path}: there is no directory ${dirname(path)}`, { cause: error, hint });
  }
  return new SluiceError("SLU-4511", `${path}: ${(error as Error).message}`, { cause: error });
}

function megabytes(bytes: number): string {
  return `${Math.ceil(bytes / 1e6)} MB`;
}

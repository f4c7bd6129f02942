import { closeSync, openSync } from "node:fs";
import { SHARED_FIRST, SHARED_SIZE, tryLock, unlock, WAL_DMS_LOCK, WAL_WRITE_LOCK } from "../sqlite/locks.ts";

/**
 * Keeps the gate of a database closed while its files are opened anew (protocol section 2), by locks that the next holder
 * can share: WRITE; DMS, or who comes first would empty the wal-index and wait for that very lock (os_unix.c,
 * unixLockSharedMemory); SHARED, or who goes last would delete it (wal.c, sqlite3WalClose).
 */
export class GateBridge implements Disposable {
  readonly #db: number;
  readonly #shm: number;
  #isOpen = true;

  /** Undefined when an application is writing or the files can't be opened: there is nothing to keep then. */
  static over(file: string): GateBridge | undefined {
    const opened: number[] = [];
    try {
      for (const name of [file, `${file}-shm`]) opened.push(openSync(name, "r+"));
      const [db = -1, shm = -1] = opened;
      const bridge = new GateBridge(db, shm);
      if (bridge.again()) return bridge;
    } catch {
      // What is wrong with the files is said by who opens them next.
    }
    for (const fd of opened) closeSync(fd);
    return undefined;
  }

  private constructor(db: number, shm: number) {
    this.#db = db;
    this.#shm = shm;
  }

  /** Closes the gate, if it isn't yet; false when an application is writing. */
  again(): boolean {
    return (
      tryLock(this.#db, "shared", SHARED_FIRST, SHARED_SIZE) &&
      tryLock(this.#shm, "shared", WAL_DMS_LOCK) &&
      tryLock(this.#shm, "shared", WAL_WRITE_LOCK)
    );
  }

  /** Keeps nothing closed; the descriptors stay until it's disposed of. */
  end(): void {
    if (!this.#isOpen) return;
    for (const lock of [WAL_WRITE_LOCK, WAL_DMS_LOCK]) unlock(this.#shm, lock);
    unlock(this.#db, SHARED_FIRST, SHARED_SIZE);
  }

  /** No SQLite connection of this process may be open on the database: it would lose its locks (fcntl(2)). */
  [Symbol.dispose](): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    closeSync(this.#shm);
    closeSync(this.#db);
  }
}

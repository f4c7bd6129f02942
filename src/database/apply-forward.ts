import { closeSync, fsyncSync, ftruncateSync, openSync, statSync } from "node:fs";
import Sqlite from "better-sqlite3";
import { SluiceError } from "../errors/error.ts";
import { SHARED_FIRST, SHARED_SIZE, tryLock, unlock } from "../sqlite/locks.ts";
import { fileError } from "./files.ts";
import { writeAt } from "./io.ts";
import { readLocal } from "./local-batches.ts";

/**
 * Gives a database back the sealed commits that a power loss took from it (protocol section 12, last row): the pages of
 * the local batches `slots` are written over the database file, in order. To be called before the application starts
 * and while Sluice holds no lock on it. Killed in between, it is repeated: the batches stay until it is done.
 *
 * Throws SLU-2003 when somebody has the database open, and SLU-2008 to SLU-2010.
 */
export async function applyForward(file: string, stateDir: string, slots: readonly number[]): Promise<void> {
  mergeWal(file);
  const fd = openSync(file, "r+");
  try {
    if (!tryLock(fd, "exclusive", SHARED_FIRST, SHARED_SIZE)) throw inUse(file);
    let size = 0;
    for (const txid of slots) {
      const header = await readLocal(stateDir, txid, {
        page: (pgno, content) => writeAt(fd, content, 0, content.length, (pgno - 1) * content.length),
      });
      size = header.pageCount * header.pageSize;
    }
    ftruncateSync(fd, size);
    fsyncSync(fd);
    unlock(fd, SHARED_FIRST, SHARED_SIZE);
  } catch (error) {
    throw fileError(error, file, "write");
  } finally {
    closeSync(fd);
  }
}

/** The last close of a database brings its WAL into it and removes it (wal.c, `sqlite3WalClose`). */
function mergeWal(file: string): void {
  const connection = new Sqlite(file, { fileMustExist: true, timeout: 1000 });
  try {
    connection.pragma("wal_checkpoint(TRUNCATE)");
  } finally {
    connection.close();
  }
  if (statSync(`${file}-wal`, { throwIfNoEntry: false }) !== undefined) throw inUse(file);
}

function inUse(file: string): SluiceError {
  return new SluiceError("SLU-2003", `${file} lost commits in a power loss, and somebody has it open`, {
    hint: "Stop what uses the database and start Sluice again: it puts the lost commits back first.",
  });
}

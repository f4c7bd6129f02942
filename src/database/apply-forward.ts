import { closeSync, fsyncSync, ftruncateSync, openSync, renameSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import Sqlite from "better-sqlite3";
import { SluiceError } from "../errors/error.ts";
import { LtxEncoder } from "../ltx/encoder.ts";
import { formatPosition, type Position } from "../ltx/position.ts";
import { recordHeader } from "../ltx/record.ts";
import { SHARED_FIRST, SHARED_SIZE, tryLock, unlock } from "../sqlite/locks.ts";
import { makeDirectory, syncDirectory } from "./directories.ts";
import { fileError } from "./files.ts";
import { writeAt } from "./io.ts";
import { readLocal } from "./local-batches.ts";
import type { PageView } from "./page-view.ts";

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

/** What a quarantined piece of history is called. */
export interface QuarantineName {
  /** The last position that both histories had. */
  readonly common: Position;
  /** The position of the state that is left. */
  readonly own: Position;
  /** The slot that its content was for. */
  readonly txid: number;
  readonly epoch: number;
}

/**
 * Writes pages that leave the database's history to the quarantine (protocol section 9) as an LTX file named by the
 * last position that both had; durable when it resolves. Returns its path.
 */
export async function quarantinePages(
  stateDir: string,
  names: QuarantineName,
  view: PageView,
  pages: Iterable<number>,
): Promise<string> {
  const dir = path.join(stateDir, "quarantine");
  const target = path.join(dir, `${formatPosition(names.common)}-${Date.now()}.ltx`);
  const temporary = `${target}.tmp`;
  let fd: number | undefined;
  try {
    makeDirectory(dir);
    const to = openSync(temporary, "wx", 0o600);
    fd = to;
    let offset = 0;
    const { pageSize, pageCount } = view;
    const { txid } = names;
    const about = { pageSize, pageCount, minTxid: txid, maxTxid: txid, timestampMs: Date.now() };
    const fields = {
      position: names.own,
      checksum: 0n,
      epoch: Math.max(1, names.epoch),
      writer: 1n,
      members: [],
    };
    const encoder = new LtxEncoder(recordHeader(about, fields), (chunk) => {
      writeAt(to, chunk, 0, chunk.length, offset);
      offset += chunk.length;
    });
    const content = Buffer.alloc(pageSize);
    for (const pgno of pages) {
      await view.read(pgno, content);
      encoder.page(pgno, content);
    }
    encoder.finish();
    fsyncSync(to);
    renameSync(temporary, target);
    syncDirectory(dir);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw fileError(error, target, "write");
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
  return target;
}

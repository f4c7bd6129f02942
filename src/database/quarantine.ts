import { closeSync, existsSync, fsyncSync, openSync, readdirSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { LtxEncoder } from "../ltx/encoder.ts";
import { formatPosition, NOTHING, type Position } from "../ltx/position.ts";
import { recordHeader } from "../ltx/record.ts";
import { makeDirectory, syncDirectory } from "./directories.ts";
import { fileError } from "./files.ts";
import { writeAt } from "./io.ts";
import type { PageView } from "./page-view.ts";

/** Where a database's quarantine is: what left its history lies there until somebody removes it. */
export function quarantineDirOf(stateDir: string): string {
  return path.join(stateDir, "quarantine");
}

/** What a quarantined piece of history is called. */
export interface QuarantineName {
  /** The last position that both histories had. */
  readonly common: Position;
  /** The position of the state that is left. */
  readonly own: Position;
  /** The checksum of that state (protocol section 6): shows later whether it was put together again. */
  readonly checksum: bigint;
  /** The slot that its content was for: the state before it is the common one. */
  readonly txid: number;
  readonly epoch: number;
}

/**
 * Writes pages that leave the database's history to the quarantine (protocol section 9) as an LTX file named by the
 * last position that both had and the time; durable when it resolves. `pages` ascend. Returns the file's path. Throws
 * SLU-2008 to SLU-2010.
 */
export async function quarantinePages(
  stateDir: string,
  names: QuarantineName,
  view: PageView,
  pages: Iterable<number>,
): Promise<string> {
  const dir = quarantineDirOf(stateDir);
  let temporary: string | undefined;
  let fd: number | undefined;
  try {
    makeDirectory(dir);
    removeUnfinished(dir);
    temporary = freeName(dir, names.common);
    fd = openSync(`${temporary}.tmp`, "wx", 0o600);
    await writePages(fd, names, view, pages);
    fsyncSync(fd);
    renameSync(`${temporary}.tmp`, temporary);
    syncDirectory(dir);
    return temporary;
  } catch (error) {
    if (temporary !== undefined) rmSync(`${temporary}.tmp`, { force: true });
    throw fileError(error, temporary ?? dir, "write");
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/** What a kill left there half written is in the database still, and is written anew. */
function removeUnfinished(dir: string): void {
  for (const name of readdirSync(dir)) if (name.endsWith(".ltx.tmp")) rmSync(path.join(dir, name), { force: true });
}

/** Two within a millisecond must not have one name. */
function freeName(dir: string, common: Position): string {
  for (let atMs = Date.now(); ; atMs++) {
    const file = path.join(dir, `${formatPosition(common)}-${atMs}.ltx`);
    if (!existsSync(file)) return file;
  }
}

async function writePages(fd: number, names: QuarantineName, view: PageView, pages: Iterable<number>): Promise<void> {
  const { pageSize, pageCount } = view;
  // A file of slot 1 would have to hold all pages; where nothing is common, the file's name says so.
  const txid = names.common === NOTHING ? Math.max(2, names.txid) : names.txid;
  const about = { pageSize, pageCount, minTxid: txid, maxTxid: txid, timestampMs: Date.now() };
  const { own, checksum } = names;
  const fields = { position: own, checksum, epoch: Math.max(1, names.epoch), writer: 1n, members: [] };
  let offset = 0;
  const encoder = new LtxEncoder(recordHeader(about, fields), (chunk) => {
    writeAt(fd, chunk, 0, chunk.length, offset);
    offset += chunk.length;
  });
  const content = Buffer.alloc(pageSize);
  for (const pgno of pages) {
    await view.read(pgno, content);
    encoder.page(pgno, content);
  }
  encoder.finish();
}

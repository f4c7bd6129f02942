import { closeSync, openSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { LtxDecoder, type PageSink } from "../ltx/decoder.ts";
import type { LtxHeader } from "../ltx/header.ts";
import { fileError } from "./files.ts";
import { readAt, SHARED_BUFFER_BYTES } from "./io.ts";
import type { PageSums } from "./page-sums.ts";
import { sealedPath } from "./seal.ts";

const NAME = /^([0-9a-f]{16})-\1\.ltx$/;

/** The slots of which there is a local file, ascending. Temporary files of killed seals are removed on the way. */
export function localSlots(stateDir: string): number[] {
  const dir = path.dirname(sealedPath(stateDir, 1));
  let names: string[];
  try {
    names = readdirSync(dir);
  } catch {
    return [];
  }
  for (const name of names) if (name.endsWith(".tmp")) rmSync(path.join(dir, name), { force: true });
  return names
    .flatMap((name) => (NAME.test(name) ? [Number.parseInt(name.slice(0, 16), 16)] : []))
    .sort((a, b) => a - b);
}

/** Decodes and verifies the local file of a slot; see `readLtx`. */
export function readLocal(stateDir: string, txid: number, sink: PageSink): Promise<LtxHeader> {
  return readLtx(sealedPath(stateDir, txid), sink);
}

/**
 * Decodes and verifies an LTX file on this disk, with turns for others in between. Rejects with SLU-5001 or SLU-5002
 * when it's damaged, SLU-2006 to SLU-2010 when it can't be read.
 */
export async function readLtx(file: string, sink: PageSink): Promise<LtxHeader> {
  let fd: number | undefined;
  try {
    fd = openSync(file, "r");
    const decoder = new LtxDecoder(file, sink);
    const chunk = Buffer.allocUnsafe(SHARED_BUFFER_BYTES / 2);
    for (let at = 0; ; at += chunk.length) {
      const length = readAt(fd, chunk, chunk.length, at);
      decoder.push(chunk.subarray(0, length));
      if (length < chunk.length) return decoder.end();
      await new Promise(setImmediate);
    }
  } catch (error) {
    throw fileError(error, file, "read");
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

/**
 * Brings a table of page sums from the state before a slot to the state after it; after an error it is of no state.
 * Returns the header of the slot.
 */
export async function rollForward(stateDir: string, txid: number, sums: PageSums): Promise<LtxHeader> {
  return readLocal(stateDir, txid, {
    header: ({ pageCount }) => sums.resize(pageCount),
    page: (pgno, _page, sum) => sums.set(pgno, sum.lo, sum.hi),
  });
}

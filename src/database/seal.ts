import { closeSync, fsync, fsyncSync, openSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { LtxEncoder } from "../ltx/encoder.ts";
import { lockPage } from "../ltx/header.ts";
import { sumValue } from "../ltx/page-sum.ts";
import type { Position } from "../ltx/position.ts";
import { recordHeader } from "../ltx/record.ts";
import { FRAME_HEADER_BYTES, frameOffset } from "../sqlite/wal.ts";
import type { FrozenBatch } from "./contract.ts";
import { makeDirectory, syncDirectory } from "./directories.ts";
import { type DatabaseFiles, fileError } from "./files.ts";
import type { FrameList } from "./frame-list.ts";
import { readAt, writeAt } from "./io.ts";
import { type BatchCut, pagesOf } from "./open-batch.ts";
import type { PageSums } from "./page-sums.ts";

/** Who seals, and what the record is to say. */
export interface SealName {
  readonly txid: number;
  readonly position: Position;
  readonly epoch: number;
  readonly writer: bigint;
  readonly timestampMs: number;
  /** Lives that may take over behind it (protocol section 9), up to three; none: every node may. */
  readonly members: readonly number[];
}

export interface SealSource {
  readonly files: DatabaseFiles;
  readonly frames: FrameList;
  readonly pageSize: number;
  readonly sums: PageSums;
}

/** A batch that is durable on this disk, with the sums of its pages, which become the database's when it counts. */
export interface Sealed {
  readonly batch: FrozenBatch;
  readonly pages: Uint32Array;
  /** Two words for each of `pages`. */
  readonly sums: Int32Array;
  /** Pages in the database after it. */
  readonly size: number;
}

/** Other work gets its turn after this long. */
const SLICE_MS = 1;
const syncOf = promisify(fsync);
const page = Buffer.allocUnsafeSlow(65536);

/** Where the local file of a slot is: Litestream's name for it, below the state directory. */
export function sealedPath(stateDir: string, txid: number): string {
  const name = txid.toString(16).padStart(16, "0");
  return path.join(stateDir, "ltx", "0", `${name}-${name}.ltx`);
}

/**
 * Writes a cut of the open batch as the LTX file of a slot: temporary file, fsync, rename, fsync of the directory.
 * Turns of the event loop go to others in between. Throws SLU-2008 to SLU-2010 with nothing left behind; a kill leaves
 * at most a temporary file.
 */
export async function seal(source: SealSource, cut: BatchCut, name: SealName, stateDir: string): Promise<Sealed> {
  const target = sealedPath(stateDir, name.txid);
  const file = new TemporaryFile(target);
  try {
    const work = write(source, cut, name, file);
    let since = performance.now();
    for (;;) {
      const step = work.next();
      if (step.done === true) {
        await syncOf(file.fd);
        file.place();
        const dir = openSync(path.dirname(target), "r");
        await syncOf(dir).finally(() => closeSync(dir));
        return step.value;
      }
      if (performance.now() - since < SLICE_MS) continue;
      await new Promise(setImmediate);
      since = performance.now();
    }
  } catch (error) {
    file.discard();
    throw fileError(error, target, "write");
  }
}

/** The same at once: for the short tail of a WAL, under the WRITE lock. */
export function sealNow(source: SealSource, cut: BatchCut, name: SealName, stateDir: string): Sealed {
  const target = sealedPath(stateDir, name.txid);
  const file = new TemporaryFile(target);
  try {
    const work = write(source, cut, name, file);
    let step = work.next();
    while (step.done !== true) step = work.next();
    fsyncSync(file.fd);
    file.place();
    syncDirectory(path.dirname(target));
    return step.value;
  } catch (error) {
    file.discard();
    throw fileError(error, target, "write");
  }
}

/** Encodes the pages; yields after each. The header's checksum is known only then, so the header is written last. */
function* write(source: SealSource, cut: BatchCut, name: SealName, file: TemporaryFile): Generator<void, Sealed> {
  const { files, frames, pageSize, sums } = source;
  const view = frames.newest(frames.base + 1, Math.max(frames.base, cut.lastFrame), cut.size);
  const pages = pagesOf(cut, view, lockPage(pageSize));
  const newSums = new Int32Array(2 * pages.length);
  const about = {
    pageSize,
    pageCount: cut.size,
    minTxid: name.txid,
    maxTxid: name.txid,
    timestampMs: name.timestampMs,
  };
  const fields = { position: name.position, epoch: name.epoch, writer: name.writer, members: name.members };
  const encoder = new LtxEncoder(recordHeader(about, { ...fields, checksum: 0n }), (chunk) => file.write(chunk));
  let at = 0;
  for (let i = 0; i < pages.length; i++) {
    const pgno = pages[i]!;
    while (at < view.length && view[at]! < pgno) at += 2;
    readPage(files, pageSize, pgno, at < view.length && view[at] === pgno ? view[at + 1]! : 0);
    encoder.page(pgno, page);
    newSums[2 * i] = encoder.sum.lo;
    newSums[2 * i + 1] = encoder.sum.hi;
    yield;
  }
  const checksum = checksumAfter(sums, pages, newSums, cut.size);
  const summary = encoder.finish(recordHeader(about, { ...fields, checksum }));
  file.rewriteStart(summary.header);
  const { txid, epoch, position, timestampMs, members } = name;
  const batch = {
    txid,
    epoch,
    position,
    checksum,
    timestampMs,
    members,
    path: file.target,
    sizeBytes: summary.sizeBytes,
  };
  return { batch, pages, sums: newSums, size: cut.size };
}

/** Fills `page` from a frame, or (`frame` 0) from the database file; what is past its end is zeros. */
function readPage(files: DatabaseFiles, pageSize: number, pgno: number, frame: number): void {
  if (frame === 0) {
    page.fill(0, readAt(files.db, page, pageSize, (pgno - 1) * pageSize), pageSize);
    return;
  }
  const offset = frameOffset(frame, pageSize) + FRAME_HEADER_BYTES;
  if (readAt(files.wal, page, pageSize, offset) === pageSize) return;
  throw Object.assign(new Error(`the WAL ends inside frame ${frame}`), { code: "EIO" });
}

/** The database checksum when `pages` have their new sums and the database has `size` pages. */
export function checksumAfter(sums: PageSums, pages: Uint32Array, newSums: Int32Array, size: number): bigint {
  let { lo, hi } = sums.xor;
  for (let pgno = size + 1; pgno <= sums.count; pgno++) {
    lo ^= sums.lo(pgno);
    hi ^= sums.hi(pgno);
  }
  for (let i = 0; i < pages.length; i++) {
    const pgno = pages[i]!;
    const known = pgno <= sums.count;
    lo ^= newSums[2 * i]! ^ (known ? sums.lo(pgno) : 0);
    hi ^= newSums[2 * i + 1]! ^ (known ? sums.hi(pgno) : 0);
  }
  return sumValue(lo, hi);
}

/** Makes the sums of a sealed batch those of the database. */
export function adopt(sums: PageSums, sealed: Pick<Sealed, "pages" | "sums" | "size">): void {
  sums.resize(sealed.size);
  for (let i = 0; i < sealed.pages.length; i++)
    sums.set(sealed.pages[i]!, sealed.sums[2 * i]!, sealed.sums[2 * i + 1]!);
}

/** A file that gets its name when it is whole. */
class TemporaryFile {
  readonly target: string;
  readonly fd: number;
  readonly #temporary: string;
  #offset = 0;
  #open = true;

  constructor(target: string) {
    this.target = target;
    this.#temporary = `${target}.tmp`;
    try {
      makeDirectory(path.dirname(target));
      this.fd = openSync(this.#temporary, "w", 0o600);
    } catch (error) {
      throw fileError(error, target, "create");
    }
  }

  write(chunk: Uint8Array): void {
    writeAt(this.fd, chunk, 0, chunk.length, this.#offset);
    this.#offset += chunk.length;
  }

  rewriteStart(bytes: Uint8Array): void {
    writeAt(this.fd, bytes, 0, bytes.length, 0);
  }

  place(): void {
    this.#close();
    renameSync(this.#temporary, this.target);
  }

  discard(): void {
    this.#close();
    rmSync(this.#temporary, { force: true });
  }

  #close(): void {
    if (this.#open) closeSync(this.fd);
    this.#open = false;
  }
}

import { readSync, closeSync, ftruncateSync, openSync } from "node:fs";
import { setImmediate as yieldLoop } from "node:timers/promises";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { decompressLz4 } from "../ltx/lz4-stream.ts";
import { parseDatabaseHeader } from "../sqlite/database-header.ts";
import { FRAME_HEADER_BYTES, FrameScanner, parseWalHeader, WAL_HEADER_BYTES } from "../sqlite/wal.ts";
import type { ObjectStore } from "../store/store.ts";
import { runSqlite } from "./integrity.ts";
import { parseOldObject, planOld, type OldObject, type OldPlan } from "./litestream03-plan.ts";
import type { Progress } from "./restore-progress.ts";
import type { RestoreTarget } from "./target.ts";
import { writeFully } from "./write-fully.ts";

export interface OldSource {
  readonly store: ObjectStore;
  readonly prefix: string;
  readonly timestampMs?: number;
  readonly signal?: AbortSignal;
}

/** The state of a database restored from a backup of Litestream 0.3, which knows no TXIDs. */
export interface OldState {
  readonly plan: OldPlan;
  readonly pageSize: number;
  readonly pageCount: number;
}

/** All objects of Litestream 0.3 backups of this database; empty where there's none. */
export async function listOld({ store, prefix, signal }: OldSource): Promise<OldObject[]> {
  const objects: OldObject[] = [];
  const folder = prefix === "" ? "" : `${prefix}/`;
  for await (const info of store.list(`${folder}generations/`, signal === undefined ? {} : { signal })) {
    const object = parseOldObject(info);
    if (object !== undefined) objects.push(object);
  }
  return objects;
}

/**
 * Restores a backup of Litestream 0.3 into the temporary file of `target`: the snapshot is the database file, and each
 * WAL, put together from its segments beside it, is merged into it by SQLite as after a crash. SQLite stops in silence
 * at the first frame that isn't right, so all frames (salts, cumulative checksums) are checked before.
 *
 * Throws SLU-4512 for missing or damaged parts, SLU-4503 as `planOld`, and what store and disk throw.
 */
export async function restoreOld(
  objects: readonly OldObject[],
  source: OldSource,
  target: RestoreTarget,
  progress: Progress,
): Promise<OldState> {
  const { store, timestampMs } = source;
  const plan = planOld(objects, timestampMs, store.url);
  progress.begin(1 + plan.wals.flat().length, plan.sizeBytes);
  await target.ensureRoom(plan.sizeBytes);
  ftruncateSync(target.fd, 0);
  await copyInto(target.fd, [plan.snapshot], source, progress);
  const walPath = `${target.temporaryPath}-wal`;
  for (const [i, segments] of plan.wals.entries()) {
    const fd = openSync(walPath, "w+");
    let walBytes: number;
    try {
      walBytes = await copyInto(fd, segments, source, progress);
      await checkWal(fd, walBytes, `${store.url}: WAL ${plan.snapshot.index + i} of generation ${plan.generation}`);
    } finally {
      closeSync(fd);
    }
    const merged = await runSqlite({ task: "merge", path: target.temporaryPath });
    if ("sqliteCode" in merged) throw damaged(`${store.url}: ${merged.sqliteCode}: ${merged.message}`);
  }
  const bytes = Buffer.alloc(100);
  readSync(target.fd, bytes, 0, bytes.length, 0);
  const header = parseDatabaseHeader(bytes);
  if (header === undefined) throw damaged(`${store.url}: the snapshot is not a database`);
  const { pageSize } = header;
  return { plan, pageSize, pageCount: Math.floor(target.size() / pageSize) };
}

/** Decompresses objects one behind the other into a file; segments must begin where the one before has ended. */
async function copyInto(
  fd: number,
  objects: readonly OldObject[],
  { store, signal }: OldSource,
  progress: Progress,
): Promise<number> {
  let position = 0;
  for (const { key, offset, sizeBytes } of objects) {
    if (offset >= 0 && offset !== position) {
      throw damaged(`${store.url}: ${key} begins at ${offset}, the segment before ends at ${position}`);
    }
    const { body } = await store.get(key, signal === undefined ? {} : { signal });
    try {
      for await (const block of decompressLz4(key, body)) {
        writeFully(fd, block, position);
        position += block.length;
        await yieldLoop();
      }
    } catch (error) {
      if (isSluiceError(error, "SLU-5002")) throw damaged(error.message, error);
      throw error;
    }
    progress.add(sizeBytes);
  }
  return position;
}

/** How much of a WAL is checked before other work of the process gets a turn. */
const CHECK_BYTES = 1024 * 1024;

async function checkWal(fd: number, sizeBytes: number, name: string): Promise<void> {
  const head = new Int32Array(WAL_HEADER_BYTES / 4);
  readSync(fd, new Uint8Array(head.buffer), 0, WAL_HEADER_BYTES, 0);
  const header = parseWalHeader(head);
  if (header === undefined) throw damaged(`${name} has no valid header`);
  const { pageSize, salt1, salt2, bigEndian, sum1, sum2 } = header;
  const frameBytes = FRAME_HEADER_BYTES + pageSize;
  const frames = (sizeBytes - WAL_HEADER_BYTES) / frameBytes;
  if (!Number.isInteger(frames)) throw damaged(`${name} ends within a frame`);
  const scanner = new FrameScanner(pageSize);
  scanner.begin(salt1, salt2, bigEndian, sum1, sum2);
  const atOnce = Math.max(1, Math.floor(CHECK_BYTES / frameBytes));
  const words = new Int32Array((atOnce * frameBytes) / 4);
  for (let done = 0; done < frames;) {
    const count = Math.min(atOnce, frames - done);
    readSync(fd, new Uint8Array(words.buffer), 0, count * frameBytes, WAL_HEADER_BYTES + done * frameBytes);
    for (let i = 0; i < count; i++, done++) {
      if (!scanner.next(words, (i * frameBytes) / 4)) throw damaged(`${name}: frame ${done + 1} is damaged`);
    }
    await yieldLoop();
  }
}

function damaged(message: string, cause?: unknown): SluiceError {
  return new SluiceError("SLU-4512", message, cause === undefined ? {} : { cause });
}

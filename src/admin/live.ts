import { statSync } from "node:fs";
import Sqlite from "better-sqlite3";
import { stateDirOf } from "../database/database.ts";
import { peekState } from "../database/state.ts";
import type { LiveState } from "../log/verify.ts";
import { DatabaseSum } from "../ltx/database-sum.ts";
import { parseDatabaseHeader } from "../sqlite/database-header.ts";
import { ask } from "./client.ts";
import { readOwner } from "./owner.ts";

/** SQLite hands out a consistent picture in memory only; a larger database is believed its page table. */
const PICTURE_BYTES_MAX = 512 * 1024 * 1024;

interface Synced {
  readonly position: string;
}

/** Brings all that is committed to `db` into its store, where a process looks after it. */
export async function settle(db: string): Promise<void> {
  if (readOwner(db) === undefined) return;
  await ask(db, { method: "POST", path: "/v1/sync", body: { db, wait: "store" }, limitMs: 40_000 });
}

/**
 * Position and checksum of a database: of its pages as SQLite reads them where a process looks after it and nobody
 * writes meanwhile, else of what was last sealed. Undefined for a database without a state.
 */
export async function liveState(db: string): Promise<LiveState | undefined> {
  const size = statSync(db, { throwIfNoEntry: false })?.size ?? 0;
  if (readOwner(db) !== undefined && size > 0 && size <= PICTURE_BYTES_MAX) {
    const before = await positionNow(db);
    const checksum = checksumOf(picture(db));
    if ((await positionNow(db)) === before) return { position: BigInt(`0x${before}`), checksum };
  }
  const state = peekState(stateDirOf(db));
  return state && { position: state.sealedPosition, checksum: state.sealedChecksum };
}

async function positionNow(db: string): Promise<string> {
  const { position } = await ask<Synced>(db, { method: "POST", path: "/v1/sync", body: { db, wait: "local" } });
  return position;
}

function picture(db: string): Buffer {
  const connection = new Sqlite(db, { readonly: true, fileMustExist: true });
  try {
    return connection.serialize();
  } finally {
    connection.close();
  }
}

function checksumOf(database: Buffer): bigint {
  const pageSize = parseDatabaseHeader(database)?.pageSize ?? 4096;
  const sum = new DatabaseSum(pageSize);
  sum.add(database);
  return sum.value;
}

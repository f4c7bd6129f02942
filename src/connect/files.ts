import { existsSync, readFileSync, realpathSync } from "node:fs";
import path from "node:path";

/** Where a database is in its history. */
export interface Position {
  /** `epoch · 2^32 + seq` of the last commit; it only grows. */
  readonly position: bigint;
  readonly checksum: bigint;
}

/** Whether this node may not write the database now: one look at the file system, for `.primary` beside it. */
export function isReplica(database: string): boolean {
  // `sluice exec --on-primary` lends the write lock to its command, also on a replica.
  return existsSync(primaryFile(database)) && process.env["SLUICE_ON_PRIMARY"] !== "1";
}

/** The primary's name on a replica ("" when it isn't known there); undefined on the primary. */
export function primaryOf(database: string): string | undefined {
  if (!isReplica(database)) return undefined;
  return readIfThere(primaryFile(database))?.trim();
}

/** What `NAME-pos` says; undefined where there is no such file, or nothing whole in it. */
export function positionOf(database: string): Position | undefined {
  const text = readIfThere(`${resolve(database)}-pos`) ?? "";
  const [, position, checksum] = /^([0-9a-f]{16})\/([0-9a-f]{16})\n?$/.exec(text) ?? [];
  if (position === undefined || checksum === undefined) return undefined;
  return { position: BigInt(`0x${position}`), checksum: BigInt(`0x${checksum}`) };
}

function primaryFile(database: string): string {
  return path.join(path.dirname(resolve(database)), ".primary");
}

/** Links are followed, as Sluice follows them. */
function resolve(database: string): string {
  try {
    return realpathSync(database);
  } catch {
    return path.resolve(database);
  }
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    // The node was promoted between two looks.
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

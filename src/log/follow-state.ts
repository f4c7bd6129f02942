import { open, readFile, rename } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { systemErrorCode } from "../errors/error.ts";
import { headerStamp } from "./follow-header.ts";

/** One state that a followed file is or may be in. */
export interface FollowedState {
  readonly txid: number;
  /** Of the database with the source's page 1 (protocol section 6). */
  readonly checksum: bigint;
  /** The ten bytes of the source's page 1 that the file has others for. */
  readonly stamp: Uint8Array;
  /** How many updates the file has had; in page 1 as its change counter. */
  readonly counter: number;
}

/**
 * What is kept beside a followed file, in `.NAME-follow.json`: the state that the file is in, and during an update
 * also the next one. It's written before the update takes effect, so that after a kill the file is in one of the two,
 * and its checksum says in which.
 */
export interface FollowRecord {
  readonly logId: string | undefined;
  readonly current: FollowedState;
  readonly next: FollowedState | undefined;
}

function recordPath(path: string): string {
  return join(dirname(path), `.${basename(path)}-follow.json`);
}

/** What is kept beside `path`; undefined where there's nothing that makes sense. */
export async function readFollowRecord(path: string): Promise<FollowRecord | undefined> {
  try {
    const value = JSON.parse(await readFile(recordPath(path), "utf8")) as Record<string, unknown>;
    const current = decodeState(value["current"]);
    if (current === undefined) return undefined;
    const logId = typeof value["logId"] === "string" ? value["logId"] : undefined;
    return { logId, current, next: decodeState(value["next"]) };
  } catch (error) {
    if (error instanceof SyntaxError || systemErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Writes the record durably and atomically. */
export async function writeFollowRecord(path: string, record: FollowRecord): Promise<void> {
  const { logId, current, next } = record;
  const text = JSON.stringify({
    ...(logId !== undefined && { logId }),
    current: encodeState(current),
    ...(next !== undefined && { next: encodeState(next) }),
  });
  await replaceFile(recordPath(path), `${text}\n`);
}

/** `PATH-txid`, as Litestream's follow mode keeps it: 16 hex digits, for scripts. Nothing here reads it. */
export async function writeTxidFile(path: string, txid: string): Promise<void> {
  await replaceFile(`${path}-txid`, `${txid}\n`);
}

async function replaceFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.tmp`;
  const file = await open(temporary, "w");
  try {
    await file.writeFile(text);
    await file.datasync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const directory = await open(dirname(path), "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function encodeState({ txid, checksum, stamp, counter }: FollowedState): object {
  return { txid, checksum: checksum.toString(16), stamp: Buffer.from(stamp).toString("hex"), counter };
}

function decodeState(value: unknown): FollowedState | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { txid, checksum, stamp, counter } = value as Record<string, unknown>;
  if (!Number.isSafeInteger(txid) || !Number.isSafeInteger(counter)) return undefined;
  if (typeof checksum !== "string" || !/^[0-9a-f]{1,16}$/.test(checksum)) return undefined;
  if (typeof stamp !== "string" || !/^[0-9a-f]{20}$/.test(stamp)) return undefined;
  return {
    txid: txid as number,
    checksum: BigInt(`0x${checksum}`),
    stamp: new Uint8Array(Buffer.from(stamp, "hex")),
    counter: counter as number,
  };
}

/** The state of a file that was just restored and has the source's own page 1. */
export function firstState(txid: number, checksum: bigint, page1: Uint8Array): FollowedState {
  return { txid, checksum, stamp: headerStamp(page1), counter: 1 };
}

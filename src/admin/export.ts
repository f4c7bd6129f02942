import { once } from "node:events";
import type { ServerResponse } from "node:http";
import path from "node:path";
import type { Node } from "../cluster/node.ts";
import type { DatabaseSnapshot } from "../database/contract.ts";
import { SluiceError } from "../errors/error.ts";
import { formatTxid } from "../log/layout.ts";
import { formatPosition } from "../ltx/position.ts";

/** Read and written at a time, whole pages of any size. */
const CHUNK_BYTES = 1024 * 1024;

/** Headers of an export, beside its length. */
export const EXPORT_HEADERS = {
  position: "sluice-position",
  txid: "sluice-txid",
  /** The database's checksum (protocol section 6), for who wants to know that all of it came. */
  checksum: "sluice-checksum",
  pageSize: "sluice-page-size",
} as const;

/** The database that `GET /v1/databases/NAME/export` names; undefined for another path. */
export function exportedName(pathname: string): string | undefined {
  const encoded = /^\/v1\/databases\/(.+)\/export$/.exec(pathname)?.[1];
  if (encoded === undefined) return undefined;
  try {
    return decodeURIComponent(encoded);
  } catch {
    return undefined;
  }
}

/**
 * Answers with the database as it is at one position: the bytes of a SQLite file. Writers go on meanwhile; a reader
 * that takes too long, or a WAL that grows too far, ends it early (SLU-2012), which the client sees as a broken
 * connection. `name` is the database's in the cluster, or its path. Throws SLU-1003 and SLU-1013 before anything is
 * answered.
 */
export async function answerExport(node: Node, name: string, response: ServerResponse): Promise<void> {
  const snapshot = await snapshotOf(node, name);
  try {
    const { pageSize, pageCount, position, txid, checksum } = snapshot;
    response.writeHead(200, {
      "content-type": "application/vnd.sqlite3",
      "content-length": pageSize * pageCount,
      "cache-control": "no-store",
      [EXPORT_HEADERS.position]: formatPosition(position),
      [EXPORT_HEADERS.txid]: formatTxid(txid),
      [EXPORT_HEADERS.checksum]: checksum.toString(16).padStart(16, "0"),
      [EXPORT_HEADERS.pageSize]: pageSize,
    });
    await send(snapshot, response);
  } finally {
    snapshot.release();
  }
}

async function send(snapshot: DatabaseSnapshot, response: ServerResponse): Promise<void> {
  const { pageSize, pageCount } = snapshot;
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  const signal = AbortSignal.any([gone.signal, snapshot.signal]);
  const most = CHUNK_BYTES / pageSize;
  for (let first = 1; first <= pageCount; first += most) {
    if (gone.signal.aborted) return;
    // The response keeps it until it's sent: no buffer is used twice.
    const chunk = Buffer.allocUnsafe(Math.min(most, pageCount - first + 1) * pageSize);
    await snapshot.read(first, chunk);
    if (!response.write(chunk)) await once(response, "drain", { signal });
  }
  response.end();
}

async function snapshotOf(node: Node, name: string): Promise<DatabaseSnapshot> {
  const found = node.databases.find((one) => one.name === name || one.path === path.resolve(name));
  if (found === undefined) throw new SluiceError("SLU-1003", `${name} is not a database of this process`);
  if (found.role === "replica") {
    throw new SluiceError("SLU-1013", `${name} is a replica's here`, {
      hint: "Ask the primary, or run `sluice export` on this machine: it reads the file as any application does.",
    });
  }
  const { database, state } = found;
  if (database === undefined || state !== "protected") throw new SluiceError("SLU-1013", `${name} is ${state}`);
  return database.snapshot();
}

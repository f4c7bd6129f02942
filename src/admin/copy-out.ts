import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { json } from "node:stream/consumers";
import Sqlite from "better-sqlite3";
import { SluiceError } from "../errors/error.ts";
import { checkIntegrity, type IntegrityCheck } from "../log/integrity.ts";
import { RestoreTarget, writeError } from "../log/target.ts";
import { writeFully } from "../log/write-fully.ts";
import { DatabaseSum } from "../ltx/database-sum.ts";
import { answerError } from "./client.ts";
import { EXPORT_HEADERS } from "./export.ts";
import { type Owner, readOwner } from "./owner.ts";

export interface CopyOptions {
  /** Replace a file that is there. */
  readonly force?: boolean;
  readonly integrityCheck?: IntegrityCheck;
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
  readonly signal?: AbortSignal;
}

export interface Copied {
  readonly path: string;
  readonly sizeBytes: number;
  /** `sluice`: byte for byte, by the process that looks after it; `sqlite`: by SQLite's backup. */
  readonly by: "sluice" | "sqlite";
  /** 16 hex digits; undefined where SQLite copied it. */
  readonly position: string | undefined;
}

/** Nothing comes for this long: the process hangs. */
const SILENCE_MS = 30_000;
/** Pages that SQLite copies between two turns of the event loop. */
const STEP_PAGES = 2_000;

/**
 * Copies the database at `db`, consistent and while it's written to, into the file `to`, which appears whole or not at
 * all. A running Sluice gives it out at one position, with its checksum; without one, and on a replica, SQLite's
 * backup copies it in one read transaction.
 *
 * Throws SLU-1014 when the copy is not what was promised, SLU-4505 to SLU-4507 and SLU-4511 for the target, and the
 * process's errors.
 */
export async function copyOut(db: string, to: string, options: CopyOptions = {}): Promise<Copied> {
  const { force = false, integrityCheck = "quick", signal } = options;
  const target = await RestoreTarget.create(to, { force, like: db });
  try {
    const owner = readOwner(db);
    const position = owner === undefined ? undefined : await copyFromSluice(owner, db, target, options);
    if (position === undefined) await copyBySqlite(db, target, options);
    signal?.throwIfAborted();
    if (integrityCheck !== "none") await checkIntegrity(target.temporaryPath, integrityCheck, target.path);
    await target.sync();
    signal?.throwIfAborted();
    const sizeBytes = target.size();
    await target.install();
    return { path: target.path, sizeBytes, by: position === undefined ? "sqlite" : "sluice", position };
  } catch (error) {
    throw writeError(target.path, error);
  } finally {
    await target.discard();
  }
}

/** The position of the copy; undefined when the process says that it's a replica's. */
async function copyFromSluice(
  owner: Owner,
  db: string,
  target: RestoreTarget,
  { onProgress, signal }: CopyOptions,
): Promise<string | undefined> {
  const response = await get(owner, `/v1/databases/${encodeURIComponent(db)}/export`, signal);
  if (response.statusCode !== 200) {
    const error = answerError(owner, response.statusCode ?? 0, await json(response));
    if (error instanceof SluiceError && error.code === "SLU-1013") return undefined;
    throw error;
  }
  const total = Number(response.headers["content-length"]);
  await target.ensureRoom(total);
  const sum = new DatabaseSum(Number(response.headers[EXPORT_HEADERS.pageSize]));
  let done = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      writeFully(target.fd, chunk, done);
      sum.add(chunk);
      done += chunk.length;
      onProgress?.(done, total);
    }
  } catch (cause) {
    signal?.throwIfAborted();
    if ((cause as NodeJS.ErrnoException).syscall === "write") throw cause;
    throw new SluiceError("SLU-1014", `process ${owner.pid} broke the export of ${db} off after ${done} bytes`, {
      cause,
    });
  }
  const wanted = response.headers[EXPORT_HEADERS.checksum];
  const found = sum.value.toString(16).padStart(16, "0");
  if (done !== total || found !== wanted) {
    throw new SluiceError(
      "SLU-1014",
      `${db}: ${done} of ${total} bytes came, with checksum ${found}, not ${String(wanted)}`,
    );
  }
  return String(response.headers[EXPORT_HEADERS.position]);
}

async function get(owner: Owner, path: string, signal: AbortSignal | undefined): Promise<IncomingMessage> {
  const sent = request({ socketPath: owner.socket, path, ...(signal !== undefined && { signal }) });
  sent.setTimeout(SILENCE_MS, () => sent.destroy(new Error(`nothing came for ${SILENCE_MS} ms`)));
  sent.end();
  try {
    const [response] = (await once(sent, "response")) as [IncomingMessage];
    return response;
  } catch (cause) {
    signal?.throwIfAborted();
    throw new SluiceError("SLU-1004", `process ${owner.pid}, which looks after the database, doesn't answer`, {
      cause,
    });
  }
}

/** One read transaction around all steps: otherwise a writer would make the backup begin anew, again and again. */
async function copyBySqlite(db: string, target: RestoreTarget, { onProgress, signal }: CopyOptions): Promise<void> {
  let connection: Sqlite.Database | undefined;
  try {
    connection = new Sqlite(db, { readonly: true, fileMustExist: true, timeout: 5000 });
    connection.exec("begin");
    connection.prepare("select count(*) from sqlite_schema").get();
    const pageSize = connection.pragma("page_size", { simple: true }) as number;
    await target.ensureRoom(pageSize * (connection.pragma("page_count", { simple: true }) as number));
    await connection.backup(target.temporaryPath, {
      progress: ({ totalPages, remainingPages }) => {
        signal?.throwIfAborted();
        onProgress?.((totalPages - remainingPages) * pageSize, totalPages * pageSize);
        return STEP_PAGES;
      },
    });
  } catch (error) {
    if (!(error instanceof Sqlite.SqliteError)) throw error;
    throw new SluiceError("SLU-1014", `${db}: ${error.code}: ${error.message}`, { cause: error });
  } finally {
    connection?.close();
  }
}

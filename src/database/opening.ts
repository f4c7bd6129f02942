import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { SluiceError } from "../errors/error.ts";
import { DatabaseFiles, fileError } from "./files.ts";
import { HeldLocks } from "./held-locks.ts";
import { requireDatabase } from "./inspect.ts";

const RETRY_MS = 25;

/**
 * The Sluice that looks after the database until now and gives it up for this one (`cluster/succession`). `pass` is called
 * with SHARED, DMS and the pin held beside it; it calls `take` when the checkpoint lock should be free, as often as it has
 * to, and resolves when that has had it. Rejects when it can't be had.
 */
export interface Predecessor {
  pass(take: () => boolean): Promise<void>;
}

export interface OpenedFiles {
  readonly files: DatabaseFiles;
  readonly locks: HeldLocks;
  /** Bytes. */
  readonly pageSize: number;
}

/**
 * Opens a database in the order of protocol section 2, steps 1 to 5: SQLite first (it rolls back a hot journal, switches
 * to WAL mode and sets up the wal-index), then the descriptors, the locks, the pin; then SQLite goes.
 *
 * `gate` closed: no application can commit from then on.
 *
 * Never creates a database: SLU-2005 when there is none of at least one page. SLU-2003 when locks could not be had
 * within `patienceMs`, SLU-2004 when SQLite can't open it, SLU-2008 to SLU-2010 for system errors. After an error
 * nothing is held. With a `predecessor` the locks are its own until it passes them on.
 */
export async function openFiles(
  path: string,
  patienceMs: number,
  gate: "open" | "closed",
  signal?: AbortSignal,
  predecessor?: Predecessor,
): Promise<OpenedFiles> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    signal?.throwIfAborted();
    const result = await openOnce(path, deadline, gate, signal, predecessor);
    if (typeof result !== "string") return result;
    if (performance.now() >= deadline) {
      throw new SluiceError("SLU-2003", `${path}: ${result}, for ${Math.round(patienceMs / 1000)} s`);
    }
    await sleep(RETRY_MS);
  }
}

/** One try; a string says what is in the way and may go. */
async function openOnce(
  path: string,
  deadline: number,
  gate: "open" | "closed",
  signal: AbortSignal | undefined,
  predecessor: Predecessor | undefined,
): Promise<OpenedFiles | string> {
  requireDatabase(path);
  const connection = connect(path);
  if (typeof connection === "string") return connection;
  let files: DatabaseFiles | undefined;
  let locks: HeldLocks | undefined;
  let opened: OpenedFiles | undefined;
  try {
    files = new DatabaseFiles(path);
    locks = new HeldLocks(files);
    const held = locks;
    const take = (): string | undefined =>
      held.take() ?? (gate === "open" || held.closeGate() ? undefined : "an application is writing");
    const patiently = async (attempt: () => string | undefined): Promise<string | undefined> => {
      let blocked = attempt();
      while (blocked !== undefined && performance.now() < deadline) {
        signal?.throwIfAborted();
        await sleep(RETRY_MS);
        blocked = attempt();
      }
      return blocked;
    };
    if (predecessor !== undefined && (await patiently(() => held.takeBeside())) === undefined)
      await predecessor.pass(() => held.take() === undefined);
    const blocked = await patiently(take);
    if (blocked !== undefined) return blocked;
    const pageSize = connection.pragma("page_size", { simple: true }) as number;
    const difference = files.difference();
    if (difference !== undefined) return difference;
    opened = { files, locks, pageSize };
    return opened;
  } finally {
    // SQLite's connection first: closing any descriptor drops its POSIX locks (fcntl(2)).
    connection.close();
    if (opened === undefined) files?.close();
  }
}

/** A connection that has read once in WAL mode, or what is in the way. */
function connect(path: string): Sqlite.Database | string {
  let connection: Sqlite.Database | undefined;
  try {
    connection = new Sqlite(path, { fileMustExist: true, timeout: 0 });
    const mode = connection.pragma("journal_mode = wal", { simple: true });
    if (mode !== "wal") {
      throw new SluiceError("SLU-2004", `${path}: SQLite keeps journal_mode=${String(mode)} instead of wal`);
    }
    connection.prepare("select count(*) from sqlite_schema").get();
    return connection;
  } catch (error) {
    connection?.close();
    if (!(error instanceof Sqlite.SqliteError)) throw fileError(error, path, "open");
    if (error.code.startsWith("SQLITE_BUSY") || error.code.startsWith("SQLITE_PROTOCOL")) {
      return `SQLite says "${error.message}"`;
    }
    if (error.code.startsWith("SQLITE_FULL")) throw new SluiceError("SLU-2008", `${path}: ${error.message}`);
    if (error.code.startsWith("SQLITE_READONLY") || error.code.startsWith("SQLITE_PERM")) {
      throw new SluiceError("SLU-2009", `${path}: ${error.message}`, { cause: error });
    }
    throw new SluiceError("SLU-2004", `${path}: ${error.message} (${error.code})`, { cause: error });
  }
}

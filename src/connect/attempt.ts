import { AsyncLocalStorage } from "node:async_hooks";
import { isReplica, primaryOf } from "./files.ts";
import type { Guarded } from "./guarded.ts";

/** A write on a replica, refused. The request has changed nothing: it can be replayed on the primary. */
export class NotPrimary extends Error {
  override readonly name = "NotPrimary";
  readonly database: string;
  /** The primary's name; "" when the replica doesn't know it. */
  readonly primary: string;
  /** For frameworks that make a status of it. */
  readonly statusCode = 409;

  constructor(database: string, primary: string, options?: ErrorOptions) {
    const where = primary === "" ? "no primary is known" : `the primary is ${primary}`;
    super(`${database} is a replica here and can't be written; ${where}`, options);
    this.database = database;
    this.primary = primary;
  }
}

/**
 * One try of this node to answer a request. Open until a write is refused: then `refused` is why the request is to be
 * replayed, whatever the application answers. Where the node was the primary in between, and may have committed a part
 * of it, an error stays an error: a replay would do that part twice.
 */
export class Attempt {
  readonly #databases: readonly string[];
  readonly #guarded: readonly Guarded[];
  readonly #changesBefore: readonly number[];
  readonly #beganAsReplica: boolean;
  refused: NotPrimary | undefined;

  constructor(databases: readonly string[], guarded: readonly Guarded[]) {
    this.#databases = databases;
    this.#guarded = guarded;
    this.#beganAsReplica = databases.some(isReplica);
    this.#changesBefore = guarded.map((each) => each.changes);
  }

  /** The refusal behind an error that the application threw; undefined for any other, and when it's too late. */
  refusalOf(error: unknown): NotPrimary | undefined {
    const found = error instanceof NotPrimary ? error : this.#fromSqlite(error);
    return found !== undefined && this.#changedNothing ? found : undefined;
  }

  /** SQLite's own refusals on a replica: `query_only`, or the write lock that Sluice holds. */
  #fromSqlite(error: unknown): NotPrimary | undefined {
    if (!isRefusal(error)) return undefined;
    for (const database of this.#databases) {
      const primary = primaryOf(database);
      if (primary !== undefined) return new NotPrimary(database, primary, { cause: error });
    }
    return undefined;
  }

  get #changedNothing(): boolean {
    if (this.#beganAsReplica) return true;
    return (
      this.#guarded.length > 0 && this.#guarded.every(({ changes }, index) => changes === this.#changesBefore[index])
    );
  }
}

export const attempts = new AsyncLocalStorage<Attempt>();

/** To be called before a write, or anything else that must run on the primary. Throws NotPrimary on a replica. */
export function requirePrimary(database: string): void {
  const primary = primaryOf(database);
  if (primary === undefined) return;
  const error = new NotPrimary(database, primary);
  const attempt = attempts.getStore();
  // Also for an application that catches it.
  if (attempt !== undefined) attempt.refused ??= attempt.refusalOf(error);
  throw error;
}

/** SQLITE_BUSY or SQLITE_READONLY of better-sqlite3, node:sqlite or a library around one, also as the cause of another. */
function isRefusal(error: unknown): boolean {
  for (let each = error, depth = 0; each instanceof Error && depth < 5; each = each.cause, depth++) {
    const { code, errcode, message } = each as Error & { code?: unknown; errcode?: unknown };
    if (typeof code === "string" && /^SQLITE_(BUSY|READONLY)/.test(code)) return true;
    if (typeof errcode === "number" && [5, 8].includes(errcode & 0xff)) return true;
    if (/database is locked|attempt to write a readonly database/.test(message)) return true;
  }
  return false;
}

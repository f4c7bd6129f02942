import { isReplica } from "./files.ts";

/** What better-sqlite3's `Database` and node:sqlite's `DatabaseSync` have in common. */
export interface SqliteConnection {
  exec(sql: string): unknown;
  prepare(sql: string): { get(): unknown };
}

/**
 * A connection that follows the node's role: on a replica `PRAGMA query_only` is on, and SQLite refuses writes at once
 * (`OP_Transaction`) instead of waiting for the lock that Sluice holds.
 */
export class Guarded {
  readonly #connection: SqliteConnection;
  readonly #database: string;
  readonly #totalChanges: { get(): unknown };
  #closed = false;

  constructor(connection: SqliteConnection, database: string) {
    this.#connection = connection;
    this.#database = database;
    this.#totalChanges = connection.prepare("SELECT total_changes() AS changes");
  }

  /** Rows that this connection has changed in its life. */
  get changes(): number {
    return (this.#totalChanges.get() as { readonly changes: number }).changes;
  }

  /** Brings the connection into the node's role. */
  look(): void {
    const closed = isReplica(this.#database);
    if (closed === this.#closed) return;
    this.#connection.exec(`PRAGMA query_only = ${closed ? 1 : 0}`);
    this.#closed = closed;
  }
}

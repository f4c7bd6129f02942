import Database from "better-sqlite3";

export const file = process.env.DATABASE_PATH ?? "guest-book.db";

/** The database, with the milliseconds to wait for another writer that every application with SQLite needs. */
export function open() {
  return new Database(file, { timeout: 10_000 });
}

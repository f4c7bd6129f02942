import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import Database from "better-sqlite3";
import { type Kind, migrate, PlainSite } from "./plain-site.ts";

/**
 * The site twice: on a primary, and on a replica that is simulated by what a site sees of one, the `.primary` file and
 * a write lock that it can't get. The replica's copy stays as it was at the beginning.
 */
export class TwoSites implements AsyncDisposable {
  readonly dir: string;
  readonly primary: PlainSite;
  readonly replica: PlainSite;
  readonly #lock: Database.Database;

  static async start(kind: Kind, primaryName: string): Promise<TwoSites> {
    const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-sites-"));
    const [databaseA, databaseB] = ["a", "b"].map((name) => path.join(dir, name, "app.db")) as [string, string];
    for (const database of [databaseA, databaseB]) mkdirSync(path.dirname(database));
    await migrate(databaseA);
    const made = new Database(databaseA);
    made.pragma("wal_checkpoint(truncate)");
    made.close();
    copyFileSync(databaseA, databaseB);
    const lock = new Database(databaseB);
    lock.pragma("journal_mode = wal");
    lock.exec("begin immediate");
    writeFileSync(path.join(dir, "b/.primary"), `${primaryName}\n`);
    const sites = await Promise.all([PlainSite.start(kind, databaseA), PlainSite.start(kind, databaseB)]);
    return new TwoSites(dir, sites, lock);
  }

  private constructor(dir: string, [primary, replica]: [PlainSite, PlainSite], lock: Database.Database) {
    this.dir = dir;
    this.primary = primary;
    this.replica = replica;
    this.#lock = lock;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.primary[Symbol.asyncDispose](), this.replica[Symbol.asyncDispose]()]);
    this.#lock.close();
    rmSync(this.dir, { recursive: true });
  }
}

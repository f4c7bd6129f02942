import { databasesOf } from "../admin/report.ts";
import type { DbConfig } from "../config/config.ts";
import { SluiceError } from "../errors/error.ts";
import { readConfig } from "./target.ts";

/** A database of this node: its state says which process looks after it. Throws SLU-1004. */
export function ownDatabase(config: string | undefined): string {
  const found = readConfig(config).dbs.flatMap((db: DbConfig) => (db.kind === "file" ? [db.path] : databasesOf(db)));
  if (found[0] === undefined) throw new SluiceError("SLU-1004", "no Sluice runs here");
  return found[0];
}

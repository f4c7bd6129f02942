import { writeFileSync } from "node:fs";
import path from "node:path";
import { Background } from "./processes.ts";

/** Starts `litestream replicate` for one database to a directory, with defaults otherwise; ready when it has synced. */
export async function litestream(binary: string, db: string, replica: string): Promise<Background> {
  const config = path.join(path.dirname(db), "litestream.yml");
  writeFileSync(config, `dbs:\n  - path: ${db}\n    replica:\n      type: file\n      path: ${replica}\n`);
  const process = new Background(binary, ["replicate", "-config", config]);
  await process.printed(/replicating to/);
  return process;
}

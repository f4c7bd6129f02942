import { existsSync } from "node:fs";
import { peers } from "../../test/peers/peers.ts";
import { run } from "./processes.ts";

/** What was measured with what: the programs beside Sluice in the versions that are installed. */
export async function versions(): Promise<string> {
  const python = (await run("python3", ["-c", "import sqlite3; print(sqlite3.sqlite_version)"])).trim();
  const others = [
    ["Litestream", peers.litestream],
    ["SeaweedFS", peers.weed],
  ] as const;
  const found = others.flatMap(([name, binary]) =>
    existsSync(binary) ? [run(binary, ["version"]).then((said) => `${name} ${/\d+(\.\d+)+/.exec(said)?.[0]}`)] : [],
  );
  return [`Node.js ${process.version}`, `SQLite ${python}`, ...(await Promise.all(found))].join(", ");
}

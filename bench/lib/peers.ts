import { existsSync } from "node:fs";
import os from "node:os";
import path from "node:path";

/** Where `test/peers/install.sh` puts other programs. */
const CACHE =
  process.env["SLUICE_PEERS"] ??
  path.join(process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache"), "sluice-peers");

/** A program of the peers' cache, or undefined when it isn't installed. */
export function peer(name: "weed" | "litestream"): string | undefined {
  const file = path.join(CACHE, "bin", name);
  return existsSync(file) ? file : undefined;
}

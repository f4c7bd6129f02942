import { existsSync } from "node:fs";
import os from "node:os";
import path from "node:path";

const peers = process.env["SLUICE_PEERS"] ?? path.join(os.homedir(), ".cache/sluice-peers");

/** Python with Django and gunicorn, where `test/peers/install.sh` puts it. */
export const python = path.join(peers, "django/bin/python");

/** Why the tests with Django don't run here; undefined where they do. With CI=true they must. */
export function missingDjango(): string | undefined {
  if (existsSync(python)) return undefined;
  const message = `no Django: run test/peers/install.sh (looked for ${python})`;
  if (process.env["CI"] === "true") throw new Error(message);
  console.warn(`skipped: ${message}`);
  return message;
}

import { existsSync } from "node:fs";
import os from "node:os";
import path from "node:path";

/** Where `install.sh` puts other programs. */
const peersDirectory =
  process.env["SLUICE_PEERS"] ??
  path.join(process.env["XDG_CACHE_HOME"] ?? path.join(os.homedir(), ".cache"), "sluice-peers");

/** The programs that tests stand beside; `install.sh` says what each is. */
export const peers = {
  litestream: at("bin/litestream"),
  /** Compresses pages as LZ4 frames. */
  litestreamFrames: at("bin/litestream-0.5.12"),
  litestreamOld: at("bin/litestream-0.3.13"),
  weed: at("bin/weed"),
  etcd: at("bin/etcd"),
  /** The model checker. */
  spin: at("bin/spin"),
  /** A Consul agent. */
  consul: at("bin/consul"),
  /** For benchmarks; `fusermount` mounts it. */
  litefs: at("bin/litefs"),
  fusermount: at("bin/fusermount3"),
  /** A library that makes the clock of a process jump. */
  faketime: at("lib/libfaketime.so.1"),
  /** Python with Django, gunicorn and WhiteNoise. */
  django: at("django/bin/python"),
  /** The oldest Django that the integration works with. */
  djangoOld: at("django-old/bin/python"),
  /** The newest, with Flask and Starlette. */
  djangoNew: at("django-new/bin/python"),
  /** Python with schemas of Kubernetes and Compose. */
  validators: at("validators/bin/python"),
} as const;

/** SQLite's versions that Python programs can be run with; all but the last two have the WAL-reset bug. */
export const sqliteVersions = ["3.14.1", "3.31.1", "3.39.1", "3.50.4", "3.54.1", "3.54.1-debug"] as const;
export type SqliteVersion = (typeof sqliteVersions)[number];

/** What a Python program's environment needs in order to `import sqlite3` with that SQLite inside. */
export function sqliteEnvironment(version: SqliteVersion): { readonly PYTHONPATH: string } {
  return { PYTHONPATH: at(`sqlite/${version}`) };
}

/**
 * Whether a test with these peers must be skipped, which is told once in one line; for `describe.skipIf` and
 * `test.skipIf`. With CI=true nothing may be missing: throws.
 */
export function lacks(...needed: readonly (keyof typeof peers | SqliteVersion)[]): boolean {
  const missing = needed.filter(
    (name) => !existsSync(name in peers ? peers[name as keyof typeof peers] : at(`sqlite/${name}`)),
  );
  if (missing.length === 0) return false;
  const message = `${missing.join(", ")} not in ${peersDirectory}: run test/peers/install.sh`;
  if (process.env["CI"] === "true" && missing.some((name) => name !== MAY_LACK)) throw new Error(message);
  if (!told.has(message)) console.warn(`skipped: ${message}`);
  told.add(message);
  return true;
}

/** Built from sources that may not be had everywhere; its tests have a stand-in beside. */
const MAY_LACK = "consul";

const told = new Set<string>();

function at(file: string): string {
  return path.join(peersDirectory, file);
}

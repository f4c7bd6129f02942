import { readFileSync } from "node:fs";
import path from "node:path";
import type { Environment } from "./messages.ts";

/**
 * What the application would have without Sluice, and Node.js or `bin/sluice` changed on the way: the environment, and
 * the soft limit of open files, which Node.js raises to the hard one for itself. A raised limit makes programs that
 * close every possible descriptor spin for minutes, and breaks those that use select(2).
 */

/** Set by `bin/sluice`, before Node.js raises it: `ulimit -Sn`. */
const OPEN_FILES = "SLUICE_OPEN_FILES";
/** Where `bin/sluice` puts its own compile cache, relative to a user's cache directory. */
const OWN_CACHE = path.join("sluice", "compiled");

/** The environment as the user gave it. */
export function applicationEnvironment(env: Environment): Environment {
  const { [OPEN_FILES]: _, NODE_COMPILE_CACHE: cache, ...rest } = env;
  return cache === undefined || cache.endsWith(OWN_CACHE) ? rest : { ...rest, NODE_COMPILE_CACHE: cache };
}

/** The soft limit of open files as this process was started with, or its parent's; undefined when neither is known. */
export function openFilesLimit(env: Environment): number | undefined {
  const given = env[OPEN_FILES] ?? parentLimit();
  // "unlimited" leaves nothing to lower.
  return given !== undefined && /^\d+$/.test(given) ? Number(given) : undefined;
}

function parentLimit(): string | undefined {
  try {
    return /^Max open files +(\S+)/m.exec(readFileSync(`/proc/${process.ppid}/limits`, "latin1"))?.[1];
  } catch {
    // Process 1 of a container has no parent there.
    return undefined;
  }
}

import { readFileSync } from "node:fs";

/** A connection is one open file, and one more while its request is at the application. */
const FILES_PER_CONNECTION = 2;

/** How many files this process may have open (proc(5), `limits`); infinite where that isn't known. */
export function openFilesMax(): number {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return soft === undefined ? Infinity : Number(soft);
  } catch {
    return Infinity;
  }
}

/**
 * `wanted` connections, or as many as leave half of all open files to the databases: clients, of which anybody can be as
 * many as he likes, must not be able to stop what is captured and sent.
 */
export function connectionsWithin(wanted: number, filesMax: number): number {
  return Math.min(wanted, Math.max(1, Math.floor(filesMax / 2 / FILES_PER_CONNECTION)));
}

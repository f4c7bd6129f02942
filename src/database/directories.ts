import { closeSync, fsyncSync, mkdirSync, openSync } from "node:fs";
import path from "node:path";

/** Makes the entries of a directory durable: new, renamed and removed files (fsync(2), "Calling fsync() does not …"). */
export function syncDirectory(directory: string): void {
  const fd = openSync(directory, "r");
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Creates a directory and those above it where they are missing (mode 0700), so that a power loss leaves them there. */
export function makeDirectory(directory: string): void {
  const first = mkdirSync(directory, { recursive: true, mode: 0o700 });
  if (first === undefined) return;
  const highest = path.dirname(path.resolve(first));
  for (let at = path.dirname(path.resolve(directory)); ; at = path.dirname(at)) {
    syncDirectory(at);
    if (at === highest) return;
  }
}

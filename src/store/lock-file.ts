import { closeSync, openSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { SluiceError } from "../errors/error.ts";
import { tryLock } from "../sqlite/locks.ts";

const RETRY_MS = 2;
const PATIENCE_MS = 10_000;

/**
 * Takes an exclusive lock on a file, which is made if need be and stays; the returned function lets it go, and so does
 * the end of the process. Excludes other users in this process, too. Throws SLU-3101 when it can't be had within 10 s.
 */
export async function lockFile(file: string): Promise<() => void> {
  const fd = openSync(file, "a", 0o644);
  const deadline = performance.now() + PATIENCE_MS;
  try {
    while (!tryLock(fd, "exclusive", 0)) {
      if (performance.now() >= deadline)
        throw new SluiceError("SLU-3101", `${file} has been locked by another process for ${PATIENCE_MS / 1000} s`);
      await sleep(RETRY_MS);
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return () => closeSync(fd);
}

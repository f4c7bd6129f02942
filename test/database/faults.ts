import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";

/** A write to a file: descriptor, bytes and where they go. */
export interface Write {
  readonly fd: number;
  readonly bytes: Uint8Array;
  readonly position: number;
}

export type WriteSync = (fd: number, bytes: Uint8Array, offset: number, length: number, position: number) => number;

/** What is thrown where a process would be killed. */
class Killed extends Error {}

/**
 * Runs `work` while `onWrite` sees each positioned write, and may do it in part or throw, and `onSync` each descriptor that
 * is synced at once.
 */
export async function watchingWrites<T>(
  onWrite: (write: Write, real: WriteSync) => number | undefined,
  work: () => Promise<T>,
  onSync: (fd: number) => void = () => undefined,
): Promise<T> {
  const real = fs.writeSync as unknown as WriteSync;
  const replaced: WriteSync = (fd, bytes, offset, length, position) => {
    const write = { fd, bytes: bytes.subarray(offset, offset + length), position };
    return onWrite(write, real) ?? real(fd, bytes, offset, length, position);
  };
  const functions = fs as unknown as { writeSync: WriteSync; fdatasyncSync: (fd: number) => void };
  const sync = functions.fdatasyncSync;
  functions.writeSync = replaced;
  functions.fdatasyncSync = (fd) => {
    sync(fd);
    onSync(fd);
  };
  syncBuiltinESMExports();
  try {
    return await work();
  } finally {
    functions.writeSync = real;
    functions.fdatasyncSync = sync;
    syncBuiltinESMExports();
  }
}

/** Up to this size a write is done whole or not at all, when the process is killed. */
const WHOLE_BYTES = 128;

/** Runs `work`; its Nth write, counted from 1, is done by half and is its last. True when that came about. */
export async function killedAtWrite(n: number, work: () => Promise<unknown>): Promise<boolean> {
  let count = 0;
  const onWrite = ({ fd, bytes, position }: Write, real: WriteSync): undefined => {
    if (++count < n) return undefined;
    // Nothing is written after a death, whoever catches it.
    if (count === n && bytes.length > WHOLE_BYTES) real(fd, bytes, 0, bytes.length >> 1, position);
    throw new Killed();
  };
  try {
    await watchingWrites(onWrite, work);
    return false;
  } catch (error) {
    if (count < n) throw error;
    return true;
  }
}

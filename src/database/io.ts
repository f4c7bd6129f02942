import { readSync, writeSync } from "node:fs";

/**
 * Buffers that all databases of the process share. They are filled and used within one synchronous stretch of code
 * only, so no database needs one of its own.
 */
export const SHARED_BUFFER_BYTES = 512 * 1024;

const shared = Buffer.allocUnsafeSlow(SHARED_BUFFER_BYTES);
const sharedWords = new Int32Array(shared.buffer);

/** Content is lost at the next `await`. */
export function sharedBuffer(): { readonly bytes: Buffer; readonly words: Int32Array } {
  return { bytes: shared, words: sharedWords };
}

/** Reads `length` bytes at `position` into the start of `into`; returns how many there were before the file's end. */
export function readAt(fd: number, into: Uint8Array, length: number, position: number): number {
  let done = 0;
  while (done < length) {
    const n = readSync(fd, into, done, length - done, position + done);
    if (n === 0) break;
    done += n;
  }
  return done;
}

/** Writes all of `length` bytes from `offset`: `pwrite` may write less without an error when the disk is nearly full. */
export function writeAt(fd: number, from: Uint8Array, offset: number, length: number, position: number): void {
  let done = 0;
  while (done < length) {
    const n = writeSync(fd, from, offset + done, length - done, position + done);
    if (n === 0) throw Object.assign(new Error("write returned 0"), { code: "EIO" });
    done += n;
  }
}

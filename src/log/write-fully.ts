import { writeSync } from "node:fs";

/** Writes all of `bytes`: `pwrite` may write less without an error when the disk is nearly full. */
export function writeFully(fd: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length;) {
    const n = writeSync(fd, bytes, done, bytes.length - done, position + done);
    if (n === 0) throw Object.assign(new Error("write returned 0"), { code: "ENOSPC" });
    done += n;
  }
}

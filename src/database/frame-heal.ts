import {
  bigEndianValue,
  FRAME_HEADER_BYTES,
  frameOffset,
  signFrame,
  WAL_HEADER_BYTES,
  WalChecksum,
} from "../sqlite/wal.ts";
import { HEADER_COPIES_BYTES } from "../sqlite/wal-index.ts";
import type { Capture } from "./capture.ts";
import type { DatabaseFiles } from "./files.ts";
import type { HeldLocks } from "./held-locks.ts";
import { readAt, SHARED_BUFFER_BYTES, sharedBuffer, writeAt } from "./io.ts";

/**
 * Gives committed frames that SQLite left without salts and checksum (`FrameScanner`) the ones they should have, as
 * wal.c's `walRewriteChecksums` would have done. Without that, a crash of all applications would lose every commit
 * behind them, and a backfill would make it a damaged database: recovery would lay the older frames over newer pages.
 *
 * Readers never look at a frame's header, and writers continue from the wal-index, which is changed last and in one
 * write; killed before that, the frames are no worse than they were. False when a writer holds the lock.
 */
export function healFrames(files: DatabaseFiles, locks: HeldLocks, capture: Capture): boolean {
  if (!locks.tryWrite()) return false;
  try {
    if (capture.look() === "torn") return false;
    capture.advance();
    if (capture.unsummed === 0) return true;
    const sum = sumBefore(files, capture);
    signFrom(files, capture, sum);
    capture.healed(sum.s1, sum.s2);
    capture.image.put(capture.header);
    writeAt(files.shm, capture.image.bytes, 0, HEADER_COPIES_BYTES, 0);
    return true;
  } finally {
    locks.releaseWrite();
  }
}

/** The checksum that the first frame to be signed continues: it stands in the frame before, or in the WAL's header. */
function sumBefore(files: DatabaseFiles, capture: Capture): WalChecksum {
  const first = capture.unsummed;
  const at = first === 1 ? WAL_HEADER_BYTES - 8 : frameOffset(first - 1, capture.pageSize) + 16;
  const { bytes, words } = sharedBuffer();
  readAt(files.wal, bytes, 8, at);
  const sum = new WalChecksum();
  sum.set(bigEndianValue(words[0]!), bigEndianValue(words[1]!));
  return sum;
}

function signFrom(files: DatabaseFiles, capture: Capture, sum: WalChecksum): void {
  const { pageSize, place, header } = capture;
  const generation = { salt1: place.salt1, salt2: place.salt2, bigEndian: header.bigEndian };
  const { bytes, words } = sharedBuffer();
  const frameBytes = FRAME_HEADER_BYTES + pageSize;
  const chunk = Math.floor(SHARED_BUFFER_BYTES / frameBytes);
  for (let first = capture.unsummed; first <= place.frame; first += chunk) {
    const count = Math.min(chunk, place.frame - first + 1);
    const offset = frameOffset(first, pageSize);
    const read = readAt(files.wal, bytes, count * frameBytes, offset);
    if (read < count * frameBytes) throw Object.assign(new Error("the WAL ends inside a frame"), { code: "EIO" });
    for (let i = 0; i < count; i++) {
      const at = i * frameBytes;
      signFrame(words, at / 4, pageSize, generation, sum);
      writeAt(files.wal, bytes, at, FRAME_HEADER_BYTES, offset + at);
    }
  }
}

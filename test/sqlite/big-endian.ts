import { FRAME_HEADER_BYTES, WAL_HEADER_BYTES } from "../../src/sqlite/wal.ts";

/** The same WAL as a big-endian machine would have written it. Sums by SQLite's description of the format. */
export function toBigEndian(wal: Buffer, pageSize: number): Buffer {
  const out = Buffer.from(wal);
  let a = 0;
  let b = 0;
  const add = (bytes: Buffer): void => {
    for (let i = 0; i < bytes.length; i += 8) {
      a = (a + bytes.readUInt32BE(i) + b) >>> 0;
      b = (b + bytes.readUInt32BE(i + 4) + a) >>> 0;
    }
  };
  out.writeUInt32BE(0x377f0683, 0);
  add(out.subarray(0, 24));
  out.writeUInt32BE(a, 24);
  out.writeUInt32BE(b, 28);
  const size = FRAME_HEADER_BYTES + pageSize;
  for (let at = WAL_HEADER_BYTES; at + size <= out.length; at += size) {
    add(out.subarray(at, at + 8));
    add(out.subarray(at + FRAME_HEADER_BYTES, at + size));
    out.writeUInt32BE(a, at + 16);
    out.writeUInt32BE(b, at + 20);
  }
  return out;
}

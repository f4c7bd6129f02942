import { createRequire } from "node:module";
import { expect } from "vitest";
import { Crc64 } from "../../src/ltx/crc64.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { CHECKSUM_FLAG, encodeHeader, type LtxHeader } from "../../src/ltx/header.ts";
import { IndexBuilder } from "../../src/ltx/page-index.ts";
import { recordHeader, type RecordFields } from "../../src/ltx/record.ts";

export const fields: RecordFields = {
  position: (7n << 32n) | 12n,
  checksum: 0xfeed_beef_0102_0304n,
  epoch: 7,
  writer: 0x1234_5678_9abc_def0n,
  members: [3, 65535],
};

export function header(pageSize: number, pageCount: number, txid: number): LtxHeader {
  return recordHeader({ pageSize, pageCount, minTxid: txid, maxTxid: txid, timestampMs: 1_700_000_000_123 }, fields);
}

/** Half noise, half repetition. */
export function content(pageSize: number, seed: number): Uint8Array {
  let state = seed | 1;
  return new Uint8Array(pageSize).map((_, i) => {
    state = Math.imul(state, 1664525) + 1013904223;
    return i % 64 < 32 ? state >>> 24 : i % 7;
  });
}

export function encode(head: LtxHeader, pages: ReadonlyMap<number, Uint8Array>): Uint8Array {
  const chunks: Uint8Array[] = [];
  const encoder = new LtxEncoder(head, (chunk) => chunks.push(chunk.slice()));
  for (const [pgno, page] of pages) encoder.page(pgno, page);
  const summary = encoder.finish();
  const file = new Uint8Array(Buffer.concat(chunks));
  expect(summary.sizeBytes).toBe(file.length);
  return file;
}

export interface Decoded {
  readonly head: LtxHeader;
  readonly pages: Map<number, Uint8Array>;
}

export function decode(file: Uint8Array, chunkBytes = file.length): Decoded {
  const pages = new Map<number, Uint8Array>();
  const decoder = new LtxDecoder("test", { page: (pgno, bytes) => void pages.set(pgno, Uint8Array.from(bytes)) });
  for (let at = 0; at < file.length; at += chunkBytes) decoder.push(file.slice(at, at + chunkBytes));
  return { head: decoder.end(), pages };
}

/** One frame of a page: what stands between its number and the next frame, and whether it has a size. */
export interface Frame {
  readonly pgno: number;
  readonly page: Uint8Array;
  readonly payload: Uint8Array;
  readonly sized: boolean;
}

/** A file put together frame by frame, with a checksum over it in one piece: what it says is right, whatever it says. */
export function assembleFile(head: LtxHeader, frames: readonly Frame[]): Uint8Array {
  const parts: Uint8Array[] = [encodeHeader(head)];
  const crc = new Crc64().update(parts[0]!);
  const index = new IndexBuilder();
  let offset = parts[0]!.length;
  for (const { pgno, page, payload, sized } of frames) {
    const start = Buffer.alloc(sized ? 10 : 6);
    start.writeUInt32BE(pgno, 0);
    start.writeUInt16BE(sized ? 1 : 0, 4);
    if (sized) start.writeUInt32BE(payload.length, 6);
    crc.update(start).update(page);
    index.add(pgno, offset, start.length + payload.length);
    offset += start.length + payload.length;
    parts.push(start, payload);
  }
  const tail = Buffer.concat([index.finish(), Buffer.alloc(8)]);
  const checksum = Buffer.alloc(8);
  checksum.writeBigUInt64BE(crc.update(tail).value() | CHECKSUM_FLAG);
  return new Uint8Array(Buffer.concat([...parts, tail, checksum]));
}

interface FrameOptions {
  readonly contentChecksum?: boolean;
  readonly blockChecksums?: boolean;
}

/** The library itself, for what Sluice reads and never writes. */
export const lz4 = createRequire(import.meta.url)("lz4-napi") as {
  compressSync(bytes: Uint8Array): Buffer;
  compressFrameSync(bytes: Uint8Array, options?: FrameOptions): Buffer;
};

/** A page as Litestream up to 0.5.15 stores it. */
export function lz4Frame(pgno: number, page: Uint8Array): Frame {
  return { pgno, page, sized: false, payload: lz4.compressFrameSync(page, { contentChecksum: true }) };
}

export function lz4Block(pgno: number, page: Uint8Array): Frame {
  return { pgno, page, sized: true, payload: lz4.compressSync(page).subarray(4) };
}

import { SluiceError } from "../errors/error.ts";

/** Sizes and constants of LTX version 3, as Litestream 0.5 writes it (superfly/ltx, ltx.go). Integers are big-endian. */
export const HEADER_BYTES = 100;
export const PAGE_HEADER_BYTES = 6;
export const TRAILER_BYTES = 16;
/** Set in every checksum of LTX, so that none of them is 0. */
export const CHECKSUM_FLAG = 1n << 63n;
/** Header flag: the file carries no database checksums of LTX's own kind. Litestream requires it. */
export const FLAG_NO_CHECKSUM = 2;
/** Page flag: a size follows, and the payload is a raw LZ4 block; without it the payload is an LZ4 frame. */
export const PAGE_FLAG_SIZE = 1;
const MAGIC = 0x4c545831;
/** Where SQLite keeps its lock bytes (file format, section 1.4). */
const PENDING_BYTE = 0x40000000;

/** The header of an LTX file. */
export interface LtxHeader {
  readonly flags: number;
  /** Bytes. */
  readonly pageSize: number;
  /** Size of the database after it, in pages (`Commit`). */
  readonly pageCount: number;
  readonly minTxid: number;
  readonly maxTxid: number;
  readonly timestampMs: number;
  readonly preApplyChecksum: bigint;
  readonly walOffset: bigint;
  readonly walSize: bigint;
  readonly walSalt1: number;
  readonly walSalt2: number;
  readonly nodeId: bigint;
  /** 20 bytes. */
  readonly reserved: Uint8Array;
}

/** The page that holds SQLite's lock bytes and never content; 1-based. */
export function lockPage(pageSize: number): number {
  return PENDING_BYTE / pageSize + 1;
}

/** The 100 bytes of a header. Throws SLU-5000 for one that no reader would accept. */
export function encodeHeader(header: LtxHeader): Uint8Array {
  const problem = headerProblem(header);
  if (problem !== undefined) throw new SluiceError("SLU-5000", `LTX header: ${problem}`);
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.flags);
  view.setUint32(8, header.pageSize);
  view.setUint32(12, header.pageCount);
  view.setBigUint64(16, BigInt(header.minTxid));
  view.setBigUint64(24, BigInt(header.maxTxid));
  view.setBigInt64(32, BigInt(header.timestampMs));
  view.setBigUint64(40, header.preApplyChecksum);
  view.setBigInt64(48, header.walOffset);
  view.setBigInt64(56, header.walSize);
  view.setUint32(64, header.walSalt1);
  view.setUint32(68, header.walSalt2);
  view.setBigUint64(72, header.nodeId);
  bytes.set(header.reserved, 80);
  return bytes;
}

/** Reads a header. Throws SLU-5001 when these bytes don't begin an LTX file that Sluice understands. */
export function decodeHeader(bytes: Uint8Array, name = "LTX file"): LtxHeader {
  if (bytes.length < HEADER_BYTES) throw new SluiceError("SLU-5001", `${name} is cut off in its header`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.getUint32(0) !== MAGIC) throw new SluiceError("SLU-5001", `${name} doesn't begin as an LTX file`);
  const header: LtxHeader = {
    flags: view.getUint32(4),
    pageSize: view.getUint32(8),
    pageCount: view.getUint32(12),
    minTxid: Number(view.getBigUint64(16)),
    maxTxid: Number(view.getBigUint64(24)),
    timestampMs: Number(view.getBigInt64(32)),
    preApplyChecksum: view.getBigUint64(40),
    walOffset: view.getBigInt64(48),
    walSize: view.getBigInt64(56),
    walSalt1: view.getUint32(64),
    walSalt2: view.getUint32(68),
    nodeId: view.getBigUint64(72),
    reserved: bytes.slice(80, 100),
  };
  const problem = headerProblem(header);
  if (problem !== undefined) throw new SluiceError("SLU-5001", `${name}: ${problem}`);
  return header;
}

/** LTX's own rules (`Header.Validate`), and Sluice's limit of 2^53 − 1 for TXIDs. */
function headerProblem(header: LtxHeader): string | undefined {
  const { flags, pageSize, pageCount, minTxid, maxTxid, preApplyChecksum: pre } = header;
  const noChecksum = (flags & FLAG_NO_CHECKSUM) !== 0;
  if ((flags & ~FLAG_NO_CHECKSUM) !== 0) return `unknown flags ${flags}`;
  if (pageSize < 512 || pageSize > 65536 || (pageSize & (pageSize - 1)) !== 0) return `page size ${pageSize}`;
  if (!Number.isSafeInteger(maxTxid) || minTxid < 1 || maxTxid < minTxid) return `TXIDs ${minTxid} to ${maxTxid}`;
  if (pageCount === 0 && noChecksum) return "a database of no pages";
  if (!Number.isSafeInteger(header.timestampMs)) return "timestamp";
  if ((minTxid === 1 || noChecksum) && pre !== 0n) return "a checksum before it where none may be";
  if (minTxid > 1 && !noChecksum && (pre & CHECKSUM_FLAG) === 0n) return "no checksum before it";
  if (header.walOffset < 0n || header.walSize < 0n) return "negative WAL range";
  if (header.walOffset === 0n && (header.walSize !== 0n || header.walSalt1 !== 0 || header.walSalt2 !== 0))
    return "a WAL range without an offset";
  return undefined;
}

import { SluiceError } from "../errors/error.ts";
import { FLAG_NO_CHECKSUM, type LtxHeader } from "./header.ts";
import type { Position } from "./position.ts";

/** Where Litestream looks for the next WAL frame; it needs a value from 32 on to continue a log (`verify`). */
const WAL_OFFSET = 32n;

/** What Sluice says in the header of a record, in fields that Litestream ignores (protocol section 7). */
export interface RecordFields {
  /** Name of the state after it. */
  readonly position: Position;
  /** Database checksum after it (protocol section 6). */
  readonly checksum: bigint;
  /** Epoch of the writer. Equal to the TXID: a takeover record. */
  readonly epoch: number;
  /** 64 random bits, drawn for each takeover attempt; never 0. */
  readonly writer: bigint;
  /** The lives that may take over, up to three u16, none of them 0. */
  readonly members: readonly number[];
}

/** The header of a record, or of a file that ends with one. */
export function recordHeader(
  file: Pick<LtxHeader, "pageSize" | "pageCount" | "minTxid" | "maxTxid" | "timestampMs">,
  fields: RecordFields,
): LtxHeader {
  if (fields.members.length > 3) throw new SluiceError("SLU-5000", "a record names at most three members");
  if (fields.writer === 0n || fields.epoch === 0) throw new SluiceError("SLU-5000", "a record needs a writer");
  const reserved = new Uint8Array(20);
  const view = new DataView(reserved.buffer);
  view.setBigUint64(0, fields.checksum);
  fields.members.forEach((member, i) => view.setUint16(8 + 2 * i, member));
  view.setUint32(16, fields.epoch);
  return {
    ...file,
    flags: FLAG_NO_CHECKSUM,
    preApplyChecksum: 0n,
    walOffset: WAL_OFFSET,
    walSize: 0n,
    walSalt1: Number(fields.writer >> 32n),
    walSalt2: Number(fields.writer & 0xffffffffn),
    nodeId: fields.position,
    reserved,
  };
}

/** Sluice's fields of a header; undefined for a file of Litestream, which has no epoch. */
export function recordFields(header: LtxHeader): RecordFields | undefined {
  const view = new DataView(header.reserved.buffer, header.reserved.byteOffset, 20);
  const epoch = view.getUint32(16);
  const writer = (BigInt(header.walSalt1) << 32n) | BigInt(header.walSalt2);
  if (epoch === 0 || writer === 0n || header.nodeId === 0n || header.walOffset !== WAL_OFFSET) return undefined;
  const members = [8, 10, 12].map((offset) => view.getUint16(offset)).filter((member) => member !== 0);
  return { position: header.nodeId, checksum: view.getBigUint64(0), epoch, writer, members };
}

/** Whether a record of slot `txid` is a takeover record. */
export function isTakeover(txid: number, fields: RecordFields): boolean {
  return fields.epoch === txid;
}

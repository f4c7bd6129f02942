import { isSluiceError, SluiceError } from "../errors/error.ts";
import { decodeHeader, HEADER_BYTES } from "../ltx/header.ts";
import { NOTHING, type Position } from "../ltx/position.ts";
import { recordFields } from "../ltx/record.ts";
import type { LogContext } from "./context.ts";
import type { LogFile } from "./listing.ts";
import { readRange } from "./read-object.ts";

/** What the header of a file in the log says about the last record in it. */
export interface RecordInfo {
  readonly minTxid: number;
  readonly maxTxid: number;
  readonly timestampMs: number;
  /** Epoch of the writer; 0 for a file that Sluice did not write. */
  readonly epoch: number;
  /** Name of the state after it; NOTHING for a file that Sluice did not write. */
  readonly position: Position;
  readonly writer: bigint;
  /** Lives that may take over behind it; none: every node may (protocol section 7, Takeover 3). */
  readonly members: readonly number[];
}

/**
 * Reads the header of a file: one request for 100 bytes. Rejects with SLU-4111 when it contradicts the file's name or
 * is none, and as the store's `get` does.
 */
export async function readRecord(context: LogContext, file: LogFile, signal: AbortSignal): Promise<RecordInfo> {
  const bytes = await readRange(context.store, file.key, { offset: 0, length: HEADER_BYTES }, signal);
  const name = `${context.url}: ${file.key}`;
  let header;
  try {
    header = decodeHeader(bytes, name);
  } catch (cause) {
    if (!isSluiceError(cause)) throw cause;
    throw new SluiceError("SLU-4111", cause.message, { cause });
  }
  const { minTxid, maxTxid, timestampMs } = header;
  if (minTxid !== file.minTxid || maxTxid !== file.maxTxid) {
    throw new SluiceError("SLU-4111", `${name} has the TXIDs ${minTxid} to ${maxTxid} in its header`);
  }
  const fields = recordFields(header);
  const { epoch = 0, position = NOTHING, writer = 0n, members = [] } = fields ?? {};
  return { minTxid, maxTxid, timestampMs, epoch, position, writer, members };
}

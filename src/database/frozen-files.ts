import { closeSync, fstatSync, openSync } from "node:fs";
import { isSluiceError } from "../errors/error.ts";
import { decodeHeader, HEADER_BYTES, type LtxHeader } from "../ltx/header.ts";
import { recordFields } from "../ltx/record.ts";
import type { FrozenBatch } from "./contract.ts";
import { readAt } from "./io.ts";
import type { PersistedState, StateFile } from "./state.ts";

/** No database has this checksum, but for an accident of 2^-64. */
const NO_STATE = 1n;

/**
 * At start: do the files of the batches that wait to be sent say what the state says of them?
 *
 * - The last one may have been sealed anew, larger, and Sluice was killed before the state said so. Then the file
 *   counts, and the WAL does not show where it ends.
 * - A file that is gone or damaged takes the batches behind it along: what they held is in the database, all of whose
 *   pages count as changed then.
 */
export async function checkFrozen(file: StateFile): Promise<void> {
  const { state } = file;
  if (state === undefined) return;
  const found = state.frozen.map((batch) => read(batch));
  const bad = found.findIndex((header, i) => !isOf(header, state.frozen[i]!, i === found.length - 1));
  if (bad >= 0) {
    await file.write(withoutFrom(state, bad));
    return;
  }
  const last = state.frozen.at(-1);
  const header = found.at(-1);
  if (last === undefined || header === undefined || header.nodeId === last.position) return;
  const grown = { ...last, ...described(header) };
  await file.write({
    ...state,
    frozen: [...state.frozen.slice(0, -1), grown],
    sealedPosition: grown.position,
    sealedChecksum: grown.checksum,
    sealedTimestampMs: grown.timestampMs,
    sealedSize: header.pageCount,
    place: undefined,
    clean: undefined,
  });
}

interface Found extends LtxHeader {
  readonly sizeBytes: number;
}

function read(batch: FrozenBatch): Found | undefined {
  let fd;
  try {
    fd = openSync(batch.path, "r");
    const bytes = new Uint8Array(HEADER_BYTES);
    if (readAt(fd, bytes, HEADER_BYTES, 0) < HEADER_BYTES) return undefined;
    return { ...decodeHeader(bytes, batch.path), sizeBytes: fstatSync(fd).size };
  } catch (error) {
    if (isSluiceError(error) || (error instanceof Error && "code" in error)) return undefined;
    throw error;
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}

function isOf(header: Found | undefined, batch: FrozenBatch, isLast: boolean): boolean {
  if (header === undefined || header.maxTxid !== batch.txid || header.minTxid !== batch.txid) return false;
  const fields = recordFields(header);
  if (fields?.epoch !== batch.epoch) return false;
  if (fields.position === batch.position) return header.sizeBytes === batch.sizeBytes;
  return isLast && fields.position > batch.position;
}

function described(header: Found): Pick<FrozenBatch, "position" | "checksum" | "timestampMs" | "sizeBytes"> {
  const { position, checksum } = recordFields(header)!;
  return { position, checksum, timestampMs: header.timestampMs, sizeBytes: header.sizeBytes };
}

/** The state without the batches from `from` on; its checksum is that of no state, so nothing is believed unseen. */
function withoutFrom(state: PersistedState, from: number): PersistedState {
  const frozen = state.frozen.slice(0, from);
  const takeover = frozen.some((batch) => batch.txid === state.takeover) ? state.takeover : undefined;
  const sealedTxid = frozen.at(-1)?.txid ?? state.confirmed.txid;
  return { ...state, frozen, takeover, sealedTxid, sealedChecksum: NO_STATE, place: undefined, clean: undefined };
}

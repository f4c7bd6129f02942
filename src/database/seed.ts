import type { Position } from "../ltx/position.ts";
import { fileMark } from "./files.ts";
import { PageSums } from "./page-sums.ts";
import { emptyState, StateFile } from "./state.ts";
import { saveSums } from "./sums-file.ts";

/** What a restored file is, as its log says. */
export interface RestoredFile {
  readonly logId: string;
  readonly nodeId: string;
  readonly txid: number;
  readonly position: Position;
  readonly epoch: number;
  readonly timestampMs: number;
  readonly checksum: bigint;
  readonly pageCount: number;
  /** Two words a page, as `PageSums` has them. */
  readonly sums: Int32Array;
}

/**
 * Remembers of a database that was restored, and is about to be put in place, what a node must know to go on from it
 * without a new snapshot. In this order a kill leaves a state without its file, which is restored again, or a file
 * with its state; never a file that nobody knows. Throws SLU-2008 to SLU-2010.
 */
export async function seedState(stateDir: string, file: RestoredFile): Promise<void> {
  const store = new StateFile(stateDir);
  try {
    const { logId, nodeId, txid, position, timestampMs, epoch } = file;
    await store.write({
      ...emptyState,
      logId,
      nodeId,
      confirmed: { txid, position, timestampMs },
      sealedTxid: txid,
      sealedPosition: position,
      sealedTimestampMs: timestampMs,
      sealedSize: file.pageCount,
      sealedChecksum: file.checksum,
      epoch,
    });
    await saveSums(stateDir, txid, new PageSums(file.sums, file.pageCount));
  } finally {
    store.close();
  }
}

/** The file is in place and nobody has opened it yet: the next start need not look at its pages. */
export async function markSeeded(stateDir: string, path: string): Promise<void> {
  const store = new StateFile(stateDir);
  try {
    const { state } = store;
    const clean = fileMark(path);
    if (state !== undefined) await store.write({ ...state, clean });
  } finally {
    store.close();
  }
}

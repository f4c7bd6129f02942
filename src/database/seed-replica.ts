import type { AppliedState } from "./applied-journal.ts";
import { AppliedJournal } from "./applied-journal.ts";
import { PageSums } from "./page-sums.ts";
import type { RecordName } from "./replication.ts";
import { emptyState, StateFile } from "./state.ts";
import { saveSums } from "./sums-file.ts";

/** What a file that was copied from a primary is. */
export interface CopiedFile extends AppliedState {
  readonly logId: string;
  readonly nodeId: string;
  readonly pageSize: number;
  /** The last record that it holds. */
  readonly record: RecordName;
  /** Two words a page, as `PageSums` has them. */
  readonly sums: Int32Array;
}

/**
 * Remembers of a database that was copied from a primary, and is about to be put in place, what a replica must know to
 * follow from it. A kill before the file is in place leaves a state without its file, which is copied again. Throws
 * SLU-2008 to SLU-2010.
 */
export async function seedReplica(stateDir: string, file: CopiedFile): Promise<void> {
  const { logId, nodeId, pageSize, record, position, checksum, pageCount } = file;
  const { txid, timestampMs, epoch } = record;
  const store = new StateFile(stateDir);
  try {
    await store.write({
      ...emptyState,
      logId,
      nodeId,
      pageSize,
      confirmed: { txid, position: record.position, timestampMs },
      epoch,
      following: true,
    });
    await saveSums(stateDir, txid, new PageSums(file.sums, pageCount));
  } finally {
    store.close();
  }
  const journal = new AppliedJournal(stateDir);
  try {
    journal.restart({ position, checksum, pageCount });
  } finally {
    journal.close();
  }
}

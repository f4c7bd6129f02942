import { SluiceError } from "../errors/error.ts";
import { seqOf } from "../ltx/position.ts";
import { AppliedJournal } from "./applied-journal.ts";
import { Batches } from "./batches.ts";
import { ChangedPages } from "./changed-pages.ts";
import { Followed } from "./followed.ts";
import { OpenBatch } from "./open-batch.ts";
import { bootId } from "./boot.ts";
import type { Started } from "./starting.ts";
import { emptyState } from "./state.ts";
import { saveSums } from "./sums-file.ts";

/**
 * The books of a primary become those of a replica: what is sealed and not in the log, and what isn't sealed, is on top
 * of the last confirmed record. The gate is closed and everything captured. Nothing on disk changes.
 */
export async function toFollowed(parts: Pick<Started, "wal" | "file">, batches: Batches): Promise<Followed> {
  const { wal, file } = parts;
  const { position, logState, state } = batches;
  const { pages, sums } = await batches.unconfirmed();
  const changed = new ChangedPages();
  const seq = seqOf(position);
  for (const page of pages) changed.add(page, seq);
  const journal = new AppliedJournal(file.dir);
  journal.restart({ position, checksum: sums.checksum, pageCount: sums.count });
  const confirmed = logState?.confirmed;
  const record = confirmed === undefined || confirmed.txid === 0 ? undefined : { ...confirmed, epoch: state.epoch };
  return new Followed({ file, wal, journal, sums, changed, position, record });
}

/**
 * The books of a replica become those of a primary that has not begun an epoch yet: what it has on top of the last record
 * is its open batch. Throws SLU-2021 when it isn't known which state it is: it may be older than the log. On disk it goes on as a replica until its takeover record is frozen.
 */
export async function toBatches(parts: Pick<Started, "wal" | "file">, followed: Followed): Promise<Batches> {
  const { wal, file } = parts;
  const { sums, record, changed, position, journal } = followed;
  if (!followed.isKnown) {
    throw new SluiceError("SLU-2021", `${wal.files.path} is no state that its journal knows`);
  }
  const txid = record?.txid ?? 0;
  await saveSums(file.dir, txid, sums);
  const open = new OpenBatch(sums.count, wal.capture.frame);
  if (changed.isEverything) open.everything();
  else
    open.differs(
      [...changed.numbers].filter((page) => page <= sums.count),
      sums.count,
    );
  open.open();
  const state = {
    ...(file.state ?? emptyState),
    ...(record && {
      confirmed: { txid, position: record.position, timestampMs: record.timestampMs },
      sealedPosition: record.position,
      sealedTimestampMs: record.timestampMs,
    }),
    sealedTxid: txid,
    pageSize: wal.pageSize,
    sealedSize: sums.count,
    sealedChecksum: sums.checksum,
    place: undefined,
    frozen: [],
    takeover: undefined,
  };
  journal.close();
  return new Batches({ file, wal, open, sums, commits: 0, isUncounted: false, bootId: bootId(), state, position });
}

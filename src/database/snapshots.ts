import { SluiceError } from "../errors/error.ts";
import type { Batches } from "./batches.ts";
import type { DatabaseSnapshot } from "./contract.ts";
import type { DatabaseLimits } from "./limits.ts";
import type { LiveWal } from "./live-wal.ts";

interface Open {
  readonly controller: AbortController;
  readonly release: () => void;
  readonly startBytes: number;
}

/**
 * The consistent pictures that are being read (protocol section 4). While there is one nothing is backfilled, so each is
 * bounded by time and by how far the WAL grows: past that it is given up, not the writers.
 */
export class Snapshots {
  readonly #wal: LiveWal;
  readonly #batches: Batches;
  readonly #limits: DatabaseLimits;
  readonly #open = new Set<Open>();

  constructor(wal: LiveWal, batches: Batches, limits: DatabaseLimits) {
    this.#wal = wal;
    this.#batches = batches;
    this.#limits = limits;
  }

  /** One at the cut of the last sealed batch; seals first. To be called from the database's queue. */
  async take(): Promise<DatabaseSnapshot> {
    await this.#batches.freeze();
    const { state } = this.#batches;
    const controller = new AbortController();
    const resume = this.#wal.pause();
    const view = this.#wal.view(this.#wal.durable, state.sealedSize);
    const timer = setTimeout(() => this.#giveUp(open, "it took too long"), this.#limits.snapshotMs);
    const open: Open = {
      controller,
      startBytes: this.#wal.bytes,
      release: () => {
        clearTimeout(timer);
        if (this.#open.delete(open)) resume();
      },
    };
    this.#open.add(open);
    const { signal } = controller;
    return {
      txid: state.sealedTxid,
      epoch: state.epoch,
      writer: state.writer,
      position: state.sealedPosition,
      checksum: state.sealedChecksum,
      timestampMs: state.sealedTimestampMs,
      pageSize: view.pageSize,
      pageCount: view.pageCount,
      signal,
      read: async (firstPage, into) => {
        signal.throwIfAborted();
        await view.read(firstPage, into);
        // A backfill may have begun while the pages were being read.
        signal.throwIfAborted();
      },
      release: open.release,
    };
  }

  /** Called after each capture: gives up what has let the WAL grow too far. */
  check(): void {
    for (const open of this.#open) {
      if (this.#wal.bytes - open.startBytes > this.#limits.snapshotBytes) this.#giveUp(open, "the WAL grew too far");
    }
  }

  /** Gives all of them up. */
  abort(why: string): void {
    for (const open of this.#open) this.#giveUp(open, why);
  }

  #giveUp(open: Open, why: string): void {
    open.controller.abort(new SluiceError("SLU-2012", `${this.#wal.files.path}: ${why}`));
    open.release();
  }
}

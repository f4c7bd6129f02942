import type { DatabaseSnapshot } from "../database/contract.ts";

export interface MergedFile {
  readonly minTxid: number;
  readonly maxTxid: number;
  /** Header time of the last input. */
  readonly timestampMs: number;
  readonly sizeBytes: number;
}

/** Heavy work on LTX files, done away from the event loop. */
export interface LtxWork {
  /** Merges LTX files, oldest first, into a new one with the header of the last. */
  merge(inputs: readonly string[], output: string, signal: AbortSignal): Promise<MergedFile>;
  /** The level-9 file of a snapshot, in order; a part is valid until the next is asked for. */
  encodeSnapshot(snapshot: DatabaseSnapshot): AsyncIterable<Uint8Array>;
}

import type { LogContext } from "../log/context.ts";
import { endOfEpoch } from "../log/place.ts";
import { epochOf, type Position } from "../ltx/position.ts";

const KNOWN_MAX = 1024;

/**
 * Where the epochs of one database ended (protocol section 7): what a takeover record names, everything above it is not in
 * the history. Seen as records come; older ones are looked for in the log, once.
 */
export class EpochEnds {
  readonly #context: LogContext;
  readonly #ends = new Map<number, Position | undefined>();

  constructor(context: LogContext) {
    this.#context = context;
  }

  /** A takeover record with this position is in the log: the position's epoch has ended there. */
  note(position: Position): void {
    if (this.#ends.size >= KNOWN_MAX) this.#ends.clear();
    this.#ends.set(epochOf(position), position);
  }

  /** The last position of an epoch; undefined while it has not ended, or where the log doesn't know it. */
  async of(epoch: number, signal: AbortSignal): Promise<Position | undefined> {
    if (!this.#ends.has(epoch)) {
      const end = await endOfEpoch(this.#context, epoch, signal);
      if (end === undefined) return undefined;
      this.#ends.set(epoch, end);
    }
    return this.#ends.get(epoch);
  }
}

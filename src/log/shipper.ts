import type { FrozenBatch, LoggedDatabase, LogState } from "../database/contract.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { formatPosition, NOTHING, seqOf, type Position } from "../ltx/position.ts";
import { append } from "./append.ts";
import { Backoff, stopped, type LogContext } from "./context.ts";
import { formatTxid } from "./layout.ts";

/** Commits of one epoch before its primary takes over from itself; half of what a position has room for. */
const EPOCH_COMMITS_MAX = 2 ** 31 - 2 ** 20;

/** Waiters that go on in one turn of the event loop: behind each is an answer to be sent, about a tenth of a millisecond. */
const RELEASED_A_TURN = 32;

export interface ShipperOptions {
  readonly context: LogContext;
  readonly database: LoggedDatabase;
  /** How long a commit may wait for its batch to be sealed when nobody waits for it. */
  readonly syncIntervalMs: number;
  /** Told of each record right after it was confirmed. */
  readonly onConfirmed: (batch: FrozenBatch) => void;
  /** The log is another's, or can't be written any more; called once, after all waiters have failed. */
  readonly onEnded: (error: SluiceError) => void;
  readonly drawWriter: () => bigint;
  /** Default: EPOCH_COMMITS_MAX. */
  readonly epochCommitsMax?: number;
}

/** How far a log is, for status and metrics. */
export interface ShipperStatus {
  readonly confirmed: LogState["confirmed"];
  /** When the last record was confirmed (this node's clock), ms since 1970; undefined before the first of this life. */
  readonly confirmedAtMs: number | undefined;
  /** Since when the oldest commit that is not in the log has been waiting; undefined when everything is. */
  readonly behindSinceMs: number | undefined;
  readonly frozen: number;
  readonly waiters: number;
}

interface Waiter {
  readonly position: Position;
  readonly resolve: () => void;
  readonly reject: (error: SluiceError) => void;
}

/**
 * Ships what one database commits to its log, in a begun epoch.
 *
 * - **idle**: everything captured is confirmed. No timer, no request. Left by a capture (*armed*), by a batch that
 *   the database sealed on its own, or by somebody who waits for more than is confirmed (*busy*).
 * - **armed**: something is to be sealed; a timer of `syncIntervalMs` runs. Left when it fires, or as above (*busy*).
 * - **busy**: the oldest sealed batch is appended, and nothing else meanwhile; confirmed, it releases the waiters at
 *   or below its position. Then what piled up is sealed, if the timer has fired or somebody waits for it. Left when
 *   neither is so (*idle*, *armed*), when a slot is lost or a sealed file is damaged (*ended*), by `stop` (*ended*).
 * - **ended**: every waiter has failed as unknown; nothing is sent any more. Sealed batches stay for the next life.
 */
export class Shipper {
  readonly #options: ShipperOptions;
  readonly #abort = new AbortController();
  /** In order of their positions. */
  #waiters: Waiter[] = [];
  #cancelTimer: (() => void) | undefined;
  #due = false;
  #running: Promise<void> | undefined;
  #ended = false;
  #confirmedAtMs: number | undefined;
  #behindSinceMs: number | undefined;
  /** When each batch that is not confirmed was sealed. */
  readonly #sealedAtMs = new Map<number, number>();
  /** A takeover from itself that is not begun yet. */
  #renewal: { readonly txid: number; readonly writer: bigint } | undefined;

  constructor(options: ShipperOptions) {
    this.#options = options;
  }

  /** Begins with whatever is captured or sealed already. */
  start(): void {
    const { database } = this.#options;
    const { context } = this.#options;
    database.onFrozen = ({ txid, position, sizeBytes }) => {
      this.#sealedAtMs.set(txid, context.clock.now());
      context.onEvent({ type: "sealed", txid, position, sizeBytes });
      this.#wake();
    };
    database.onCaptured = () => this.#captured();
    if (database.frozen.length > 0) this.#wake();
    else if (database.position > this.#confirmed) this.#captured();
  }

  /**
   * Resolves when every commit up to `position` is in the log; seals at once if need be. Rejects with SLU-4109 when
   * the log ends before (the outcome is unknown then), or with the reason of `signal`.
   */
  waitFor(position: Position, signal?: AbortSignal): Promise<void> {
    if (position <= this.#confirmed) return Promise.resolve();
    if (this.#ended) return Promise.reject(stopped(this.#options.context));
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    return new Promise((resolve, reject) => {
      const aborted = (): void => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        reject(signal?.reason as Error);
      };
      const leave = (): void => signal?.removeEventListener("abort", aborted);
      const waiter: Waiter = {
        position,
        resolve: () => (leave(), resolve()),
        reject: (error) => (leave(), reject(error)),
      };
      signal?.addEventListener("abort", aborted, { once: true });
      let at = this.#waiters.length;
      while (at > 0 && this.#waiters[at - 1]!.position > position) at--;
      this.#waiters.splice(at, 0, waiter);
      this.#wake();
    });
  }

  /** Captures what is committed now and resolves when it's in the log; rejects as `waitFor` does. */
  async drain(signal?: AbortSignal): Promise<void> {
    await this.waitFor(this.#options.database.captureNow(), signal);
  }

  /** Stops sending and fails every waiter as unknown; resolves when nothing runs any more. */
  async stop(): Promise<void> {
    this.#end(stopped(this.#options.context));
    await this.#running;
  }

  get status(): ShipperStatus {
    const { database } = this.#options;
    return {
      confirmed: this.#state.confirmed,
      confirmedAtMs: this.#confirmedAtMs,
      behindSinceMs: this.#behindSinceMs,
      frozen: database.frozen.length,
      waiters: this.#waiters.length,
    };
  }

  get #state(): LogState {
    const { database } = this.#options;
    const state = database.logState;
    if (state === undefined) throw new SluiceError("SLU-4000", `${database.path}: an epoch without state`);
    return state;
  }

  get #confirmed(): Position {
    return this.#options.database.logState?.confirmed.position ?? NOTHING;
  }

  #captured(): void {
    if (this.#ended) return;
    this.#behindSinceMs ??= this.#options.context.clock.now();
    if (this.#cancelTimer === undefined && !this.#due) {
      this.#cancelTimer = this.#options.context.clock.schedule(this.#options.syncIntervalMs, () => {
        this.#cancelTimer = undefined;
        this.#due = true;
        this.#wake();
      });
    }
    if (this.#isAwaited) this.#wake();
  }

  /** Whether somebody waits for a commit that is captured and not sealed. */
  get #isAwaited(): boolean {
    const first = this.#waiters[0];
    return first !== undefined && first.position <= this.#options.database.position;
  }

  #wake(): void {
    if (this.#ended || this.#running !== undefined) return;
    this.#running = this.#run().finally(() => {
      this.#running = undefined;
      // What came while the loop was on its way out.
      if (this.#hasWork) this.#wake();
    });
  }

  get #hasWork(): boolean {
    if (this.#ended) return false;
    const sealed = this.#options.database.frozen.length > 0 || this.#renewal !== undefined;
    return sealed || this.#due || this.#isAwaited;
  }

  async #run(): Promise<void> {
    const { context, database } = this.#options;
    const { signal } = this.#abort;
    let backoff: Backoff | undefined;
    while (this.#hasWork) {
      try {
        const batch = database.frozen[0];
        if (batch !== undefined) await this.#ship(batch);
        else if (this.#renewal !== undefined) await this.#beginRenewed(this.#renewal);
        else await this.#seal();
        backoff = undefined;
      } catch (error) {
        if (this.#ended) return;
        if (isFinal(error)) {
          this.#end(error);
          this.#options.onEnded(error);
          return;
        }
        // The disk is full, or the like: everything is still there, so the step can be repeated.
        backoff ??= new Backoff(context, "seal or confirm");
        await backoff.wait(error, signal).catch(() => undefined);
      }
    }
  }

  async #seal(): Promise<void> {
    const { database, epochCommitsMax = EPOCH_COMMITS_MAX, drawWriter } = this.#options;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    this.#due = false;
    if (database.position <= this.#confirmed) return;
    const { txid, timestampMs } = this.#state.confirmed;
    if (seqOf(database.position) >= epochCommitsMax) {
      // A new epoch without a change of the primary: its names begin at 1 again.
      const writer = drawWriter();
      try {
        const batch = await database.freezeTakeover({ txid: txid + 1, writer, minTimestampMs: timestampMs });
        this.#renewal = { txid: batch.txid, writer };
      } catch (error) {
        // A batch that the database sealed for itself has come between: that goes first.
        if (database.frozen.length === 0) throw error;
      }
      return;
    }
    const batch = await database.freeze();
    // The database may have sealed for itself (a snapshot, a backfill) while this waited for its turn.
    if (batch === undefined && database.frozen.length === 0) {
      const open = formatPosition(database.position);
      throw new SluiceError("SLU-4000", `${database.path}: nothing to seal at ${open}, which is not confirmed`);
    }
  }

  async #beginRenewed({ txid, writer }: { readonly txid: number; readonly writer: bigint }): Promise<void> {
    const { context, database } = this.#options;
    await database.begin(txid, writer);
    this.#renewal = undefined;
    context.onEvent({ type: "taken-over", txid, position: database.position });
  }

  async #ship(batch: FrozenBatch): Promise<void> {
    const { context, database, onConfirmed } = this.#options;
    const startedMs = context.clock.now();
    const outcome = await append(context, batch, this.#abort.signal);
    if (outcome === "lost") throw lost(context, database, batch);
    await database.confirm(batch.txid);
    const { txid, position, sizeBytes } = batch;
    this.#confirmedAtMs = context.clock.now();
    // What this record does not hold was captured after it was sealed.
    this.#behindSinceMs = database.position > position ? (this.#sealedAtMs.get(txid) ?? startedMs) : undefined;
    this.#sealedAtMs.delete(txid);
    context.onEvent({ type: "appended", txid, position, sizeBytes, tookMs: this.#confirmedAtMs - startedMs });
    onConfirmed(batch);
    let released = 0;
    while (released < this.#waiters.length && this.#waiters[released]!.position <= position) released++;
    void release(this.#waiters.splice(0, released));
  }

  #end(error: SluiceError): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#abort.abort();
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    const unknown = isSluiceError(error, "SLU-4109")
      ? error
      : new SluiceError("SLU-4109", `${this.#options.context.url}: not confirmed`, { cause: error });
    for (const waiter of this.#waiters.splice(0)) waiter.reject(unknown);
  }
}

/** Lets confirmed waiters go on, with turns of the event loop for others in between: also for the next batch. */
async function release(waiters: readonly Waiter[]): Promise<void> {
  for (const [i, waiter] of waiters.entries()) {
    if (i > 0 && i % RELEASED_A_TURN === 0) await new Promise(setImmediate);
    waiter.resolve();
  }
}

/** What no repetition heals: the slot is another's, or Sluice's own rules are broken. */
function isFinal(error: unknown): error is SluiceError {
  return isSluiceError(error, "SLU-4101") || isSluiceError(error, "SLU-4108") || isSluiceError(error, "SLU-4000");
}

function lost(context: LogContext, database: LoggedDatabase, batch: FrozenBatch): SluiceError {
  const txid = formatTxid(batch.txid);
  return new SluiceError("SLU-4101", `${context.url}: TXID ${txid} is another writer's; ${database.path} stops here`);
}

import type { LoggedDatabase } from "../database/contract.ts";
import type { SluiceError } from "../errors/error.ts";
import type { Position } from "../ltx/position.ts";
import type { LogContext } from "./context.ts";
import { DEFAULT_LEVELS, type Level } from "./levels.ts";
import type { LtxWork } from "./ltx-work.ts";
import { DEFAULT_RETENTION, type RetentionLimits } from "./retention.ts";
import { Shipper, type ShipperStatus } from "./shipper.ts";
import { drawWriter, takeOver } from "./takeover.ts";
import { Upkeep } from "./upkeep.ts";
import type { WorkSlots } from "./work-slots.ts";

export interface LogWriterOptions {
  readonly context: LogContext;
  readonly database: LoggedDatabase;
  /** Random and kept by this node. */
  readonly nodeId: string;
  readonly ltx: LtxWork;
  /** Shared by all writers of this process. */
  readonly slots: WorkSlots;
  /** Default: 1 s. */
  readonly syncIntervalMs?: number;
  /** Default: 30 s, 5 min, 1 h. */
  readonly levels?: readonly Level[];
  /** Default: 24 h. */
  readonly snapshotIntervalMs?: number;
  /** Default: level 0 for 5 min, snapshots for 24 h. */
  readonly retention?: RetentionLimits;
  /** Go on behind the old number although the store has less than it had confirmed. */
  readonly acceptRollback?: boolean;
  /** Told once when the log is another writer's, or can't be written any more; nothing is sent after that. */
  readonly onEnded: (error: SluiceError) => void;
  /** 64 random bits, never 0. Default: from the system's generator. */
  readonly drawWriter?: () => bigint;
}

const DEFAULT_SYNC_INTERVAL_MS = 1_000;
const DEFAULT_SNAPSHOT_INTERVAL_MS = 24 * 60 * 60_000;

/**
 * Writes the log of one database: takeover, then shipping and upkeep until `stop`.
 *
 *     new ─ open ─► (taking over) ─► open ─ stop ─► stopped
 *                        │             └─ slot lost ─► ended (onEnded); then stop
 *                        └─ refused ─► stopped
 */
export class LogWriter {
  readonly #options: LogWriterOptions;
  readonly #shipper: Shipper;
  readonly #upkeep: Upkeep;
  readonly epoch: number;
  readonly logId: string;

  /**
   * Takes the log over and begins to write it. Waits for a store that can't be reached for as long as it takes.
   * Rejects with SLU-4101 to 4108 when this node may not write there, and with SLU-4109 when `signal` is aborted.
   * Until it resolves, the application must not write.
   */
  static async open(options: LogWriterOptions, signal: AbortSignal): Promise<LogWriter> {
    const { context, database, nodeId, acceptRollback = false } = options;
    const draw = options.drawWriter ?? drawWriter;
    const epoch = await takeOver({ context, database, nodeId, acceptRollback, signal, drawWriter: draw });
    const writer = new LogWriter(options, epoch);
    writer.#upkeep.start();
    writer.#shipper.start();
    return writer;
  }

  private constructor(options: LogWriterOptions, epoch: Awaited<ReturnType<typeof takeOver>>) {
    const { context, database } = options;
    this.#options = options;
    this.epoch = epoch.epoch;
    this.logId = epoch.logId;
    this.#shipper = new Shipper({
      context,
      database,
      syncIntervalMs: options.syncIntervalMs ?? DEFAULT_SYNC_INTERVAL_MS,
      drawWriter: options.drawWriter ?? drawWriter,
      onConfirmed: (batch) => this.#upkeep.confirmed(batch),
      onEnded: (error) => this.#ended(error),
    });
    this.#upkeep = new Upkeep({
      context,
      database,
      ltx: options.ltx,
      slots: options.slots,
      levels: options.levels ?? DEFAULT_LEVELS,
      snapshotIntervalMs: options.snapshotIntervalMs ?? DEFAULT_SNAPSHOT_INTERVAL_MS,
      retention: options.retention ?? DEFAULT_RETENTION,
      listing: epoch.listing,
      gap: epoch.gap,
      waitFor: (position, signal) => this.#shipper.waitFor(position, signal),
    });
  }

  /**
   * Resolves when everything up to `position` is in the log and can be restored from there. Rejects with SLU-4109
   * when the outcome is unknown (stopped, or the log is lost), or with the reason of `signal`.
   */
  async waitFor(position: Position, signal?: AbortSignal): Promise<void> {
    await this.#shipper.waitFor(position, signal);
    await this.#upkeep.bridged();
  }

  /** Captures what is committed now and waits for it as `waitFor` does. */
  async sync(signal?: AbortSignal): Promise<void> {
    await this.waitFor(this.#options.database.captureNow(), signal);
  }

  get status(): ShipperStatus {
    return this.#shipper.status;
  }

  /**
   * Stops. With `drain`, tries first to get everything that is committed now into the log, until that is aborted;
   * returns whether it all is there. What is not stays sealed for the next start.
   */
  async stop(drain?: AbortSignal): Promise<boolean> {
    await this.#upkeep.stop();
    const drained =
      drain !== undefined &&
      (await this.#shipper.drain(drain).then(
        () => true,
        () => false,
      ));
    await this.#shipper.stop();
    return drained;
  }

  #ended(error: SluiceError): void {
    const { context, database, onEnded } = this.#options;
    context.onEvent({ type: "lost", txid: database.frozen[0]?.txid ?? 0, error });
    void this.#upkeep.stop();
    onEnded(error);
  }
}

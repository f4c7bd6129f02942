import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { codes } from "../errors/codes.ts";
import { ClusterMetrics } from "./cluster-metrics.ts";
import { ProxyMetrics } from "./proxy-metrics.ts";

/** Seconds, from a fsync to a slow upload. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** Sluice's metrics; `docs/metrics.md` explains each. One instance a process. */
export class Metrics {
  readonly registry = new Registry();
  readonly #db = ["db"] as const;

  readonly residentBytes = this.#processGauge("sluice_resident_bytes", "Resident memory of this process");
  readonly cpuSeconds = this.#processGauge("sluice_cpu_seconds", "Processor time that this process has used");
  readonly startTime = this.#processGauge("sluice_start_time_seconds", "When this process started, since 1970");
  readonly databaseBytes = this.#gauge("sluice_database_bytes", "Size of the database file");
  readonly walBytes = this.#gauge("sluice_wal_bytes", "Length of the WAL up to its last commit");
  readonly position = this.#gauge("sluice_position_seq", "Number of the last captured commit in its epoch");
  readonly epoch = this.#gauge("sluice_position_epoch", "Epoch of the last captured commit");
  readonly confirmedTxid = this.#gauge("sluice_confirmed_txid", "TXID of the last record that the store has confirmed");
  readonly uploadAge = this.#gauge("sluice_last_upload_age_seconds", "Time since a record was last confirmed");
  readonly storeLag = this.#gauge(
    "sluice_store_lag_seconds",
    "For how long the oldest commit that isn't in the store has been waiting; 0 when everything is",
  );
  readonly verifiedAge = this.#gauge(
    "sluice_last_verified_restore_age_seconds",
    "Time since `sluice verify` last restored the database without a fault; absent before the first time",
  );
  readonly frozenBatches = this.#gauge("sluice_frozen_batches", "Sealed batches that are not confirmed");
  readonly unbackfilledFrames = this.#gauge(
    "sluice_unbackfilled_frames",
    "WAL frames that are not in the database file",
  );
  readonly quarantineEntries = this.#gauge(
    "sluice_quarantine_entries",
    "What lies in the database's quarantine: commits that left its history, until somebody removes them",
  );
  readonly quarantineBytes = this.#gauge("sluice_quarantine_bytes", "Size of the database's quarantine");
  readonly failed = this.#gauge("sluice_database_failed", "1 while the database is not protected because of an error");

  readonly succeeded = this.#gauge(
    "sluice_database_succeeded",
    "1 while another Sluice on this host looks after the database, which it has taken over from this one",
  );

  readonly commits = this.#counter("sluice_commits_total", "Commits captured");
  readonly records = this.#counter("sluice_records_total", "Records confirmed by the store");
  readonly recordBytes = this.#counter("sluice_record_bytes_total", "Bytes of confirmed records");
  readonly retries = this.#counter(
    "sluice_store_retries_total",
    "Steps that had no answer from the store and were tried again",
  );
  readonly compactions = this.#counter("sluice_compactions_total", "Files written to a level above 0");
  readonly snapshots = this.#counter("sluice_snapshots_total", "Snapshots written");
  readonly deletions = this.#counter("sluice_deleted_objects_total", "Objects deleted by retention");
  readonly repairs = this.#counter(
    "sluice_index_repairs_total",
    "Repairs of the wal-index after an application was killed in it",
  );
  readonly quarantined = this.#counter(
    "sluice_quarantined_total",
    "Times that commits left the database's history and were put into its quarantine",
  );
  readonly errors = this.#counter("sluice_errors_total", "Errors by code", ["db", "code"]);

  readonly appendSeconds = new Histogram({
    name: "sluice_append_seconds",
    help: "From the sending of a record to its confirmation",
    labelNames: this.#db,
    buckets: SECONDS,
    registers: [this.registry],
  });

  readonly storeCalls = this.#counter("sluice_store_calls_total", "Calls of a store", ["store", "operation"]);
  readonly storeBytes = this.#counter("sluice_store_bytes_total", "Bytes of objects read and written", [
    "store",
    "operation",
  ]);
  readonly storeFailures = this.#counter("sluice_store_failures_total", "Calls that failed, or had no answer", [
    "store",
    "operation",
    "code",
  ]);
  readonly storeSeconds = new Histogram({
    name: "sluice_store_seconds",
    help: "How long a call of a store took, to the end of its body",
    labelNames: ["store", "operation"],
    buckets: SECONDS,
    registers: [this.registry],
  });

  readonly proxy = new ProxyMetrics(this.registry);
  readonly cluster = new ClusterMetrics(this.registry);

  /** Called before each reading, to bring gauges up to date. */
  onCollect: () => void = () => undefined;

  /** The text of `GET /metrics`. */
  async text(): Promise<string> {
    const { user, system } = process.cpuUsage();
    this.residentBytes.set(process.memoryUsage.rss());
    this.cpuSeconds.set((user + system) / 1e6);
    this.startTime.set(performance.timeOrigin / 1000);
    this.onCollect();
    return this.registry.metrics();
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  /** A database is gone: its series end. */
  forget(db: string): void {
    for (const metric of this.registry.getMetricsAsArray()) {
      const { labelNames } = metric as unknown as { readonly labelNames: readonly string[] };
      if (labelNames.includes("code")) continue;
      if (labelNames.includes("db")) (metric as unknown as Gauge).remove({ db });
    }
    for (const code of Object.keys(codes)) this.errors.remove({ db, code });
    this.errors.remove({ db, code: "none" });
  }

  #gauge(name: string, help: string): Gauge {
    return new Gauge({ name, help, labelNames: ["db"], registers: [this.registry] });
  }

  #processGauge(name: string, help: string): Gauge {
    return new Gauge({ name, help, registers: [this.registry] });
  }

  #counter(name: string, help: string, labelNames = ["db"]): Counter {
    return new Counter({ name, help, labelNames, registers: [this.registry] });
  }
}

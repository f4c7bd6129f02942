import { isSluiceError } from "../errors/error.ts";
import { epochOf, formatPosition, seqOf } from "../ltx/position.ts";
import { logFailure } from "../observe/failure.ts";
import type { Logger } from "../observe/log.ts";
import type { ClusterMetrics } from "../observe/cluster-metrics.ts";
import type { Metrics } from "../observe/metrics.ts";
import type { ProtectedDatabase } from "./protected-database.ts";
import type { NodeEvent, NodeStatus } from "./status.ts";
import { verifiedAtMs } from "./verified.ts";

export interface Observers {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly emit: (event: NodeEvent) => void;
}

/** Wall clock with a fraction of a millisecond. */
function nowMs(): number {
  return performance.timeOrigin + performance.now();
}

/** Turns what happens to a database into log lines, metrics and events. */
export function observe(database: ProtectedDatabase, { log: parent, metrics, emit }: Observers): void {
  const db = database.path;
  const labels = { db };
  const log = parent.child(labels);
  let seen: bigint | undefined;
  const fail = (error: Error): void => {
    const code = isSluiceError(error) ? error.code : undefined;
    metrics.errors.inc({ db, code: code ?? "none" });
    emit({ type: "error", db, code, message: error.message });
    logFailure(log, error);
  };
  database.on("state", (state) => {
    seen = database.database?.position;
    emit({ type: "state", db, state });
    if (state === "protected")
      log.info({ store: database.status.store, position: database.status.position }, "protected");
    else if (state === "succeeded") log.info({ successor: database.status.successor }, "succeeded");
    else log.debug({ state }, "state");
  });
  database.on("captured", (position) => {
    // Within an epoch seq counts commits; the first of an epoch follows the takeover.
    const commits =
      seen !== undefined && epochOf(seen) === epochOf(position) ? Number(position - seen) : seqOf(position);
    seen = position;
    metrics.commits.inc(labels, commits);
    emit({ type: "commit", db, position: formatPosition(position), commits, atMs: nowMs() });
  });
  database.on("applied", () => metrics.cluster.applied.inc(labels));
  database.on("restored", ({ txid, elapsedMs }) => log.info({ txid: txid.toString(16), elapsedMs }, "restored"));
  const quarantined = (where: string, pages: number | undefined): void => {
    metrics.quarantined.inc(labels);
    emit({ type: "quarantined", db, where, pages });
  };
  database.on("adopted", (where) => {
    quarantined(where, undefined);
    log.warn({ where }, "the database went to the quarantine; the log's is restored");
  });
  database.on("refused", fail);
  database.on("failed", fail);
  database.on("database", (event) => {
    switch (event.type) {
      case "failed":
        fail(event.error);
        break;
      case "lost":
        // Follows as a failure of the whole database, which is then opened again.
        log.debug({ cause: event.error.message }, "lost");
        break;
      case "backlog":
        if (event.on) log.warn({ code: "SLU-2011", frames: event.frames }, "a reader keeps the WAL from being merged");
        else log.info({ frames: event.frames }, "the WAL is being merged again");
        break;
      case "index-repaired":
        metrics.repairs.inc(labels);
        log.warn({ how: event.how }, "an application was killed while it wrote the wal-index; it was repaired");
        break;
      case "recovered":
        log.info({ how: event.how, detail: event.detail }, "recovered");
        break;
      case "passed":
        log.info({ outcome: event.outcome, heldMs: event.heldMs }, "offered to another Sluice on this host");
        break;
      case "quarantined":
        quarantined(event.path, event.pages);
        log.warn({ pages: event.pages, where: event.path }, "commits that left the history went to the quarantine");
        break;
      default:
        log.debug({ event: event.type }, "database");
    }
  });
  database.on("log", (event) => {
    switch (event.type) {
      case "sealed":
        emit({ type: "seal", db, txid: event.txid, position: formatPosition(event.position), atMs: nowMs() });
        break;
      case "appended":
        metrics.records.inc(labels);
        metrics.recordBytes.inc(labels, event.sizeBytes);
        metrics.appendSeconds.observe(labels, event.tookMs / 1000);
        emit({ type: "upload", db, txid: event.txid, position: formatPosition(event.position), atMs: nowMs() });
        break;
      case "retrying":
        metrics.retries.inc(labels);
        if (event.attempt === 1 || event.attempt % 10 === 0) {
          const cause = event.cause instanceof Error ? event.cause.message : String(event.cause);
          log.warn({ step: event.step, attempt: event.attempt, cause }, "no answer from the store; trying again");
        }
        break;
      case "compacted":
        metrics.compactions.inc(labels);
        emit({ type: "compaction", db, level: event.level, minTxid: event.minTxid, maxTxid: event.maxTxid });
        break;
      case "snapshot":
        metrics.snapshots.inc(labels);
        emit({ type: "snapshot", db, txid: event.txid, sizeBytes: event.sizeBytes });
        log.info({ txid: event.txid.toString(16), sizeBytes: event.sizeBytes, tookMs: event.tookMs }, "snapshot");
        break;
      case "deleted":
        metrics.deletions.inc(labels, event.count);
        break;
      case "taken-over":
        log.debug({ txid: event.txid, position: formatPosition(event.position) }, "taken over");
        break;
      default:
        fail(event.error);
    }
  });
}

/** Brings the gauges up to date, when they are read. */
export function updateGauges(metrics: Metrics, databases: Iterable<ProtectedDatabase>): void {
  for (const protectedDatabase of databases) {
    const { database, writer, path: db, state, status } = protectedDatabase;
    const labels = { db };
    metrics.failed.set(labels, state === "failed" ? 1 : 0);
    metrics.succeeded.set(labels, state === "succeeded" ? 1 : 0);
    // What is not sent yet is the other's business.
    if (state === "succeeded") for (const gauge of [metrics.storeLag, metrics.frozenBatches]) gauge.remove(labels);
    metrics.databaseBytes.set(labels, status.sizeBytes ?? 0);
    metrics.quarantineEntries.set(labels, status.quarantined.entries);
    metrics.quarantineBytes.set(labels, status.quarantined.bytes);
    const verified = verifiedAtMs(db);
    if (verified !== undefined) metrics.verifiedAge.set(labels, (Date.now() - verified) / 1000);
    const { replica } = protectedDatabase;
    const position = database?.position ?? replica?.position;
    if (position !== undefined) {
      metrics.position.set(labels, seqOf(position));
      metrics.epoch.set(labels, epochOf(position));
    }
    metrics.walBytes.set(labels, status.walBytes ?? 0);
    if (database === undefined) continue;
    metrics.unbackfilledFrames.set(labels, database.unbackfilledFrames);
    metrics.frozenBatches.set(labels, database.frozen.length);
    metrics.confirmedTxid.set(labels, database.logState?.confirmed.txid ?? 0);
    metrics.storeLag.set(labels, (status.storeLagMs ?? 0) / 1000);
    const at = writer?.status.confirmedAtMs;
    if (at !== undefined) metrics.uploadAge.set(labels, (Date.now() - at) / 1000);
  }
}

/** The same for what is the whole node's, among others. */
export function updateClusterGauges(metrics: ClusterMetrics, status: NodeStatus): void {
  const { role, lease, lagMs, replicas = [] } = status;
  metrics.isPrimary.set(role === "primary" ? 1 : 0);
  metrics.replicas.set(replicas.length);
  if (lease?.lapsesInMs !== undefined && Number.isFinite(lease.lapsesInMs))
    metrics.leaseSeconds.set(lease.lapsesInMs / 1000);
  if (lagMs === undefined) metrics.lag.remove();
  else metrics.lag.set(lagMs / 1000);
  metrics.replicaLag.reset();
  for (const { name, lagMs: behindMs } of replicas) metrics.replicaLag.set({ replica: name }, behindMs / 1000);
}

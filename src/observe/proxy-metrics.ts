import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** Seconds, from a small answer of a local application to a long wait. */
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

/** What a request or a response waited for. */
export type WaitReason = "primary" | "position" | "durability" | "reads";

/** The front door's metrics. */
export class ProxyMetrics {
  readonly requests: Counter;
  readonly seconds: Histogram;
  readonly waits: Histogram;
  readonly replays: Counter;
  readonly own: Counter;
  readonly unknown: Counter;
  readonly lost: Counter;
  readonly active: Gauge;
  readonly connections: Gauge;
  readonly upgrades: Gauge;
  readonly kept: Gauge;

  constructor(registry: Registry) {
    const registers = [registry];
    this.requests = new Counter({
      name: "sluice_proxy_requests_total",
      help: "Requests by mode (pass, read, write), by who answered (local, primary, own) and by class of status",
      labelNames: ["mode", "by", "status"],
      registers,
    });
    this.seconds = new Histogram({
      name: "sluice_proxy_request_seconds",
      help: "From a request's headers to the last byte of its answer",
      labelNames: ["mode"],
      buckets: SECONDS,
      registers,
    });
    this.waits = new Histogram({
      name: "sluice_proxy_wait_seconds",
      help: "What requests and answers waited for: primary, position, durability, reads",
      labelNames: ["for"],
      buckets: SECONDS,
      registers,
    });
    this.replays = new Counter({
      name: "sluice_proxy_replays_total",
      help: "Requests sent to the primary because the application asked for it",
      registers,
    });
    this.own = new Counter({
      name: "sluice_proxy_errors_total",
      help: "Errors that the front door itself answered, by code",
      labelNames: ["code"],
      registers,
    });
    this.unknown = new Counter({
      name: "sluice_proxy_unknown_total",
      help: "Writes whose outcome is unknown",
      registers,
    });
    this.lost = new Counter({
      name: "sluice_proxy_positions_lost_total",
      help: "Requests with the position of a commit that left the history",
      registers,
    });
    this.active = new Gauge({ name: "sluice_proxy_active_requests", help: "Requests under way", registers });
    this.connections = new Gauge({ name: "sluice_proxy_connections", help: "Open connections of clients", registers });
    this.upgrades = new Gauge({ name: "sluice_proxy_upgrades", help: "Open WebSockets and the like", registers });
    this.kept = new Gauge({
      name: "sluice_proxy_kept_body_bytes",
      help: "Memory in which bodies are kept for a replay",
      registers,
    });
  }
}

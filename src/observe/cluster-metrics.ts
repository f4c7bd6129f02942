import { Counter, Gauge, type Registry } from "prom-client";

/** Metrics of a node among others. */
export class ClusterMetrics {
  readonly isPrimary: Gauge;
  readonly leaseSeconds: Gauge;
  readonly lag: Gauge;
  readonly replicaLag: Gauge;
  readonly replicas: Gauge;
  readonly roleChanges: Counter;
  readonly applied: Counter;

  constructor(registry: Registry) {
    const registers = [registry];
    this.isPrimary = new Gauge({ name: "sluice_primary", help: "1 on the primary, 0 on a replica", registers });
    this.leaseSeconds = new Gauge({
      name: "sluice_lease_remaining_seconds",
      help: "Until others may take the lease if nothing more is heard, as far as this node knows",
      registers,
    });
    this.lag = new Gauge({
      name: "sluice_lag_seconds",
      help: "On a replica: how long ago it had everything that the primary had; absent while that isn't known",
      registers,
    });
    this.replicaLag = new Gauge({
      name: "sluice_replication_lag_seconds",
      help: "On the primary: for how long the oldest commit has been waiting that a replica hasn't applied",
      labelNames: ["replica"],
      registers,
    });
    this.replicas = new Gauge({
      name: "sluice_replicas",
      help: "On the primary: replicas that are connected",
      registers,
    });
    this.roleChanges = new Counter({
      name: "sluice_role_changes_total",
      help: "States that the node's role has entered",
      labelNames: ["state"],
      registers,
    });
    this.applied = new Counter({
      name: "sluice_applied_changes_total",
      help: "Changes that a replica has applied; one may hold several commits",
      labelNames: ["db"],
      registers,
    });
  }
}

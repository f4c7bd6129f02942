/** Codes SLU-8xxx: leases. */
export const leaseCodes = {
  "SLU-8001": {
    title: "The lease can't be reached",
    meaning:
      "The place that says who may write (lease.type) had no answer, or one that it can't serve now. A primary goes on until its lease runs out, then its databases take no writes; a replica goes on following.",
    normal: "For a moment, while that service restarts or the network has trouble.",
    remedy:
      "Check the service and the network; Sluice tries again by itself. docs/leases.md says what each type needs.",
  },
  "SLU-8002": {
    title: "Something else lies where the lease should be",
    meaning:
      "The object, file or key of the lease holds something that this version of Sluice can't read. It was left as it is, and nobody becomes primary by it.",
    normal: "Never.",
    remedy:
      "If another program uses this place, give the lease one of its own (lease.url, lease.consul.key, lease.etcd.key). If it is damaged, stop all nodes, delete it, and start them again.",
  },
  "SLU-8003": {
    title: "Access to the lease is refused",
    meaning: "Consul or etcd doesn't accept the token, user or certificate, or they don't allow to write the key.",
    normal: "Never.",
    remedy: "Correct lease.consul or lease.etcd, or the permissions there: sessions and the key must be writable.",
  },
  "SLU-8004": {
    title: "This lease can't be handed over",
    meaning: "With lease type static or none the configuration says who is primary, so no other node can be made it.",
    normal: "Never.",
    remedy: "Change lease.primary on all nodes, or use another lease type.",
  },
  "SLU-8005": {
    title: "This node is alive elsewhere",
    meaning:
      "Another process writes the lease under this node's id: Sluice's directory was copied to another machine, or two machines share it. This one has stopped trying.",
    normal: "Never.",
    remedy:
      "Stop one of them. A copied node gets an id of its own when its .NAME-sluice directory is moved away before it starts.",
  },
  "SLU-8006": {
    title: "The lease's settings don't fit",
    meaning: "The settings of the lease miss something that its type needs, or contradict each other.",
    normal: "Never.",
    remedy: "Correct the key named; docs/leases.md has an example for each type.",
  },
} as const;

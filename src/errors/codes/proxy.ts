/** Codes SLU-7xxx: the front door. */
export const proxyCodes = {
  "SLU-7000": {
    title: "Internal error (front door)",
    meaning: "The front door met a state that its own rules exclude. It broke off this one request.",
    normal: "Never.",
    remedy: "Please report it with the log around this line.",
  },
  "SLU-7001": {
    title: "The front door can't listen",
    meaning: "The address in `proxy.listen` could not be opened; the system's reason stands in the message.",
    normal: "Never.",
    remedy: "See whether another process has the port (`ss -ltnp`), or choose another one.",
  },
  "SLU-7002": {
    title: "There is no primary",
    meaning:
      "The request must go to the primary, and for `proxy.primary-timeout` there was none, or none with a front door. No application has seen the request. Answer: 503 with `Retry-After`.",
    normal: "When a failover takes longer than `proxy.primary-timeout`, or too few nodes are running.",
    remedy: "Send the request again. If it lasts, `sluice status` says who could be the primary and why nobody is.",
  },
  "SLU-7003": {
    title: "The write is not confirmed",
    meaning:
      "The application has answered, but its commits did not become as durable as was asked within `proxy.durability-timeout`, or this node stopped being the primary first. They are committed here and may survive or be lost. Answer: 504 with `Sluice-Outcome: unknown`; the application's answer is withheld.",
    normal: "When the store or the replicas are out of reach, or the primary is deposed at this moment.",
    remedy:
      "Read before you write again: the write may be there. Look at the store and the replicas with `sluice status`.",
  },
  "SLU-7004": {
    title: "The application can't be reached",
    meaning:
      "No connection to `proxy.app` could be made for `proxy.app-timeout`. The application has not seen the request. Answer: 502.",
    normal: "While the application starts.",
    remedy: "See whether the application runs and listens at the address in `proxy.app`.",
  },
  "SLU-7005": {
    title: "The application broke off",
    meaning:
      "The application closed the connection without a whole answer, or sent something that is not HTTP. It may have done what it was asked: a write has `Sluice-Outcome: unknown`, and is never sent again. Answer: 502.",
    normal: "When the application's process is killed or restarted.",
    remedy: "Look at the application's log at this time. Before writing again, read whether the write is there.",
  },
  "SLU-7006": {
    title: "The request is malformed",
    meaning:
      "The request could be understood in two ways, or not at all: conflicting lengths, a folded header, two hosts, an unknown transfer encoding, headers that are too long. It was not passed on. Answer: 400, 405, 417, 431, 501 or 505, and the connection is closed.",
    normal: "When somebody scans the internet for holes.",
    remedy: "Repair the client. For long headers raise `proxy.max-header-size`.",
  },
  "SLU-7007": {
    title: "A forwarded request without a valid signature",
    meaning:
      "The request says that another node forwarded it, but its signature was not made with this cluster's secret. It was not passed on. Answer: 403.",
    normal: "When a client tries to pass itself off as a node.",
    remedy: "Give every node the same `cluster.secret`.",
  },
  "SLU-7008": {
    title: "The body is too large",
    meaning: "The request's body is longer than `proxy.max-body-size`. Answer: 413.",
    normal: "When a client sends more than was agreed.",
    remedy: "Send less, or raise `proxy.max-body-size`.",
  },
  "SLU-7009": {
    title: "The request can't be replayed",
    meaning:
      "The application asked for the request to be replayed on the primary, but its body was not kept as a whole: it is longer than `proxy.replay-memory` (on the primary) or `proxy.replay-disk`, or the disk was full. The application did nothing. Answer: 503.",
    normal: "When a large upload meets a change of the primary.",
    remedy: "Send the request again. For uploads that a replica's application sees, use a route with `mode: write`.",
  },
  "SLU-7010": {
    title: "The application refuses on the primary, too",
    meaning:
      "The application answered on the primary itself that the request must be replayed on the primary, several times. It did nothing. Answer: 503.",
    normal: "For a moment, while the primary changes.",
    remedy:
      "Send the request again. If it lasts, see by what the application decides that it runs on a replica (the `.primary` file).",
  },
  "SLU-7011": {
    title: "The read was not allowed in time",
    meaning:
      "The read saw commits that did not become durable in time (`proxy.hold-reads`), or asked for a position that neither this node nor a primary has reached. Answer: 503 with `Retry-After`.",
    normal: "When the store or the primary is out of reach.",
    remedy: "Send the request again. If it lasts, look at the lag with `sluice status`.",
  },
  "SLU-7012": {
    title: "The connection to the primary broke",
    meaning:
      "The request had been forwarded to the primary's front door, and the connection broke before the answer. A write may or may not have been done: 504 with `Sluice-Outcome: unknown`. A read: 502.",
    normal: "When the primary is killed.",
    remedy: "Before writing again, read whether the write is there.",
  },
  "SLU-7013": {
    title: "This node is stopping",
    meaning: "The request came while the front door was closing. No application has seen it. Answer: 503.",
    normal: "While a node is stopped or replaced.",
    remedy: "Send the request again; another node will answer.",
  },
  "SLU-7014": {
    title: "The client is too slow",
    meaning:
      "The client sent nothing of its request, or took nothing of its answer, for `proxy.client-timeout`. The connection was closed; answer, if none was begun: 408.",
    normal: "When clients lose their network.",
    remedy: "Nothing, or raise `proxy.client-timeout`.",
  },
  "SLU-7015": {
    title: "A body could not be kept on disk",
    meaning:
      "A request's body was to be kept in a temporary file, in case that it must be replayed, and the disk refused. The request went on; it only can't be replayed.",
    normal: "Never.",
    remedy: "Make room in the directory `proxy.replay-dir` (by default the system's for temporary files).",
  },
} as const;

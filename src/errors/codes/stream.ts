/** Codes SLU-82xx: the replication stream between nodes. */
export const streamCodes = {
  "SLU-8201": {
    title: "The primary refuses the cluster's secret",
    meaning:
      "This node's `cluster.secret` is missing or another than the primary's. Nothing is replicated until that changes; the node tries again by itself.",
    normal: "For a moment, while a new secret is brought to all nodes.",
    remedy: "Give all nodes the same `cluster.secret`.",
  },
  "SLU-8202": {
    title: "The other node belongs to another cluster",
    meaning:
      "The two nodes have different cluster ids: an address leads to a cluster that this node is no part of. Nothing was exchanged.",
    normal: "Never.",
    remedy:
      "Correct the address (`node.advertise`, `lease.primary`). If the node is meant to move to that cluster, start it with an empty directory.",
  },
  "SLU-8203": {
    title: "The nodes have no protocol version in common",
    meaning: "The two nodes run releases that are too far apart to understand each other. Nothing was exchanged.",
    normal: "Never between neighbouring releases.",
    remedy: "Update the older node. Between distant releases, go over one in between.",
  },
  "SLU-8204": {
    title: "This node's id is alive elsewhere",
    meaning:
      "Another node that runs now has the same id: Sluice's directory was copied from one machine to another, or two processes share it. The second one is refused and does not follow.",
    normal: "Never.",
    remedy:
      "Stop the copy, or move its .NAME-sluice directories away before it starts; it then gets an id of its own and restores its databases.",
  },
  "SLU-8205": {
    title: "The node asked is not the primary",
    meaning: "A replica connected to a node that isn't the primary now. It goes on looking for the one that is.",
    normal: "For a moment, while the primary changes.",
    remedy: "Nothing, if it passes. Otherwise compare what the nodes' `sluice status` say about the primary.",
  },
  "SLU-8206": {
    title: "The primary belongs to an epoch that has ended",
    meaning:
      "A replica has already seen a later primary than the one it is connected to. It doesn't follow the older one, which learns by it that it has been replaced.",
    normal: "For a moment, when a primary that was cut off comes back.",
    remedy: "Nothing, if it passes. Otherwise stop the old primary.",
  },
  "SLU-8207": {
    title: "The database is another one than the primary's",
    meaning:
      "A database of this name here and the primary's belong to different logs, or have pages of different sizes. Nothing of either was changed.",
    normal: "Never.",
    remedy:
      "Compare the configurations: two applications may use one name. To give this node the primary's database, move the own file away, or start once with --adopt.",
  },
  "SLU-8208": {
    title: "A damaged message",
    meaning:
      "The other node sent something that is no message of the replication stream, or not in its place. The connection was ended; the replica connects again and goes on from what it has.",
    normal: "Never.",
    remedy:
      "If it comes again: see whether something between the nodes changes what it passes on, and report it with both versions.",
  },
  "SLU-8209": {
    title: "The other node is silent",
    meaning:
      "Nothing came over the connection for three heartbeats. It was given up; a replica connects again and goes on from what it has.",
    normal: "When a machine stops or a network is cut.",
    remedy: "Nothing, if it passes. Otherwise check the network between the nodes, and their load.",
  },
  "SLU-8210": {
    title: "The primary can't be reached",
    meaning:
      "No connection to the primary came about, or it ended. The replica keeps what it has, serves reads, and tries again, ever more seldom, at least every five seconds.",
    normal: "While the primary restarts or changes.",
    remedy: "Check that the primary runs and that its `node.advertise` address can be reached from here.",
  },
  "SLU-8211": {
    title: "The primary's certificate isn't trusted, or this node's isn't",
    meaning: "The encrypted connection between two nodes didn't come about, because one side didn't accept the other.",
    normal: "Never.",
    remedy:
      "Give all nodes certificates of one authority and name its certificate in `cluster.tls.ca`; the certificate must be for the host in `node.advertise` and not be out of date.",
  },
  "SLU-8212": {
    title: "The primary has no such database",
    meaning: "This node follows a database that the primary doesn't look after, or not yet. It asks again.",
    normal: "While the primary opens its databases.",
    remedy: "Compare `dbs` in the nodes' configurations.",
  },
  "SLU-8213": {
    title: "A comparison with the primary was broken off",
    meaning:
      "The picture of the database that a replica compared itself with was given up: it took longer, or the WAL grew more, than the primary allows. Nothing was changed; the replica begins again.",
    normal: "Under heavy writing, over a slow network.",
    remedy: "Nothing, if it passes. Otherwise restore the replica from the store: move its file away and start it.",
  },
} as const;

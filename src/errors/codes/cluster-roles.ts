export const roleCodes = {
  "SLU-8101": {
    title: "This node is not the primary",
    meaning: "Only a primary with open gates can hand over, and only one handover runs at a time.",
    normal: "When a handover was asked of a node that has just handed over, or taken over.",
    remedy: "`sluice status` names the primary. Ask again.",
  },
  "SLU-8102": {
    title: "This node is stopping",
    meaning: "What was asked of it would need it to go on.",
    normal: "At every stop.",
    remedy: "Nothing; ask another node.",
  },
  "SLU-8103": {
    title: "The lease ended",
    meaning:
      "The lease that lets this node try to be primary ended by its own clock, before what it was doing was finished. Its gates are closed, and it follows whoever takes the lease.",
    normal: "When the process or the machine stood still, or the lease's place did not answer in time.",
    remedy:
      "Nothing at once. If it comes often, look at the lease's place and the machine's load, or raise `lease.ttl`.",
  },
  "SLU-8104": {
    title: "Nobody to hand over to",
    meaning:
      "No connected node, or not the one that was named, is a candidate and close enough behind. The primary goes on.",
    normal: "On a cluster of one node, or while the others start.",
    remedy:
      "`sluice status` shows the nodes that are connected and how far they are behind. Try again when one is close.",
  },
  "SLU-8105": {
    title: "The handover was broken off",
    meaning:
      "Within `lease.handoff-timeout` not everything could be stored, or the successor did not confirm that it has it. The lease was not touched; this node opened its gates again and goes on as primary.",
    normal: "When the store or the successor is slow just then.",
    remedy: "Try again. `sluice status` shows how far the store and the other nodes are behind.",
  },
  "SLU-8106": {
    title: "Another node has a higher epoch",
    meaning: "A node was met that knows of a later primary than this one. This node stepped down.",
    normal: "After this node stood still, or was cut off, while another took over.",
    remedy:
      "Nothing. What was committed here and never got into the log is in the quarantine: `sluice quarantine list`.",
  },
  "SLU-8107": {
    title: "A transaction was in the way of stepping down",
    meaning:
      "This node must stop being primary, and a transaction of an application did not end within the margin of the lease. Its process was ended, so that the gate could close; the transaction is rolled back.",
    normal: "Never in normal operation.",
    remedy: "Keep transactions short: a write transaction should never wait for a network or for a user.",
  },
  "SLU-8108": {
    title: "The primary can't be asked",
    meaning:
      "A planned change of the primary goes through the primary, and none is known or can be reached from this node.",
    normal: "While a new primary is being found.",
    remedy:
      "`sluice status` on each node shows what it knows. Without a primary the best candidate takes over by itself when the lease runs out.",
  },
  "SLU-8109": {
    title: "Members of the last record go first",
    meaning:
      "The last record in the log names the nodes that have everything that was ever acknowledged at `replica`. This node isn't one of them, so it must not take over before one of them did.",
    normal: "For moments after a primary was lost, on nodes that were behind.",
    remedy:
      "Bring one of the members back. If they are gone for good, `sluice promote --force` on the node with the newest position lets it take over; what only they had is lost.",
  },
  "SLU-8110": {
    title: "A command has the primary",
    meaning:
      "A `sluice exec --on-primary` runs on the primary, which stays where it is until the command has ended. One such command runs at a time in the whole cluster.",
    normal: "While a migration or a shell runs with `sluice exec`.",
    remedy:
      "Wait for it; `sluice exec` does so by itself, for `--wait`. `sluice promote --force` on another node doesn't wait.",
  },
  "SLU-8111": {
    title: "This node can't be the primary",
    meaning:
      "`sluice exec --on-primary` makes the node on which it is called the primary for the time of its command. This one may not be: `lease.candidate` is false, or the lease's type is `static`. The command was not run.",
    normal: "Never.",
    remedy: "Run the command on the primary, or on a candidate; `sluice status` names the primary.",
  },
  "SLU-8112": {
    title: "This node stopped being the primary while a command ran",
    meaning:
      "The lease was lost, or Sluice was stopped or died, during a `sluice exec --on-primary`. The command was sent SIGTERM, and SIGKILL after ten seconds. Commits from before may be in the log or not; what never got there is in this node's quarantine once the node follows again.",
    normal: "When a node is stopped or dies just then.",
    remedy:
      "Look at what the command has done (`sluice status`, `sluice quarantine list`), and run it again. Migration tools go on where they were.",
  },
  "SLU-8113": {
    title: "The command's commits are not in the store",
    meaning:
      "The command has ended, and what it committed is on this node's disk, but the store did not confirm it in time. This node stays the primary and goes on sending.",
    normal: "When the store is slow or away.",
    remedy:
      "`sluice status` shows how far the store is. When it has everything, `sluice promote NAME` gives the primary back.",
  },
  "SLU-8114": {
    title: "A command took longer than its time",
    meaning:
      "The command of `sluice exec --on-primary` did not end within `--timeout`. It was sent SIGTERM, and SIGKILL after ten seconds; the transaction that it was in is rolled back, the ones before it count.",
    normal: "Never.",
    remedy: "Run it again with a longer `--timeout`.",
  },
  "SLU-8115": {
    title: "A database can't be written for a command",
    meaning:
      "`sluice exec --on-primary` has made this node the primary, and fifteen seconds later a database of it could still not be written, for the reason in the message. The command was not run, and the primary went back.",
    normal: "When the store is slow or away.",
    remedy: "`sluice status` shows what the database waits for. With `--db` only the database named must be writable.",
  },
} as const;

import { rmSync } from "node:fs";
import { AdminServer } from "../admin/server.ts";
import { removeOwner, socketPath, writeOwner } from "../admin/owner.ts";
import { Node, type NodeOptions } from "../cluster/node.ts";
import type { Config } from "../config/config.ts";
import { createLog, type Logger } from "../observe/log.ts";
import { Metrics } from "../observe/metrics.ts";
import type { RunNode } from "../supervise/run.ts";

export interface Served {
  readonly node: Node;
  readonly log: Logger;
  /** The node with its API, as `runApplication` starts and stops it. */
  readonly runNode: RunNode;
}

/** A node with its admin API: the socket for this machine's commands, and `node.listen` where it's configured. */
export function serve(
  config: Config,
  options: Pick<NodeOptions, "restoreMissing" | "adopt" | "acceptRollback">,
): Served {
  const log = createLog(config.logging);
  const metrics = new Metrics();
  const node = new Node({ config, log, metrics, ...options });
  const admin = new AdminServer({ node, metrics, secret: config.secret });
  const socket = socketPath();
  const owned = new Set<string>();
  // Before a database is opened, and again when it is: the process that had it until then may have ended meanwhile.
  const own = (): void => {
    for (const db of node.paths) if (!owned.has(db) && writeOwner(db, socket)) owned.add(db);
  };
  const runNode: RunNode = {
    get role() {
      return node.role;
    },
    onRole: (listener) => void node.on("role", listener),
    async start(stopping, holder) {
      await admin.listenOnSocket(socket);
      if (config.node.listen !== undefined) await admin.listen(config.node.listen);
      if (config.metricsListen !== undefined) await admin.listenForMetrics(config.metricsListen);
      node.on("databases", own);
      node.on("event", ({ type }) => {
        if (type === "state") own();
      });
      await node.start(stopping);
    },
    async stop() {
      const missing = await node.stop();
      for (const db of owned) removeOwner(db);
      await admin.close();
      rmSync(socket, { force: true });
      return missing;
    },
  };
  return { node, log, runNode };
}

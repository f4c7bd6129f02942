import { existsSync, rmSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promote } from "../admin/promote.ts";
import { databasesOf } from "../admin/report.ts";
import { AdminServer } from "../admin/server.ts";
import { readNote, readOwner, socketPath } from "../admin/owner.ts";
import { OwnerNotes } from "../admin/owner-notes.ts";
import { Node } from "../cluster/node.ts";
import type { NodeCluster, NodeOptions } from "../cluster/node-options.ts";
import { nodeIdIn } from "../cluster/node-id.ts";
import { Succession } from "../cluster/succession/succession.ts";
import type { StreamPeers } from "../cluster/stream-peers.ts";
import type { Config } from "../config/config.ts";
import { stateDirOf } from "../database/database.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { limitArenas } from "../observe/arenas.ts";
import { createLog, type Logger } from "../observe/log.ts";
import { Metrics } from "../observe/metrics.ts";
import type { FrontDoor } from "../proxy/server.ts";
import type { LockHolder, RunNode } from "../supervise/run.ts";
import { doorSecret } from "./door-secret.ts";

export interface Served {
  readonly node: Node;
  readonly log: Logger;
  /** The node with its API, as `runApplication` starts and stops it. */
  readonly runNode: RunNode;
}

/** How long requests may take to end when this node stops. */
const DOOR_GRACE_MS = 10_000;
/** How long a node that is to lead tries to become the primary at its start. */
const PROMOTE_LIMIT_MS = 30_000;
const PROMOTE_EVERY_MS = 500;
/** Why a stream is refused, where somebody must change something. */
const FOR_OPERATORS = new Set<string>(["SLU-8201", "SLU-8202", "SLU-8203", "SLU-8204", "SLU-8207", "SLU-8211"]);

/**
 * A node with its admin API (the socket for this machine's commands, and `node.listen` where it's configured), its place
 * in the cluster, and its front door.
 */
export async function serve(
  config: Config,
  options: Pick<NodeOptions, "restoreMissing" | "adopt" | "acceptRollback"> & { readonly takesOver: boolean },
): Promise<Served> {
  limitArenas();
  const log = createLog(config.logging);
  const metrics = new Metrics();
  let holder: LockHolder | undefined;
  const cluster = await clusterOf(config, log, () => holder);
  const succession = new Succession({
    dir: noteDir(config),
    takesOver: options.takesOver,
    isLone: cluster === undefined,
    noteOf: readNote,
    databaseAt: (file) => node.databases.find((database) => database.path === file),
  });
  const node: Node = new Node({
    config,
    log,
    metrics,
    succession,
    ...options,
    ...(cluster && { cluster: cluster.parts }),
  });
  const admin = new AdminServer({
    node,
    metrics,
    log,
    secret: config.secret,
    ...(cluster && { tls: config.cluster?.tls, onUpgrade: cluster.peers().handleUpgrade }),
  });
  const door = await doorOf(config, node, metrics, log);
  const socket = socketPath();
  const notes = new OwnerNotes(socket, succession);
  const leave = async (): Promise<void> => {
    await node.leave();
    await door?.stop(DOOR_GRACE_MS);
  };
  const runNode: RunNode = {
    get role() {
      return node.role;
    },
    onRole: (listener) => void node.on("role", listener),
    async start(stopping, given) {
      holder = given;
      if (cluster !== undefined) assertAlone(config);
      await admin.listenOnSocket(socket);
      if (config.dbs.some((db) => db.kind === "file" || existsSync(db.dir))) await succession.listen();
      if (config.node.listen !== undefined) await admin.listen(config.node.listen);
      if (config.metricsListen !== undefined) await admin.listenForMetrics(config.metricsListen);
      node.on("databases", () => node.databases.forEach((database) => notes.look(database)));
      node.on("event", (event) => {
        if (event.type !== "state") return;
        const database = node.databases.find((one) => one.path === event.db);
        if (database !== undefined) notes.look(database);
      });
      // Where others can answer, nobody waits for this node's databases, which may all be elsewhere yet, or nowhere.
      if (cluster !== undefined) await door?.listen(true);
      await node.start(stopping);
      if (config.cluster?.lease.promote === true) await takeLead(node, config, log, stopping);
      if (cluster === undefined) await door?.listen();
      door?.started();
    },
    ...((cluster !== undefined || door !== undefined) && { leave }),
    async stop() {
      const missing = await node.stop();
      succession.close();
      notes.remove();
      await admin.close();
      rmSync(socket, { force: true });
      return missing;
    },
  };
  return { node, log, runNode };
}

/**
 * Two processes of one node would each take the other's lease for that of an earlier life of its own. Throws SLU-6012 when
 * another one looks after this node's databases.
 */
function assertAlone({ dbs }: Config): void {
  for (const db of dbs) {
    const files = db.kind === "file" ? [db.path] : existsSync(db.dir) ? databasesOf(db) : [];
    for (const file of files) {
      const owner = readOwner(file);
      if (owner !== undefined && owner.pid !== process.pid)
        throw new SluiceError(
          "SLU-6012",
          `${file} is looked after by process ${owner.pid}, and this is a node of a cluster`,
        );
    }
  }
}

/** Where a process keeps what is no single database's: beside the first one. */
export function noteDir({ dbs }: Config): string {
  const first = dbs[0]!;
  return first.kind === "file" ? stateDirOf(first.path) : path.join(first.dir, ".sluice");
}

/**
 * `lease.promote`: this node takes over from a running primary before its application starts. Where that doesn't work
 * within a while it goes on as a replica.
 */
async function takeLead(node: Node, config: Config, log: Logger, stopping: AbortSignal): Promise<void> {
  const { secret, cluster } = config;
  const signal = AbortSignal.any([stopping, AbortSignal.timeout(PROMOTE_LIMIT_MS)]);
  let problem: unknown;
  while (!signal.aborted && node.reign === undefined) {
    try {
      await promote(node, undefined, { secret, tls: cluster?.tls });
    } catch (error) {
      // Not caught up yet, most of the time.
      problem = error;
      await sleep(PROMOTE_EVERY_MS, undefined, { signal }).catch(() => undefined);
    }
  }
  if (node.reign === undefined && !stopping.aborted) log.warn({ err: problem }, "not promoted; this node is a replica");
}

/** What makes the node one of a cluster; undefined for a lone one. */
async function clusterOf(
  config: Config,
  log: Logger,
  holder: () => LockHolder | undefined,
): Promise<{ readonly parts: NodeCluster; readonly peers: () => StreamPeers } | undefined> {
  const { cluster, secret, node: own, proxy } = config;
  if (cluster === undefined) return undefined;
  // A lone node loads nothing of this.
  const { openLease } = await import("../lease/open-lease.ts");
  const { StreamPeers } = await import("../cluster/stream-peers.ts");
  const { advertise, lease, tls } = cluster;
  const { candidate, ttlMs, takeoverTimeoutMs, handoffTimeoutMs } = lease;
  const nodeId = nodeIdIn(noteDir(config));
  let peers: StreamPeers | undefined;
  let told: string | undefined;
  const onProblem = (error: Error): void => {
    if (!isSluiceError(error)) return log.warn({ err: error }, "following the primary");
    const { code, hint, message } = error;
    // Tried again and again, but only somebody's hand helps.
    const isNews = FOR_OPERATORS.has(code) && code !== told;
    if (isNews) told = code;
    log[isNews ? "warn" : "debug"]({ code, ...(isNews && { hint }) }, message);
  };
  const parts: NodeCluster = {
    nodeId,
    advertise,
    ...(proxy && { proxy: proxy.advertise ?? `http://${new URL(advertise).hostname}:${proxy.listen.port}` }),
    candidate,
    register: await openLease(lease.place, { ttlMs, advertise, secret }),
    ttlMs,
    takeoverTimeoutMs,
    handoffTimeoutMs,
    hold: (key, descriptors) => holder()?.hold(key, descriptors) ?? Promise.resolve(),
    release: (key) => holder()?.release(key),
    memberLagMs: lease.replicaTimeoutMs,
    peers: (node) =>
      (peers = new StreamPeers({
        node,
        nodeId,
        name: own.name,
        advertise,
        noteDir: noteDir(config),
        secret,
        tls,
        isCandidate: candidate,
        onProblem,
        onFetched: (db, url) => log.info({ db, url }, "another node had more, which is here now"),
      })),
  };
  return { parts, peers: () => peers! };
}

async function doorOf(config: Config, node: Node, metrics: Metrics, log: Logger): Promise<FrontDoor | undefined> {
  const { proxy, node: own } = config;
  if (proxy === undefined) return undefined;
  const { FrontDoor } = await import("../proxy/server.ts");
  const { ServedNode } = await import("./node-view.ts");
  const view = new ServedNode(node, own.name, proxy.listen.port);
  const door = new FrontDoor({
    config: proxy,
    view,
    metrics: metrics.proxy,
    log,
    secret: doorSecret(config),
  });
  node.holdWrites = () => door.pauseWrites();
  return door;
}

import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { Node } from "../../src/cluster/node.ts";
import type { NodeCluster } from "../../src/cluster/node-options.ts";
import type { Peers } from "../../src/cluster/peers.ts";
import { StreamPeers } from "../../src/cluster/stream-peers.ts";
import { parseConfig } from "../../src/config/load.ts";
import { resolveConfig } from "../../src/config/resolve.ts";
import type { LeaseRecord, LeaseVersion, SwapOutcome } from "../../src/lease/lease.ts";
import { StoreLease } from "../../src/lease/store-lease.ts";
import { createLog } from "../../src/observe/log.ts";
import { Metrics } from "../../src/observe/metrics.ts";
import { DirectoryStore } from "../../src/store/directory.ts";

/** For nodes that follow only the log. */
const nobody: Peers = {
  changed: () => undefined,
  follow: () => undefined,
  replicas: [],
  lagMs: undefined,
  isBehind: false,
  awaitReplica: () => Promise.reject(new Error("nobody")),
  callSuccessor: () => undefined,
  attach: () => {
    throw new Error("only the log is followed");
  },
  seed: () => Promise.resolve(false),
  fetchAhead: () => Promise.resolve(),
  candidates: () => [],
  onAcknowledged: () => () => undefined,
  isOwnMember: () => false,
  close: () => Promise.resolve(),
};

const run = promisify(execFile);
const SCRIPT = `
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None)
for s in sys.argv[3:]: r = c.execute(s).fetchall()
print(r)`;

/** A lease that one node can be cut off from. */
class TestLease extends StoreLease {
  isBroken = false;

  override async read(signal: AbortSignal): Promise<LeaseVersion | undefined> {
    if (this.isBroken) throw new Error("cut off");
    return super.read(signal);
  }

  override async swap(expected: string | undefined, next: LeaseRecord, signal: AbortSignal): Promise<SwapOutcome> {
    if (this.isBroken) return { outcome: "undecided", cause: new Error("cut off") };
    return super.swap(expected, next, signal);
  }
}

/** Several nodes of one process, each with a directory of its own, around one directory store. */
export class TestCluster {
  readonly dir = mkdtempSync(path.join(os.tmpdir(), "sluice-cluster-"));
  readonly nodes = new Map<string, Node>();
  readonly leases = new Map<string, TestLease>();
  readonly metrics = new Map<string, Metrics>();
  /** Of nodes that were connected. */
  readonly peers = new Map<string, StreamPeers>();
  readonly #ports = new Map<string, number>();
  readonly #servers = new Map<string, Server>();

  at(...parts: string[]): string {
    return path.join(this.dir, ...parts);
  }

  db(name: string): string {
    return this.at(name, "app.db");
  }

  make(
    name: string,
    options: Partial<NodeCluster> = {},
    dbs = `{ path: ${name}/app.db, store: store, source: store }`,
  ): Node {
    const text = `dbs: [ ${dbs} ]\nnode: { name: ${name} }`;
    const { value, problems } = parseConfig(text, {});
    if (problems.length > 0) throw new Error(JSON.stringify(problems));
    const config = resolveConfig(value!, this.at("sluice.yml"), {});
    if (!("dbs" in config)) throw new Error(JSON.stringify(config));
    const metrics = new Metrics();
    this.metrics.set(name, metrics);
    const node = new Node({
      config,
      log: createLog({ level: process.env["SLUICE_TEST_LOG"] ?? "fatal" }).child({ node: name }),
      metrics,
      restoreMissing: true,
      cluster: {
        nodeId: name,
        advertise: `http://${name}:1`,
        candidate: true,
        register: this.#lease(name),
        ttlMs: 2_000,
        takeoverTimeoutMs: 10_000,
        handoffTimeoutMs: 10_000,
        hold: () => Promise.resolve(),
        release: () => undefined,
        memberLagMs: 5_000,
        peers: () => nobody,
        ...options,
      },
    });
    this.nodes.set(name, node);
    return node;
  }

  /** A node that is followed, and follows, over the stream. */
  async connect(
    name: string,
    options: Partial<NodeCluster> = {},
    dbs = `{ path: ${name}/app.db, store: store }`,
  ): Promise<Node> {
    const server = createServer().listen(this.#ports.get(name) ?? 0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    this.#ports.set(name, port);
    this.#servers.set(name, server);
    const advertise = `http://127.0.0.1:${port}`;
    const peers = (node: Node): Peers => {
      const made = new StreamPeers({
        node,
        nodeId: name,
        name,
        advertise,
        noteDir: this.at(name),
        secret: undefined,
        tls: undefined,
        isCandidate: options.candidate ?? true,
        onProblem: (error) => {
          if (process.env["SLUICE_TEST_LOG"]) console.log(name, String(error));
        },
        heartbeatMs: 200,
      });
      server.on("upgrade", made.handleUpgrade);
      this.peers.set(name, made);
      return made;
    };
    return this.make(name, { advertise, peers, ...options }, dbs);
  }

  /** Loses its lease without learning why, and no node reaches it any more. */
  cutOff(name: string): void {
    this.leases.get(name)!.isBroken = true;
    this.#servers.get(name)?.close();
    this.peers.get(name)!.server.close();
  }

  #lease(name: string): TestLease {
    const lease = new TestLease(new DirectoryStore(this.at("store")));
    this.leases.set(name, lease);
    return lease;
  }

  async stop(name: string): Promise<void> {
    const node = this.nodes.get(name);
    this.nodes.delete(name);
    await node?.stop();
    this.#servers.get(name)?.close();
    this.#servers.delete(name);
  }

  async remove(): Promise<void> {
    for (const name of this.nodes.keys()) await this.stop(name);
    rmSync(this.dir, { recursive: true, force: true });
  }

  get primary(): string | undefined {
    return [...this.nodes].find(([, node]) => node.reign !== undefined)?.[0];
  }

  /** An application of its own process: SQLite's locks belong to processes. */
  sql(name: string, ...statements: string[]): string {
    return execFileSync("python3", ["-c", SCRIPT, this.db(name), "10", ...statements], { encoding: "utf8" }).trim();
  }

  /** The same without blocking this process, which holds the locks. */
  sqlBeside(name: string, timeoutSeconds: number, ...statements: string[]): Promise<string> {
    return this.sqlIn(this.db(name), timeoutSeconds, ...statements);
  }

  async sqlIn(file: string, timeoutSeconds: number, ...statements: string[]): Promise<string> {
    const args = ["-c", SCRIPT, file, String(timeoutSeconds), ...statements];
    return (await run("python3", args, { encoding: "utf8" })).stdout.trim();
  }
}

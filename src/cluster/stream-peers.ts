import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { Replica } from "../database/replica.ts";
import { SluiceError } from "../errors/error.ts";
import type { Node } from "./node.ts";
import type { ConnectedReplica, Peers } from "./peers.ts";
import { LeadingDatabases } from "./published-databases.ts";
import { StreamClient } from "./stream/client.ts";
import { newLife, type NodeIdentity } from "./stream/identity.ts";
import { StreamServer } from "./stream/server.ts";
import type { TlsFiles } from "./stream/tls.ts";
import type { Attachment } from "./upstream.ts";
import { VERSION } from "../observe/version.ts";

export interface StreamPeersOptions {
  readonly node: Node;
  readonly nodeId: string;
  readonly name: string;
  readonly advertise: string;
  readonly secret: string | undefined;
  readonly tls: TlsFiles | undefined;
  readonly isCandidate: boolean;
  readonly onProblem: (error: SluiceError) => void;
  readonly heartbeatMs?: number;
}

/** The other nodes, over the replication stream (docs/replication-stream.md). */
export class StreamPeers implements Peers {
  readonly #options: StreamPeersOptions;
  readonly #published: LeadingDatabases;
  readonly #life = newLife();
  readonly server: StreamServer;
  readonly client: StreamClient;

  constructor(options: StreamPeersOptions) {
    const { node, secret, tls, isCandidate, onProblem, heartbeatMs } = options;
    this.#options = options;
    this.#published = new LeadingDatabases(() => node.databases);
    const identity = (): NodeIdentity => this.#identity();
    this.server = new StreamServer({
      identity,
      secret,
      databases: this.#published,
      role: () => ({ isPrimary: node.reign !== undefined, primary: node.primary?.advertise }),
      onDeposed: (name, epoch) =>
        node.deposed(
          new SluiceError("SLU-8106", `${name}: a node knows epoch ${epoch}, which is later than this one's`),
        ),
      ...(heartbeatMs !== undefined && { heartbeatMs }),
    });
    this.client = new StreamClient({
      identity,
      secret,
      ...(tls && { tls }),
      isCandidate,
      onProblem,
      onCalled: () => node.lookAtLease(),
      onPrimary: () => node.lookAtLease(),
      ...(heartbeatMs !== undefined && { heartbeatMs }),
    });
  }

  /** For `upgrade` events of the node's API server. */
  readonly handleUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void =>
    this.server.handleUpgrade(request, socket, head);

  /** A database's state, or the node's role, may have changed. */
  changed(): void {
    this.#published.changed();
  }

  follow(url: string | undefined): void {
    if (url !== undefined) this.server.disconnect();
    this.client.follow(url);
  }

  get replicas(): readonly ConnectedReplica[] {
    return this.server.replicas.map(({ nodeId, life, name, advertise, isCandidate }) => ({
      nodeId,
      name,
      advertise,
      isCandidate,
      lagMs: this.server.lagMs(life),
    }));
  }

  awaitReplica(nodeId: string, signal: AbortSignal): Promise<void> {
    return this.server.awaitReplica(nodeId, signal);
  }

  callSuccessor(nodeId: string): void {
    this.server.callSuccessor(nodeId);
  }

  attach(name: string, replica: Replica): Attachment {
    return this.client.attach(name, replica);
  }

  seed(name: string, path: string, signal: AbortSignal): Promise<boolean> {
    return this.client.seed(name, path, signal);
  }

  async close(): Promise<void> {
    this.server.close();
    await this.client.close();
  }

  #identity(): NodeIdentity {
    const { node, nodeId, name, advertise } = this.#options;
    return { clusterId: node.clusterId, nodeId, life: this.#life, name, advertise, version: VERSION };
  }
}

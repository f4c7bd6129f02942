import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import type { Replica } from "../database/replica.ts";
import { SluiceError } from "../errors/error.ts";
import { type Clock, systemClock } from "../log/clock.ts";
import type { Node } from "./node.ts";
import { FetchAhead } from "./fetch-ahead.ts";
import { KnownNodes } from "./known-nodes.ts";
import type { ConnectedReplica, Peers } from "./peers.ts";
import { LeadingDatabases } from "./published-databases.ts";
import { FollowingDatabases } from "./published-replicas.ts";
import { StreamClient, type StreamClientOptions } from "./stream/client.ts";
import { newLife, type NodeIdentity } from "./stream/identity.ts";
import { StreamServer } from "./stream/server.ts";
import type { TlsFiles } from "./stream/tls.ts";
import type { Attachment, MemberCandidate } from "./upstream.ts";
import { VERSION } from "../observe/version.ts";

export interface StreamPeersOptions {
  readonly node: Pick<
    Node,
    | "databases"
    | "reign"
    | "primary"
    | "clusterId"
    | "deposed"
    | "placeRecords"
    | "appeared"
    | "vanished"
    | "lookAtLease"
  >;
  readonly nodeId: string;
  readonly name: string;
  readonly advertise: string;
  /** Where this node keeps what is no single database's. */
  readonly noteDir: string;
  readonly secret: string | undefined;
  readonly tls: TlsFiles | undefined;
  readonly isCandidate: boolean;
  readonly onProblem: (error: SluiceError) => void;
  /** While this node takes over it got what the node at `url` had more. */
  readonly onFetched?: (name: string, url: string) => void;
  readonly heartbeatMs?: number;
  /** Default: the system's. */
  readonly clock?: Clock;
  /** 0 ≤ x < 1, for jitter and the numbers of members. Default: Math.random. */
  readonly random?: () => number;
  /** Opens a WebSocket. Default: one over the network. */
  readonly connect?: StreamClientOptions["connect"];
}

/** A takeover so soon after a handover is that handover's. */
const CALLED_MS = 5_000;
/** How long a database must be away from a primary that is connected, to count as deleted. */
const GONE_MS = 5_000;

/** The other nodes, over the replication stream (docs/replication-stream.md). */
export class StreamPeers implements Peers {
  readonly #options: StreamPeersOptions;
  readonly #clock: Clock;
  readonly #published: LeadingDatabases;
  readonly #life = newLife();
  readonly #lags = new Set<Lag>();
  /** How records of the primary that was followed last name this life. */
  readonly #members = new Set<number>();
  #memberOf = "";
  /** The primary that was followed last, those that it has told of, and those that followed this one. */
  readonly known: KnownNodes;
  /** When the primary handed over to this node, which has everything then: nobody needs to be asked. */
  #calledMs = Number.NEGATIVE_INFINITY;
  readonly #ahead: FetchAhead;
  /** Databases that the primary has no more, with what takes that back. */
  readonly #gone = new Map<string, () => void>();
  readonly server: StreamServer;
  readonly client: StreamClient;

  constructor(options: StreamPeersOptions) {
    const { node, nodeId, secret, tls, isCandidate, onProblem, onFetched = () => undefined, heartbeatMs } = options;
    const { clock = systemClock, random, connect } = options;
    const timing = { clock, ...(random && { random }), ...(connect && { connect }) };
    this.#clock = clock;
    this.#options = options;
    this.known = new KnownNodes(options.noteDir);
    this.#published = new LeadingDatabases(() => node.databases, clock);
    const identity = (): NodeIdentity => this.#identity();
    this.server = new StreamServer({
      identity,
      secret,
      databases: this.#published,
      followed: new FollowingDatabases(() => node.databases),
      onConnected: ({ nodeId, advertise }) => this.#meet(nodeId, advertise),
      role: () => ({ isPrimary: node.reign !== undefined, primary: node.primary?.advertise }),
      onDeposed: (name, epoch) =>
        node.deposed(
          new SluiceError("SLU-8106", `${name}: a node knows epoch ${epoch}, which is later than this one's`),
        ),
      ...(heartbeatMs !== undefined && { heartbeatMs }),
      clock,
      ...(random && { random }),
    });
    this.client = new StreamClient({
      identity,
      secret,
      ...(tls && { tls }),
      isCandidate,
      onConnected: ({ nodeId, member }) => {
        // Numbers that another primary gave mean nothing in this one's records.
        if (nodeId !== this.#memberOf) this.#members.clear();
        this.#memberOf = nodeId;
        this.#members.add(member);
        this.#calledMs = Number.NEGATIVE_INFINITY;
        this.#meet(nodeId, this.client.url ?? "");
      },
      onMembers: (members) => {
        const others = members.map(({ id, advertise }) => [id, advertise] as const);
        const all = [[this.#memberOf, this.client.url ?? ""] as const, ...others];
        this.known.replace(all.filter(([id, url]) => id !== nodeId && url !== ""));
      },
      placeRecords: (name, signal) => node.placeRecords(name, signal),
      onProblem,
      onDatabase: ({ name }) => {
        this.#gone.get(name)?.();
        node.appeared(name);
      },
      onGone: (name) => this.#wentAway(name),
      onDisconnected: () => {
        // Nobody says any more what there is: nothing is taken for deleted.
        for (const cancel of this.#gone.values()) cancel();
      },
      onCalled: () => {
        this.#calledMs = clock.elapsedMs();
        node.lookAtLease();
      },
      onPrimary: () => node.lookAtLease(),
      ...(heartbeatMs !== undefined && { heartbeatMs }),
      ...timing,
    });
    this.#ahead = new FetchAhead({
      identity,
      secret,
      ...(tls && { tls }),
      ...(heartbeatMs !== undefined && { heartbeatMs }),
      ...timing,
      urls: () => this.known.urls,
      onFetched,
      onProblem,
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

  candidates(name: string): readonly MemberCandidate[] {
    const { acks, replicas } = this.server;
    return replicas
      .filter(({ isCandidate }) => isCandidate)
      .map(({ member, life }) => ({
        member,
        applied: acks.get(name, life)?.position,
        lagMs: acks.lagMs(name, life),
      }));
  }

  onAcknowledged(listener: () => void): () => void {
    return this.server.acks.onChanged(listener);
  }

  isOwnMember(member: number): boolean {
    return this.#members.has(member);
  }

  awaitReplica(nodeId: string, signal: AbortSignal): Promise<void> {
    return this.server.awaitReplica(nodeId, signal);
  }

  callSuccessor(nodeId: string): void {
    this.server.callSuccessor(nodeId);
  }

  attach(name: string, replica: Replica): Attachment {
    const attachment = this.client.attach(name, replica);
    const lag = new Lag(replica, attachment, this.#clock);
    this.#lags.add(lag);
    return {
      get isJoined() {
        return attachment.isJoined;
      },
      failed: attachment.failed,
      detach: async () => {
        this.#lags.delete(lag);
        await attachment.detach();
      },
    };
  }

  get isBehind(): boolean {
    for (const lag of this.#lags) if (lag.isBehind) return true;
    return false;
  }

  get lagMs(): number | undefined {
    let most: number | undefined;
    for (const lag of this.#lags) {
      const { ms } = lag;
      if (ms === undefined) return undefined;
      most = Math.max(most ?? 0, ms);
    }
    return most;
  }

  seed(name: string, path: string, signal: AbortSignal): Promise<boolean> {
    return this.client.seed(name, path, signal);
  }

  fetchAhead(name: string, replica: Replica, signal: AbortSignal): Promise<void> {
    if (this.#clock.elapsedMs() - this.#calledMs < CALLED_MS) return Promise.resolve();
    return this.#ahead.fetch(name, replica, signal);
  }

  #meet(nodeId: string, url: string): void {
    if (url !== "" && nodeId !== this.#options.nodeId) this.known.add(nodeId, url);
  }

  /** A database that is opened anew goes away for a moment, too. */
  #wentAway(name: string): void {
    const cancel = this.#clock.schedule(GONE_MS, () => {
      this.#gone.delete(name);
      void this.#options.node.vanished(name);
    });
    this.#gone.set(name, () => {
      cancel();
      this.#gone.delete(name);
    });
  }

  async close(): Promise<void> {
    for (const cancel of this.#gone.values()) cancel();
    this.server.close();
    await this.client.close();
  }

  #identity(): NodeIdentity {
    const { node, nodeId, name, advertise } = this.#options;
    return { clusterId: node.clusterId, nodeId, life: this.#life, name, advertise, version: VERSION };
  }
}

/** How old the state of one database on a replica is, as far as its primary's heartbeats say. */
class Lag {
  readonly #replica: Replica;
  readonly #attachment: ReturnType<StreamClient["attach"]>;
  readonly #clock: Clock;
  #equalAtMs: number | undefined;

  constructor(replica: Replica, attachment: ReturnType<StreamClient["attach"]>, clock: Clock) {
    this.#clock = clock;
    this.#replica = replica;
    this.#attachment = attachment;
  }

  get isBehind(): boolean {
    const newest = this.#attachment.durable?.newest;
    return newest !== undefined && (this.#replica.position ?? 0n) < newest;
  }

  get ms(): number | undefined {
    const newest = this.#attachment.durable?.newest;
    const position = this.#replica.position;
    const nowMs = this.#clock.elapsedMs();
    if (this.#attachment.isJoined && newest !== undefined && position !== undefined && position >= newest) {
      this.#equalAtMs = nowMs;
    }
    return this.#equalAtMs === undefined ? undefined : nowMs - this.#equalAtMs;
  }
}

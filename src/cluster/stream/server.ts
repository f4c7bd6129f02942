import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { type WebSocket, WebSocketServer } from "ws";
import type { CommitFeed } from "../../database/replication.ts";
import { isLoopback } from "../../config/resolve.ts";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import { type Clock, delay, sleep, systemClock } from "../../log/clock.ts";
import { hasSecret, isOwnProgram } from "../access.ts";
import { AckTable } from "./acks.ts";
import { damaged } from "./bytes.ts";
import { agree, assertKin, fieldsOf, type NodeIdentity } from "./identity.ts";
import { Link, type LinkEvents } from "./link.ts";
import { type Content, FETCH, MESSAGE_BYTES_MAX, type Message, PROTOCOL_MAX, PROTOCOL_MIN } from "./messages.ts";
import type { PublishedDatabases } from "./published.ts";
import { Publisher } from "./publisher.ts";
import { ResyncSources } from "./resync-sources.ts";

const STREAM_PATH = "/v1/stream";
/** Replicas that may be connected at once. */
const CONNECTIONS_MAX = 64;
/** How long a client that was refused may take to read why. */
const REFUSED_MS = 1_000;

export interface StreamServerOptions {
  readonly identity: () => NodeIdentity;
  /** Undefined: only connections from this machine are served. */
  readonly secret: string | undefined;
  readonly databases: PublishedDatabases;
  /** What this node shows to one that takes over, while it isn't the primary itself. */
  readonly followed?: PublishedDatabases;
  /** Whether this node is the primary now; otherwise where the primary is, as far as this node knows. */
  readonly role: () => { readonly isPrimary: boolean; readonly primary: string | undefined };
  /** What heartbeats say about the lease; at most 4 KiB. */
  readonly lease?: () => string;
  /** A replica has seen a later epoch: this node is no longer the primary, whatever it believes. */
  readonly onDeposed?: (name: string, epoch: number) => void;
  /** A replica came, or went for the reason given. */
  readonly onConnected?: (replica: StreamReplica) => void;
  readonly onDisconnected?: (replica: StreamReplica, reason: SluiceError) => void;
  readonly heartbeatMs?: number;
  /** For tests of nodes of different releases. */
  readonly protocol?: { readonly min: number; readonly max: number };
  /** Default: the system's. */
  readonly clock?: Clock;
  /** 0 ≤ x < 1, for the numbers of members. Default: Math.random. */
  readonly random?: () => number;
}

/** A replica that is connected. */
export interface StreamReplica {
  readonly nodeId: string;
  readonly life: bigint;
  /** Random, of this life: how records name it (protocol section 9). */
  readonly member: number;
  readonly name: string;
  readonly advertise: string;
  readonly version: string;
  readonly isCandidate: boolean;
}

interface Connection extends StreamReplica {
  readonly link: Link;
  readonly publisher: Publisher;
  /** It only asks what this node has. */
  readonly isFetching: boolean;
  /** When something was last received. */
  heardMs: number;
}

/**
 * The primary's side of the replication stream (docs/replication-stream.md): takes connections on the node's API server,
 * greets them, and runs a `Publisher` for each. A node that isn't primary refuses them and says who is.
 *
 *     upgrade ─ secret ─► hello ─ cluster, id, version, role ─► published ─► ended
 *        └ 401, 404, 503          └ refusal, with a code
 */
export class StreamServer {
  readonly acks: AckTable;
  readonly sources: ResyncSources;
  readonly #options: StreamServerOptions;
  readonly #clock: Clock;
  readonly #sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MESSAGE_BYTES_MAX,
    clientTracking: false,
  });
  readonly #links = new Set<Link>();
  /** Of nodes that take over and ask what this one has. */
  readonly #fetching = new Set<Link>();
  readonly #connections = new Map<bigint, Connection>();
  readonly #heartbeatMs: number;
  readonly #stops: (() => void)[] = [];
  readonly #watched = new Map<string, { readonly feed: CommitFeed; readonly stop: () => void }>();
  #isClosed = false;

  constructor(options: StreamServerOptions) {
    this.#options = options;
    const clock = options.clock ?? systemClock;
    this.#clock = clock;
    this.acks = new AckTable(() => clock.elapsedMs());
    this.sources = new ResyncSources(undefined, clock);
    this.#heartbeatMs = options.heartbeatMs ?? 1_000;
    this.#stops.push(options.databases.onChanged(() => this.#watch()));
    this.#watch();
  }

  get replicas(): readonly StreamReplica[] {
    return [...this.#connections.values()];
  }

  /** Of the database that the replica is furthest behind with; infinite while it has not joined one of them. */
  lagMs(life: bigint): number {
    let most = 0;
    for (const { name } of this.#options.databases.list()) most = Math.max(most, this.acks.lagMs(name, life));
    return most;
  }

  /** For `upgrade` events of the node's API server. The socket is this one's from now on. */
  readonly handleUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
    socket.on("error", () => socket.destroy());
    const path = (request.url ?? "").split("?", 1)[0];
    if (path !== STREAM_PATH) return refuseUpgrade(socket, "404 Not Found");
    if (!this.#isAllowed(request)) return refuseUpgrade(socket, "401 Unauthorized");
    if (this.#isClosed || this.#links.size >= CONNECTIONS_MAX) return refuseUpgrade(socket, "503 Service Unavailable");
    this.#sockets.handleUpgrade(request, socket, head, (webSocket) => this.accept(webSocket));
  };

  /**
   * Resolves when the replica has everything: each database's newest position, and its last record. SLU-8104 when it is
   * not connected for longer than a heartbeat.
   */
  async awaitReplica(nodeId: string, signal: AbortSignal): Promise<void> {
    let goneMs: number | undefined;
    for (;;) {
      signal.throwIfAborted();
      const life = this.#of(nodeId)?.life;
      if (life !== undefined && this.#hasAll(life)) return;
      const nowMs = this.#clock.elapsedMs();
      goneMs = life === undefined ? (goneMs ?? nowMs) : undefined;
      if (goneMs !== undefined && nowMs - goneMs >= this.#heartbeatMs) {
        throw new SluiceError("SLU-8104", `${nodeId} is not connected any more`);
      }
      const changed = new AbortController();
      const stop = this.acks.onChanged(() => changed.abort());
      await sleep(this.#clock, this.#heartbeatMs, AbortSignal.any([signal, changed.signal]));
      stop();
    }
  }

  /** Tells a replica that the lease names it. */
  callSuccessor(nodeId: string): void {
    this.#of(nodeId)?.link.send("called", {});
  }

  /** Ends all connections: this node is no longer the primary. `successor`: who is, as far as it's known. */
  disconnect(successor?: { readonly nodeId: string; readonly advertise: string }): void {
    const error = new SluiceError("SLU-8205", "this node is no longer the primary");
    for (const link of this.#links) {
      // Who asks is about to be the primary that this node follows from now on.
      if (this.#fetching.has(link) && !this.#isClosed) continue;
      link.send("goodbye", { successor: successor?.nodeId ?? "", advertise: successor?.advertise ?? "" });
      link.end(error);
    }
  }

  close(successor?: { readonly nodeId: string; readonly advertise: string }): void {
    this.#isClosed = true;
    this.disconnect(successor);
    for (const stop of this.#stops) stop();
    for (const { stop } of this.#watched.values()) stop();
  }

  #of(nodeId: string): Connection | undefined {
    return [...this.#connections.values()].find((connection) => connection.nodeId === nodeId);
  }

  #hasAll(life: bigint): boolean {
    for (const { name, feed, record } of this.#options.databases.list()) {
      const has = this.acks.get(name, life);
      if (has === undefined || has.position < feed.position || has.txid < (record?.txid ?? 0)) return false;
    }
    return true;
  }

  /** Notes when each position was captured, for lags. */
  #watch(): void {
    const now = new Map([...this.#options.databases.list()].map((database) => [database.name, database.feed]));
    for (const [name, { feed, stop }] of this.#watched) {
      if (now.get(name) === feed) continue;
      stop();
      this.#watched.delete(name);
      if (!now.has(name)) this.acks.drop(name);
    }
    for (const [name, feed] of now) {
      if (this.#watched.has(name)) continue;
      const note = (): void => this.acks.captured(name, feed.position);
      note();
      this.#watched.set(name, { feed, stop: feed.onMoved(note) });
    }
  }

  #isAllowed(request: IncomingMessage): boolean {
    const { secret } = this.#options;
    if (secret !== undefined) return hasSecret(request, secret);
    return isLoopback(request.socket.remoteAddress?.replace(/^::ffff:/, "") ?? "") && isOwnProgram(request);
  }

  /** A connection of a client that may ask. The socket is this one's from now on. */
  accept(webSocket: WebSocket): void {
    let greeted = false;
    let connection: Connection | undefined;
    const events: LinkEvents = {
      onMessage: (message) => {
        if (connection !== undefined) {
          connection.heardMs = this.#clock.elapsedMs();
          return connection.publisher.receive(message);
        }
        if (greeted && message.type === "heartbeat") return;
        if (greeted || message.type !== "hello") throw unexpected(message);
        greeted = true;
        this.#greet(link, message)
          .then((greetedNow) => (connection = greetedNow))
          .catch((error: unknown) => this.#refuse(link, error));
      },
      onBeat: () => {
        connection?.publisher.beat();
        if (connection?.isFetching === false) link.send("members", { nodes: this.#members() });
      },
      onDrain: () => connection?.publisher.pump(),
      onEnd: (error) => {
        this.#links.delete(link);
        this.#fetching.delete(link);
        if (connection === undefined) return;
        connection.publisher.end();
        if (connection.isFetching) return;
        if (this.#connections.get(connection.life) === connection) this.#connections.delete(connection.life);
        this.#options.onDisconnected?.(connection, error);
      },
    };
    const link = new Link(webSocket, this.#heartbeatMs, events, this.#clock);
    this.#links.add(link);
  }

  /** Throws what the connection is refused with. */
  async #greet(link: Link, hello: Content<"hello">): Promise<Connection | undefined> {
    const {
      protocol: speaks = { min: PROTOCOL_MIN, max: PROTOCOL_MAX },
      role,
      followed,
      random = Math.random,
    } = this.#options;
    const identity = this.#options.identity();
    const protocol = agree(speaks, hello);
    assertKin(identity, hello.node);
    const isFetching = hello.features.includes(FETCH) && followed !== undefined && !role().isPrimary;
    if (!isFetching) await this.#displace(hello.node.id, hello.node.life);
    if (link.isEnded) return undefined;
    if (!isFetching && !role().isPrimary) throw new SluiceError("SLU-8205", `${identity.name} is not the primary`);
    const member = 1 + Math.floor(random() * 0xffff);
    const { life } = hello.node;
    link.send("welcome", {
      protocol,
      features: isFetching ? [FETCH] : [],
      node: fieldsOf(identity),
      member,
      heartbeatMs: this.#heartbeatMs,
    });
    const { databases: own, onDeposed = () => undefined, lease = () => "" } = this.#options;
    const { sources } = this;
    // What was fetched is no acknowledgement, and who knows of a later epoch than a replica deposes nobody.
    const parts = isFetching
      ? { databases: followed, acks: new AckTable(() => this.#clock.elapsedMs()), onDeposed: () => undefined }
      : { databases: own, acks: this.acks, onDeposed };
    const { id: nodeId, name, advertise, version } = hello.node;
    const connection: Connection = {
      nodeId,
      life,
      member,
      name,
      advertise,
      version,
      isCandidate: hello.candidate,
      link,
      heardMs: this.#clock.elapsedMs(),
      publisher: new Publisher({ link, life, sources, lease, clock: this.#clock, ...parts }),
      isFetching,
    };
    if (isFetching) {
      this.#fetching.add(link);
      return connection;
    }
    this.#connections.set(life, connection);
    this.#options.onConnected?.(connection);
    return connection;
  }

  /**
   * A node comes again. The same life: its old connection is dead, or as good as that. Another life: the node was started
   * anew, unless the old connection is still alive; then there are two nodes with one id (SLU-8204).
   */
  async #displace(nodeId: string, life: bigint): Promise<void> {
    const old = this.#of(nodeId);
    if (old === undefined) return;
    const sinceMs = this.#clock.elapsedMs();
    while (old.life !== life && !old.link.isEnded) {
      if (old.heardMs > sinceMs) {
        throw new SluiceError("SLU-8204", `${old.name} (${old.advertise}) is connected with the same id`);
      }
      await delay(this.#clock, this.#heartbeatMs / 4);
    }
    old.link.end(new SluiceError("SLU-8210", "the node has connected again"));
  }

  #refuse(link: Link, error: unknown): void {
    if (!isSluiceError(error)) throw error;
    const { code, message } = error;
    link.end(error, { code, message, primary: this.#options.role().primary ?? "" });
  }

  #members(): Content<"members">["nodes"] {
    return [...this.#connections.values()].map(({ nodeId, life, member, name, advertise, isCandidate }) => {
      const lagMs = Math.round(Math.min(this.lagMs(life), Number.MAX_SAFE_INTEGER));
      return { id: nodeId, life, member, name, advertise, candidate: isCandidate, lagMs };
    });
  }
}

function refuseUpgrade(socket: Duplex, status: string): void {
  socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
  // Who doesn't close the other half is not waited for: no timeout of the HTTP server's is left on it.
  setTimeout(() => socket.destroy(), REFUSED_MS).unref();
}

function unexpected({ type }: Message): SluiceError {
  return damaged(`a "${type}" where a "hello" was due`);
}

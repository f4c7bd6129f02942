import { type ClientOptions, WebSocket } from "ws";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import { isErrorCode } from "../../errors/codes.ts";
import { type Clock, delay, sleep, systemClock } from "../../log/clock.ts";
import type { Attachment } from "../upstream.ts";
import { damaged } from "./bytes.ts";
import { agree, assertKin, fieldsOf, type NodeIdentity } from "./identity.ts";
import { Fetching } from "./fetching.ts";
import { type Durable, Incoming } from "./incoming.ts";
import { Link, type LinkEvents } from "./link.ts";
import { type Content, MESSAGE_BYTES_MAX, type Message, PROTOCOL_MAX, PROTOCOL_MIN } from "./messages.ts";
import type { FollowingDatabase } from "./published.ts";
import { Seeding } from "./seeding.ts";
import { clientTls, isTlsError, type TlsFiles } from "./tls.ts";

const RETRY_FIRST_MS = 100;
const RETRY_LAST_MS = 5_000;
/** A connection that has lasted so long was a good one: the next try comes at once again. */
const GOOD_MS = 5_000;
const HEARTBEAT_MS_MIN = 10;
/** How long a copy waits for a primary before the node looks elsewhere. */
const SEED_PATIENCE_MS = 3_000;

export interface StreamClientOptions {
  readonly identity: () => NodeIdentity;
  readonly secret: string | undefined;
  readonly tls?: TlsFiles;
  /** Whether this node may become primary. */
  readonly isCandidate: boolean;
  /** What it says of itself in `hello`; see `FETCH`. */
  readonly features?: readonly string[];
  /** Places the records of a database's log from its store; rejects when there is none in reach. */
  readonly placeRecords?: (name: string, signal: AbortSignal) => Promise<void>;
  /** The primary that it was greeted by. */
  readonly onConnected?: (primary: {
    readonly nodeId: string;
    readonly name: string;
    readonly clusterId: string;
    /** How the primary's records name this life (protocol section 9). */
    readonly member: number;
  }) => void;
  readonly onDisconnected?: (reason: SluiceError) => void;
  /** Whoever was asked says that another node is primary, or will be. */
  readonly onPrimary?: (advertise: string) => void;
  /** The primary says that the lease names this node. */
  readonly onCalled?: () => void;
  /** The primary has a database of this name, or not any more. */
  readonly onDatabase?: (database: Content<"database">) => void;
  readonly onGone?: (name: string) => void;
  readonly onHeartbeat?: (heartbeat: Content<"heartbeat">) => void;
  readonly onMembers?: (members: Content<"members">["nodes"]) => void;
  readonly onDurable?: (name: string, durable: Durable) => void;
  readonly onProblem?: (error: SluiceError) => void;
  /** Until the primary says how often. */
  readonly heartbeatMs?: number;
  /** For tests of nodes of different releases. */
  readonly protocol?: { readonly min: number; readonly max: number };
  /** Default: the system's. */
  readonly clock?: Clock;
  /** 0 ≤ x < 1, for jitter. Default: Math.random. */
  readonly random?: () => number;
  /** Opens a WebSocket. Default: one over the network. */
  readonly connect?: (url: URL, options: ClientOptions) => WebSocket;
}

interface Session {
  readonly link: Link;
  readonly primary: { readonly nodeId: string; readonly name: string; readonly clusterId: string };
}

/**
 * The replica's side of the replication stream (docs/replication-stream.md): one connection to the primary, again and
 * again, for all databases that are attached.
 *
 *     idle ── follow(url) ─► connecting ─► greeting ─► following: databases join as they are attached
 *      ▲                        ▲              │            │
 *      │                        └─ 0.1 … 5 s ◄─┴────────────┘ refused, lost, or silent for three heartbeats
 *      └── follow(undefined), close
 */
export class StreamClient {
  readonly #options: StreamClientOptions;
  readonly #clock: Clock;
  readonly #databases = new Map<number, Incoming | Seeding | Fetching>();
  readonly #acks = new Set<Incoming>();
  #url: string | undefined;
  #following = new AbortController();
  #life: Promise<void> = Promise.resolve();
  #session: Session | undefined;
  #greeted = Promise.withResolvers<void>();
  #nextChannel = 1;
  #isAckDue = false;

  constructor(options: StreamClientOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** Whom it is connected to. */
  get primary(): Session["primary"] | undefined {
    return this.#session?.primary;
  }

  get url(): string | undefined {
    return this.#url;
  }

  /** Follows the node at this URL (http or https); undefined: nobody. The same URL again changes nothing. */
  follow(url: string | undefined): void {
    if (url === this.#url) return;
    this.#url = url;
    this.#following.abort();
    this.#following = new AbortController();
    const before = this.#life;
    const { signal } = this.#following;
    this.#life = before.then(() => (url === undefined ? undefined : this.#live(url, signal)));
  }

  attach(name: string, database: FollowingDatabase): Attachment & { readonly durable: Durable | undefined } {
    const { placeRecords, onDurable = () => undefined, onProblem = () => undefined } = this.#options;
    const incoming = new Incoming({
      channel: this.#channel(),
      name,
      database,
      placeRecords: placeRecords && ((signal) => placeRecords(name, signal)),
      ackSoon: this.#ackSoon,
      onDurable: (durable) => onDurable(name, durable),
      onProblem,
      clock: this.#clock,
    });
    this.#databases.set(incoming.channel, incoming);
    if (this.#session !== undefined) incoming.connect(this.#session.link);
    return {
      get isJoined() {
        return incoming.isJoined;
      },
      get durable() {
        return incoming.durable;
      },
      failed: incoming.failed,
      detach: async () => {
        await incoming.detach();
        this.#databases.delete(incoming.channel);
      },
    };
  }

  /**
   * Copies the primary's database `name` to `path`, where there is no file, with the state that a replica opens it with.
   * False when no primary is in reach, or it has no such database. Rejects when the copy fails: SLU-8213 and what else
   * may pass, SLU-2008 to SLU-2010 for what this disk says.
   */
  async seed(name: string, path: string, signal: AbortSignal): Promise<boolean> {
    const patience = delay(this.#clock, SEED_PATIENCE_MS, signal);
    while (this.#session === undefined) {
      const late = await Promise.race([this.#greeted.promise, patience.then(() => true)]);
      if (late === true) return false;
    }
    patience.catch(() => undefined);
    const seeding = new Seeding(this.#channel(), name, path, this.#session.link);
    this.#databases.set(seeding.channel, seeding);
    const onAbort = (): void => seeding.end(new SluiceError("SLU-8213", `${name}: the copy was stopped`));
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await seeding.done;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#databases.delete(seeding.channel);
    }
  }

  /**
   * Brings a database to the state that the connected node has, if that goes on from the database's own (`Fetching`).
   * Resolves with whether anything came; rejects when there is no connection, when it breaks off, and with the reason of
   * `signal`: nothing has changed then.
   */
  async fetch(name: string, database: FollowingDatabase, signal: AbortSignal): Promise<boolean> {
    signal.throwIfAborted();
    if (this.#session === undefined) throw new SluiceError("SLU-8210", `${name}: nobody is connected`);
    const fetching = new Fetching(this.#channel(), name, database, this.#session.link);
    this.#databases.set(fetching.channel, fetching);
    const onAbort = (): void => fetching.end(new SluiceError("SLU-8213", `${name}: not fetched in time`));
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await fetching.done;
    } finally {
      signal.removeEventListener("abort", onAbort);
      this.#databases.delete(fetching.channel);
    }
  }

  async close(): Promise<void> {
    this.follow(undefined);
    await this.#life;
  }

  #channel(): number {
    return this.#nextChannel++;
  }

  /** Connects to `url` until `signal` is aborted. */
  async #live(url: string, signal: AbortSignal): Promise<void> {
    const { onProblem = () => undefined, random = Math.random } = this.#options;
    let retryMs = RETRY_FIRST_MS;
    while (!signal.aborted) {
      const sinceMs = this.#clock.elapsedMs();
      const reason = await this.#connection(url, signal);
      if (signal.aborted) return;
      onProblem(reason);
      if (this.#clock.elapsedMs() - sinceMs > GOOD_MS) retryMs = RETRY_FIRST_MS;
      // Replicas that lost one primary together don't come back together.
      await sleep(this.#clock, retryMs * (0.5 + random() / 2), signal);
      retryMs = Math.min(2 * retryMs, RETRY_LAST_MS);
    }
  }

  /** One connection; resolves with the reason of its end. */
  #connection(url: string, signal: AbortSignal): Promise<SluiceError> {
    const { secret, tls, heartbeatMs = 1_000, onDisconnected, connect = overNetwork } = this.#options;
    const ended = Promise.withResolvers<SluiceError>();
    let socket: WebSocket;
    try {
      const target = new URL("v1/stream", url.endsWith("/") ? url : `${url}/`);
      target.protocol = target.protocol === "https:" ? "wss:" : "ws:";
      socket = connect(target, {
        perMessageDeflate: false,
        maxPayload: MESSAGE_BYTES_MAX,
        handshakeTimeout: 3 * heartbeatMs,
        ...(secret !== undefined && { headers: { authorization: `Bearer ${secret}` } }),
        ...(tls !== undefined && clientTls(tls)),
      });
    } catch (error) {
      return Promise.resolve(unreachable(url, error));
    }
    let refused: SluiceError | undefined;
    const failed = (error: SluiceError): void => {
      socket.on("error", () => undefined);
      socket.terminate();
      ended.resolve(error);
    };
    const onStop = (): void => failed(new SluiceError("SLU-8210", "nobody is followed any more"));
    signal.addEventListener("abort", onStop, { once: true });
    const onError = (error: Error): void => failed(unreachable(url, error));
    socket.once("error", onError);
    socket.once("unexpected-response", (_request, response) => {
      const { statusCode } = response;
      response.resume();
      if (statusCode === 401) failed(new SluiceError("SLU-8201", `${url} wants another secret`));
      else failed(new SluiceError("SLU-8210", `${url} answered ${statusCode}`));
    });
    socket.once("open", () => {
      socket.off("error", onError);
      signal.removeEventListener("abort", onStop);
      const events: LinkEvents = {
        onMessage: (message, sizeBytes) => {
          if (message.type === "refusal") {
            refused = this.#refusal(message);
            return link.end(refused);
          }
          if (this.#session?.link === link) return this.#receive(message, sizeBytes, this.#session);
          this.#welcome(message, link);
        },
        onBeat: () => link.send("heartbeat", { sentAtMs: this.#clock.now(), role: 0, lease: "" }),
        onDrain: () => undefined,
        onEnd: (error) => {
          signal.removeEventListener("abort", onLeave);
          if (this.#session?.link === link) {
            this.#lost(error);
            onDisconnected?.(error);
          }
          ended.resolve(refused ?? error);
        },
      };
      const link = new Link(socket, heartbeatMs, events, this.#clock);
      const onLeave = (): void => link.end(new SluiceError("SLU-8210", "nobody is followed any more"));
      signal.addEventListener("abort", onLeave, { once: true });
      this.#hello(link);
    });
    return ended.promise;
  }

  #hello(link: Link): void {
    const { identity, isCandidate, features = [], protocol = { min: PROTOCOL_MIN, max: PROTOCOL_MAX } } = this.#options;
    link.send("hello", { ...protocol, features, node: fieldsOf(identity()), candidate: isCandidate });
  }

  #welcome(message: Message, link: Link): void {
    const { identity, protocol = { min: PROTOCOL_MIN, max: PROTOCOL_MAX }, onConnected } = this.#options;
    if (message.type === "heartbeat") return;
    if (message.type !== "welcome") throw damaged(`a "${message.type}" where a "welcome" was due`);
    const { protocol: spoken, node, heartbeatMs, member } = message;
    agree(protocol, { min: spoken, max: spoken });
    assertKin(identity(), node);
    link.beatEvery(Math.max(HEARTBEAT_MS_MIN, heartbeatMs));
    const primary = { nodeId: node.id, name: node.name, clusterId: node.cluster };
    this.#session = { link, primary };
    onConnected?.({ ...primary, member });
    for (const database of this.#databases.values()) if (database instanceof Incoming) database.connect(link);
    this.#greeted.resolve();
    this.#greeted = Promise.withResolvers();
  }

  #refusal({ code, message, primary }: Content<"refusal">): SluiceError {
    if (primary !== "") this.#options.onPrimary?.(primary);
    return new SluiceError(isErrorCode(code) ? code : "SLU-8210", message);
  }

  #receive(message: Message, sizeBytes: number, { link }: Session): void {
    const { onHeartbeat, onMembers, onDatabase, onGone, onCalled, onPrimary } = this.#options;
    switch (message.type) {
      case "heartbeat":
        return onHeartbeat?.(message);
      case "members":
        return onMembers?.(message.nodes);
      case "called":
        return onCalled?.();
      case "goodbye":
        if (message.advertise !== "") onPrimary?.(message.advertise);
        return;
      case "database":
        onDatabase?.(message);
        for (const one of this.#databases.values()) {
          if (one instanceof Incoming && one.name === message.name) one.appeared();
        }
        return;
      case "gone":
        return onGone?.(message.name);
      case "durable":
        for (const { channel, newest, replica, store } of message.entries) {
          const one = this.#databases.get(channel);
          if (one instanceof Incoming) one.durableIs({ newest, replica, store });
        }
        return;
    }
    if (!("channel" in message)) throw damaged(`a "${message.type}" from a primary`);
    const one = this.#databases.get(message.channel);
    if (one instanceof Incoming) one.receive(message, sizeBytes, link);
    else one?.receive(message);
  }

  #lost(error: SluiceError): void {
    this.#session = undefined;
    for (const one of this.#databases.values()) {
      if (one instanceof Incoming) one.disconnect();
      else one.end(error);
    }
  }

  /** Acknowledgements of what was applied in one go are one message. */
  readonly #ackSoon = (incoming: Incoming): void => {
    this.#acks.add(incoming);
    if (this.#isAckDue) return;
    this.#isAckDue = true;
    setImmediate(() => {
      this.#isAckDue = false;
      const entries: Content<"applied">["entries"][number][] = [];
      for (const one of this.#acks) {
        const entry = one.acknowledgement();
        if (entry !== undefined && entries.length < 4_096) entries.push(entry);
      }
      this.#acks.clear();
      if (entries.length > 0) this.#session?.link.send("applied", { entries });
    });
  };
}

function overNetwork(url: URL, options: ClientOptions): WebSocket {
  return new WebSocket(url, options);
}

function unreachable(url: string, error: unknown): SluiceError {
  if (isSluiceError(error)) return error;
  const code = isTlsError(error) ? "SLU-8211" : "SLU-8210";
  return new SluiceError(code, `${url}: ${(error as Error).message}`, { cause: error });
}

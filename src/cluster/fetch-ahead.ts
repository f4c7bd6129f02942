import type { Replica } from "../database/replica.ts";
import { isSluiceError, type SluiceError } from "../errors/error.ts";
import { systemClock } from "../log/clock.ts";
import { StreamClient, type StreamClientOptions } from "./stream/client.ts";
import { FETCH } from "./stream/messages.ts";

/** Who hasn't answered by then isn't in reach. */
const REACH_MS = 500;
/** How long one database may take to get what others have more of it. */
const FETCH_MS = 5_000;

export interface FetchAheadOptions extends Pick<
  StreamClientOptions,
  "identity" | "secret" | "tls" | "heartbeatMs" | "clock" | "random" | "connect"
> {
  /** Where the other nodes of the cluster are, as far as this one has met them; read when the first database asks. */
  readonly urls: () => Iterable<string>;
  /** Something came. */
  readonly onFetched: (name: string, url: string) => void;
  readonly onProblem: (error: SluiceError) => void;
}

/**
 * What other nodes have more than this one, which takes over (protocol section 8): every node that answers is asked in
 * turn, for each database. The connections are shared by databases that ask at the same time, and go with the last of
 * them. A peer that is away, or dies in the middle, is done without.
 */
export class FetchAhead {
  readonly #options: FetchAheadOptions;
  #users = 0;
  #peers: readonly Peer[] = [];

  constructor(options: FetchAheadOptions) {
    this.#options = options;
  }

  /** Brings `replica`, which has placed its whole log, as far as any node in reach is. Never rejects. */
  async fetch(name: string, replica: Replica, signal: AbortSignal): Promise<void> {
    const { onFetched, onProblem, clock = systemClock } = this.#options;
    if (this.#users++ === 0) this.#peers = Array.from(this.#options.urls(), (url) => new Peer(url, this.#options));
    const peers = this.#peers;
    const late = AbortSignal.any([signal, clock.timeout(FETCH_MS)]);
    try {
      await Promise.all(peers.map(({ isReached }) => isReached));
      for (const { isReached, client, url } of peers) {
        if (late.aborted || !(await isReached)) continue;
        try {
          if (await client.fetch(name, replica, late)) onFetched(name, url);
        } catch (error) {
          if (!isSluiceError(error)) throw error;
          onProblem(error);
        }
      }
    } finally {
      if (--this.#users === 0) for (const { client } of peers) await client.close();
    }
  }
}

/** A connection to one node. */
class Peer {
  readonly url: string;
  readonly client: StreamClient;
  readonly isReached: Promise<boolean>;

  constructor(url: string, options: FetchAheadOptions) {
    const { identity, secret, tls, heartbeatMs, clock = systemClock, random, connect } = options;
    const reached = Promise.withResolvers<boolean>();
    const cancel = clock.schedule(REACH_MS, () => reached.resolve(false));
    this.url = url;
    this.isReached = reached.promise.finally(cancel);
    this.client = new StreamClient({
      identity,
      secret,
      ...(tls && { tls }),
      ...(heartbeatMs !== undefined && { heartbeatMs }),
      clock,
      ...(random && { random }),
      ...(connect && { connect }),
      isCandidate: false,
      features: [FETCH],
      onConnected: () => reached.resolve(true),
      onProblem: () => reached.resolve(false),
    });
    this.client.follow(url);
  }
}

import { EventEmitter } from "node:events";
import type { WebSocket } from "ws";
import type { LifeClock, Random } from "../../log/sim/clock.ts";

/** What was lost on the way is sent again after so long, as TCP does. */
const AGAIN_MS = 200;
/** Whoever connects and hears nothing gives up after this. */
const CONNECT_MS = 3_000;

interface End {
  readonly machine: string;
  readonly clock: LifeClock;
}

interface Server extends End {
  readonly accept: (socket: WebSocket) => void;
}

/**
 * What nodes reach each other by. A connection delivers in order, late while the way is cut, until one side gives it up;
 * it hears of the other side's end if the way is not cut then.
 */
export class SimNetwork {
  readonly #random: Random;
  readonly #servers = new Map<string, Server>();
  readonly #sockets = new Set<SimSocket>();
  /** Ways that are cut: from, to. */
  readonly #cuts = new Set<string>();
  /** The longest that a message takes. */
  latencyMs = 5;

  constructor(random: Random) {
    this.#random = random;
  }

  /** The process that takes a machine's connections from now on. */
  listen(server: Server): void {
    this.#servers.set(server.machine, server);
  }

  connect(from: End, to: string): WebSocket {
    const near = new SimSocket(this, from);
    from.clock.schedule(this.delayMs(), () => this.#arrive(near, to));
    return near as unknown as WebSocket;
  }

  #arrive(near: SimSocket, to: string): void {
    const { machine, clock } = near.end;
    const server = this.#servers.get(to);
    if (near.isClosed) return;
    if (!this.reach(machine, to) || !this.reach(to, machine)) {
      clock.schedule(CONNECT_MS, () => near.fail("Opening handshake has timed out"));
    } else if (server?.clock.isAlive !== true) {
      near.fail(`connect ECONNREFUSED ${to}`);
    } else {
      const far = new SimSocket(this, server);
      near.joins(far);
      this.#sockets.add(near).add(far);
      server.clock.schedule(0, () => server.accept(far as unknown as WebSocket));
      clock.schedule(this.delayMs(), () => near.opened());
    }
  }

  /** What the first machine sends doesn't get to the second. */
  cut(from: string, to: string): void {
    this.#cuts.add(`${from} ${to}`);
  }

  heal(): void {
    this.#cuts.clear();
  }

  reach(from: string, to: string): boolean {
    return !this.#cuts.has(`${from} ${to}`);
  }

  /** A process has died: its system ends its connections. */
  killed(clock: LifeClock): void {
    for (const socket of this.#sockets) if (socket.end.clock === clock) socket.terminate();
  }

  /** Breaks connections that are open, each with this probability. */
  reset(share: number): void {
    for (const socket of this.#sockets) if (this.#random.chance(share)) socket.terminate();
  }

  delayMs(): number {
    return 1 + this.#random.below(this.latencyMs);
  }

  forget(socket: SimSocket): void {
    this.#sockets.delete(socket);
  }
}

interface Item {
  readonly atMs: number;
  /** Undefined: the end of what is sent. */
  readonly data: Buffer | undefined;
  readonly sent: (() => void) | undefined;
}

/** One end of a WebSocket, as far as the replication stream uses it. */
class SimSocket extends EventEmitter {
  binaryType = "nodebuffer";
  bufferedAmount = 0;
  readonly end: End;
  readonly #network: SimNetwork;
  #peer: SimSocket | undefined;
  /** On their way, in order. */
  readonly #items: Item[] = [];
  #isClosing = false;
  #isClosed = false;

  constructor(network: SimNetwork, end: End) {
    super();
    this.#network = network;
    this.end = end;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  joins(peer: SimSocket): void {
    this.#peer = peer;
    peer.#peer = this;
  }

  opened(): void {
    if (!this.#isClosed) this.emit("open");
  }

  fail(message: string): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.emit("error", new Error(message));
  }

  send(data: Uint8Array, _options: object, sent?: () => void): void {
    if (this.#isClosing || this.#isClosed) return;
    this.bufferedAmount += data.length;
    this.#push(Buffer.from(data), sent);
  }

  close(): void {
    if (this.#isClosing || this.#isClosed) return;
    this.#isClosing = true;
    this.#push(undefined);
  }

  terminate(): void {
    if (this.#isClosed) return;
    this.#over(1006);
    const peer = this.#peer;
    if (peer === undefined || !this.#network.reach(this.end.machine, peer.end.machine)) return;
    peer.end.clock.schedule(this.#network.delayMs(), () => peer.#over(1006));
  }

  #push(data: Buffer | undefined, sent?: () => void): void {
    const { clock } = this.end;
    const atMs = Math.max(clock.elapsedMs() + this.#network.delayMs(), this.#items.at(-1)?.atMs ?? 0);
    this.#items.push({ atMs, data, sent });
    if (this.#items.length === 1) this.#deliverIn(atMs - clock.elapsedMs());
  }

  /** The other side reads when its process runs. */
  #deliverIn(delayMs: number): void {
    const peer = this.#peer;
    if (peer === undefined) return;
    peer.end.clock.schedule(delayMs, () => {
      if (this.#isClosed || peer.#isClosed) return;
      if (this.#network.reach(this.end.machine, peer.end.machine)) this.#deliver(peer);
      else this.#deliverIn(AGAIN_MS);
    });
  }

  #deliver(peer: SimSocket): void {
    const { data, sent } = this.#items.shift()!;
    if (data === undefined) {
      peer.#over(1000);
      this.end.clock.schedule(this.#network.delayMs(), () => this.#over(1000));
      return;
    }
    this.bufferedAmount -= data.length;
    if (sent !== undefined) this.end.clock.schedule(0, sent);
    const next = this.#items[0];
    if (next !== undefined) this.#deliverIn(next.atMs - this.end.clock.elapsedMs());
    peer.emit("message", data, true);
  }

  #over(code: number): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#network.forget(this);
    if (this.end.clock.isAlive) this.end.clock.schedule(0, () => this.emit("close", code));
  }
}

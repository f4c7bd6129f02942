import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { SluiceError } from "../errors/error.ts";
import { Door, type DoorOptions } from "./door.ts";
import { Exchange } from "./exchange.ts";
import { connectionsWithin, openFilesMax } from "./open-files.ts";
import { Refusal, refuseRaw } from "./refusal.ts";
import { Upgrade } from "./upgrade.ts";
import type { Pause } from "./write-gate.ts";

/** How often slow clients and former primaries are looked for. */
const LOOK_MS = 1000;

/**
 * The reverse proxy in front of the application: `starting` (all goes to the primary, or waits for one) → started →
 * `listening` → stop → `draining` (what is under way ends) → `closed`.
 */
export class FrontDoor {
  readonly #door: Door;
  readonly #server: Server;
  readonly #exchanges = new Set<Exchange>();
  readonly #upgrades = new Set<Upgrade>();
  /** Of each connection that has requests under way: the last of them, and how many there are. */
  readonly #lines = new WeakMap<Socket, { last: Exchange; count: number }>();
  /** Connections on which something came that is no HTTP. */
  readonly #broken = new WeakSet<Socket>();
  #looking: NodeJS.Timeout | undefined;

  constructor(options: DoorOptions) {
    const door = new Door(options);
    const { clientTimeoutMs, idleTimeoutMs, connectionsMax, headerBytesMax } = options.config;
    this.#door = door;
    this.#server = createServer({
      maxHeaderSize: headerBytesMax,
      headersTimeout: clientTimeoutMs,
      requestTimeout: 0,
      keepAliveTimeout: idleTimeoutMs,
      connectionsCheckingInterval: LOOK_MS,
      noDelay: true,
      // Where Node.js doesn't know this yet, such a request is answered and its connection ended.
      shouldUpgradeCallback: ({ headers }: IncomingMessage) => headers.upgrade?.toLowerCase() === "websocket",
      // HTTP/1.0 has none; what HTTP/1.1 needs is checked by Node.js.
      requireHostHeader: true,
    });
    const server = this.#server;
    server.maxConnections = connectionsWithin(connectionsMax, openFilesMax());
    if (server.maxConnections < connectionsMax)
      options.log.warn(
        { connections: server.maxConnections, wanted: connectionsMax },
        "this process may open too few files for `proxy.max-connections`: there are fewer connections (`ulimit -n`)",
      );
    // Headers are limited by their bytes. A limit of their number would drop some without a word.
    server.maxHeadersCount = 0;
    const serve = (request: IncomingMessage, response: ServerResponse): void => this.#serve(request, response);
    server.on("request", serve);
    server.on("checkContinue", serve);
    server.on("checkExpectation", serve);
    server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
      const upgrade = new Upgrade(door, request, socket, head, (done) => this.#upgrades.delete(done));
      this.#upgrades.add(upgrade);
      const line = this.#lines.get(socket);
      if (line) line.last.next = upgrade;
      else void upgrade.run();
    });
    server.on("connect", (_request: IncomingMessage, socket: Duplex) =>
      refuseRaw(socket, new Refusal(405, "SLU-7006", "can't be passed on: the method CONNECT", { close: true })),
    );
    server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => this.#refuseBroken(error, socket));
    server.on("connection", () => door.metrics.connections.inc());
    server.on("connection", (socket: Socket) => socket.on("close", () => door.metrics.connections.dec()));
  }

  /** Opens `proxy.listen`; returns the port. `isStarting`: `started` comes later. Throws SLU-7001. */
  async listen(isStarting = false): Promise<number> {
    this.#door.isStarting = isStarting;
    const { host, port } = this.#door.config.listen;
    this.#server.listen({ host, port });
    try {
      await once(this.#server, "listening");
    } catch (cause) {
      throw new SluiceError("SLU-7001", `${host}:${port}: ${(cause as Error).message}`, { cause });
    }
    this.#looking = setInterval(() => this.#look(), LOOK_MS);
    this.#looking.unref();
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** The application is about to run. */
  started(): void {
    this.#door.isStarting = false;
    this.#door.changes.wake();
  }

  /**
   * Holds writes back for a handoff. In its order: pause; `idle`, before gates close; what was committed is appended and
   * confirmed; `released`, before the lease changes; the other node is the primary; `resume`. Neither promise rejects, nor
   * has it a limit: an application may be slow. What is not released when this node stops being the primary is unknown.
   */
  pauseWrites(): Pause {
    return this.#door.gate.pause();
  }

  /**
   * Takes no new connection, lets what is under way end for up to `graceMs`, then breaks off the rest: requests that no
   * application has seen get 503.
   */
  async stop(graceMs: number): Promise<void> {
    const door = this.#door;
    door.isDraining = true;
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#endUpgrades();
    let timer: NodeJS.Timeout | undefined;
    const grace = new Promise<"over">((resolve) => (timer = setTimeout(resolve, graceMs, "over")));
    if ((await Promise.race([closed, grace])) === "over") {
      door.closing.abort();
      door.changes.wake();
      // Answers of the front door's own need a moment to leave.
      if (this.#exchanges.size > 0)
        await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, LAST_WORDS_MS))]);
      for (const upgrade of this.#upgrades) upgrade.close();
      this.#server.closeAllConnections();
      await closed;
    }
    clearTimeout(timer);
    clearInterval(this.#looking);
    door.close();
  }

  /** Requests of one connection are asked one after the other, as their client meant them. */
  #serve(request: IncomingMessage, response: ServerResponse): void {
    const exchange = new Exchange(this.#door, request, response, (done) => this.#done(done));
    this.#exchanges.add(exchange);
    const { socket } = request;
    const line = this.#lines.get(socket);
    if (line === undefined) {
      this.#lines.set(socket, { last: exchange, count: 1 });
      return void exchange.run();
    }
    line.last.next = exchange;
    line.last = exchange;
    // Node.js reads on whatever one does: who sends without end is not to fill the memory.
    if (++line.count > PIPELINED_MAX) socket.destroy();
  }

  #done(exchange: Exchange): void {
    this.#exchanges.delete(exchange);
    const { socket, next } = exchange;
    const line = this.#lines.get(socket);
    if (line && --line.count === 0) this.#lines.delete(socket);
    // Not from within: when a connection ends, many that wait in a row end one after the other.
    if (next) queueMicrotask(() => void next.run());
    if (this.#door.isDraining) this.#endUpgrades();
  }

  /** They would never end by themselves; their clients connect anew, elsewhere. */
  #endUpgrades(): void {
    if (this.#exchanges.size === 0) for (const upgrade of this.#upgrades) upgrade.close();
  }

  #look(): void {
    const now = performance.now();
    this.#door.metrics.active.set(this.#exchanges.size);
    this.#door.metrics.upgrades.set(this.#upgrades.size);
    this.#door.metrics.kept.set(this.#door.budget.usedBytes);
    for (const exchange of this.#exchanges) exchange.look(now);
  }

  /** What the parser refused: an answer, and the end of the connection. */
  #refuseBroken(error: NodeJS.ErrnoException, socket: Socket): void {
    if (this.#broken.has(socket)) return;
    this.#broken.add(socket);
    if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
    const status = STATUS[error.code ?? ""] ?? 400;
    const code = status === 408 ? "SLU-7014" : "SLU-7006";
    this.#door.metrics.own.inc({ code });
    const reason = (error as { reason?: string }).reason ?? error.message;
    const refusal = new Refusal(status, code, `can't be understood: ${reason}`, { close: true });
    socket.pause();
    // Answers come in the order of requests: whole ones that are under way are answered first.
    const last = this.#lines.get(socket)?.last;
    if (last) last.refuseRest(refusal);
    else refuseRaw(socket, refusal);
  }
}

/** Requests of one connection that are under way or wait; a client that sends more ahead is no browser. */
const PIPELINED_MAX = 100;
const LAST_WORDS_MS = 100;
const STATUS: Readonly<Record<string, number>> = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 };

import type { Server } from "node:http";
import type { Socket } from "node:net";

/** Connections whose client has not shown the secret. */
const STRANGERS_MAX = 64;

/**
 * Keeps who has no secret from taking the connections of those who have: of the connections that have not shown it there
 * are only so many, and one more ends the oldest. Who has the secret shows it within a round trip, and is not counted
 * from then on.
 */
export class Strangers {
  /** By address and port of the client: with TLS a request's socket is another one than the connection's. */
  readonly #sockets = new Map<string, Socket>();

  constructor(server: Server) {
    server.on("connection", (socket: Socket) => this.#add(socket));
  }

  /** The client of this connection has shown the secret. */
  welcome(socket: Socket): void {
    this.#sockets.delete(peerOf(socket));
  }

  #add(socket: Socket): void {
    const peer = peerOf(socket);
    const [oldest] = this.#sockets.size < STRANGERS_MAX ? [] : this.#sockets.values();
    oldest?.destroy();
    this.#sockets.set(peer, socket);
    socket.once("close", () => {
      if (this.#sockets.get(peer) === socket) this.#sockets.delete(peer);
    });
  }
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

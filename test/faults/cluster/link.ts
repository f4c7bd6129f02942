import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** The network before a node: connections to it can be refused, or hang without a word. */
export class Link implements AsyncDisposable {
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #state: "open" | "cut" | "silent" = "open";

  private constructor(server: Server, to: number) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
    server.on("connection", (socket) => this.#accept(socket, to));
  }

  static async before(port: number): Promise<Link> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Link(server, port);
  }

  /** `cut` breaks all connections and refuses new ones; `silent` keeps them, and nothing arrives. */
  set(state: "open" | "cut" | "silent"): void {
    const before = this.#state;
    this.#state = state;
    if (state === "silent") for (const socket of this.#sockets) socket.pause();
    // What was silent for a while is broken, as a real network would have it.
    else if (state === "cut" || before === "silent") for (const socket of this.#sockets) socket.destroy();
  }

  #accept(socket: Socket, to: number): void {
    if (this.#state === "cut") {
      socket.destroy();
      return;
    }
    const onward = connect(to, "127.0.0.1");
    for (const [one, other] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      this.#sockets.add(one);
      one.on("data", (chunk: Buffer) => {
        if (!other.write(chunk)) one.pause();
      });
      other.on("drain", () => {
        if (this.#state !== "silent") one.resume();
      });
      one.on("end", () => other.end());
      one.on("error", () => undefined);
      one.on("close", () => {
        this.#sockets.delete(one);
        other.destroy();
      });
      if (this.#state === "silent") one.pause();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
    await once(this.#server, "close");
  }
}

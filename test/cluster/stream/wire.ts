import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** A TCP proxy between two nodes: a network that can be cut, or fall silent. */
export class Wire {
  readonly url: string;
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #isSilent = false;
  #isDown = false;
  /** Bytes towards the replica. */
  downBytes = 0;

  static async open(to: string): Promise<Wire> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Wire(server, Number(new URL(to).port));
  }

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on("connection", (near) => {
      if (this.#isDown) {
        near.destroy();
        return;
      }
      const far = connect(port, "127.0.0.1");
      const pair = [near, far] as const;
      this.#pairs.add(pair);
      near.on("data", (data) => void (this.#isSilent || far.write(data)));
      far.on("data", (data) => {
        this.downBytes += data.length;
        if (!this.#isSilent && !near.write(data)) {
          far.pause();
          near.once("drain", () => far.resume());
        }
      });
      for (const socket of pair) {
        socket.on("error", () => undefined);
        socket.on("close", () => {
          // In silence nobody learns that the other side has gone.
          if (this.#isSilent) return;
          this.#pairs.delete(pair);
          for (const one of pair) one.destroy();
        });
      }
    });
  }

  /** Ends every connection at once. */
  cut(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.#pairs.clear();
  }

  /** Nothing gets through, and nobody is told: a half-open connection. */
  silence(): void {
    this.#isSilent = true;
  }

  /** Takes no more than what fits into the buffers on the way. */
  stall(): void {
    for (const [, far] of this.#pairs) far.pause();
  }

  flow(): void {
    this.#isSilent = false;
    for (const [, far] of this.#pairs) far.resume();
  }

  down(isDown: boolean): void {
    this.#isDown = isDown;
    if (isDown) this.cut();
  }

  async close(): Promise<void> {
    this.cut();
    const closed = once(this.#server, "close");
    this.#server.close();
    await closed;
  }
}

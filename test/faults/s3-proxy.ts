import http from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** What happens to one request on its way. */
export type Fault =
  /** The connection breaks before the server has seen anything. */
  | "reset-before"
  /** The server has done it; the connection breaks before the answer. */
  | "lost-reply"
  /** The connection breaks, and the request arrives all the same, a little later. */
  | "late"
  /** Nobody ever answers; the server has seen nothing. */
  | "silence"
  /** The server gets it twice; the answer is that of the second. */
  | "duplicate"
  /** Half of the answer's body, then the connection breaks. */
  | "truncate"
  /** The answer takes its time, in pieces. */
  | "slow"
  /** The proxy answers itself: with S3's error `code`, or with nothing where that is empty. */
  | { readonly status: number; readonly code: string };

export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly fault: Fault | undefined;
}

const LATE_MS = 150;
const SLOW_MS = 15;

/** Stands before an S3 server and spoils requests as `choose` says; passes everything else on as it is. */
export class S3Proxy {
  readonly port: number;
  /** Every request that came, in order. */
  readonly seen: Seen[] = [];
  choose: (request: { readonly method: string; readonly path: string }) => Fault | undefined = () => undefined;
  readonly #server: http.Server;
  readonly #agent = new http.Agent({ keepAlive: true });
  readonly #upstream: number;
  readonly #underway = new Set<Promise<unknown>>();

  constructor(server: http.Server, upstream: number) {
    this.#server = server;
    this.#upstream = upstream;
    this.port = (server.address() as AddressInfo).port;
  }

  static async start(upstream: number): Promise<S3Proxy> {
    const server = http.createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const proxy = new S3Proxy(server, upstream);
    server.on("request", (request, response) => proxy.#track(proxy.#handle(request, response)));
    return proxy;
  }

  /** Requests that came since the last call. */
  take(): Seen[] {
    return this.seen.splice(0);
  }

  /** Until everything that is to arrive late has arrived. */
  async settled(): Promise<void> {
    while (this.#underway.size > 0) await Promise.allSettled(this.#underway);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await this.settled();
    this.#agent.destroy();
  }

  #track(handled: Promise<void>): void {
    const quiet = handled.catch(() => undefined);
    this.#underway.add(quiet);
    void quiet.finally(() => this.#underway.delete(quiet));
  }

  async #handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { method = "", url: path = "" } = request;
    const fault = this.choose({ method, path });
    this.seen.push({ method, path, fault });
    if (fault === "silence") return;
    const body = await read(request);
    if (fault === "reset-before") {
      request.socket.destroy();
    } else if (typeof fault === "object") {
      response.writeHead(fault.status, { "content-type": "application/xml" });
      const error = `<Error><Code>${fault.code}</Code><Message>by the proxy</Message></Error>`;
      response.end(fault.code === "" ? "" : `<?xml version="1.0"?>${error}`);
    } else if (fault === "late") {
      request.socket.destroy();
      await sleep(LATE_MS);
      await this.#forward(request, body);
    } else {
      if (fault === "duplicate") await this.#forward(request, body);
      await this.#answer(fault, request, response, await this.#forward(request, body));
    }
  }

  async #answer(
    fault: Fault | undefined,
    request: http.IncomingMessage,
    response: http.ServerResponse,
    { head, body }: Reply,
  ): Promise<void> {
    if (fault === "lost-reply") {
      request.socket.destroy();
      return;
    }
    response.writeHead(head.statusCode ?? 500, head.rawHeaders);
    if (fault === "truncate") {
      response.write(body.subarray(0, Math.floor(body.length / 2)));
      // What was written should leave before the connection breaks.
      await sleep(SLOW_MS);
      request.socket.destroy();
    } else if (fault === "slow") {
      for (let at = 0; at < body.length; at += 1 + body.length / 10) {
        response.write(body.subarray(Math.ceil(at), Math.ceil(at + 1 + body.length / 10)));
        await sleep(SLOW_MS);
      }
      response.end();
    } else response.end(body);
  }

  /** The same bytes with the same headers, so that the signature holds. */
  async #forward(request: http.IncomingMessage, body: Buffer): Promise<Reply> {
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
    const outgoing = http.request(
      {
        host: "127.0.0.1",
        port: this.#upstream,
        method: request.method,
        path: request.url,
        headers: request.rawHeaders,
        agent: this.#agent,
      },
      resolve,
    );
    outgoing.on("error", reject);
    outgoing.end(body);
    const head = await promise;
    return { head, body: await read(head) };
  }
}

interface Reply {
  readonly head: http.IncomingMessage;
  readonly body: Buffer;
}

async function read(message: http.IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

import { once } from "node:events";
import { createServer, request, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";

/** Fly.io's proxy keeps bodies for a replay up to 1 MB. */
const BODY_BYTES_MAX = 1024 * 1024;
/** It gives up when machines send a request to and fro. */
const REPLAYS_MAX = 3;

export interface Machine {
  readonly url: string;
  readonly region: string;
}

/**
 * A small stand-in for Fly.io's proxy: sends a request to the machine that is nearest, and where that answers with
 * `fly-replay: instance=ID` (or `region=…`), sends it again to the machine that is named, with `fly-replay-src`; the first
 * answer's body is dropped, and no client sees the header. As Fly.io's documentation ("Dynamic request routing")
 * describes it.
 */
export class FlyProxy implements AsyncDisposable {
  readonly #server: Server;
  readonly #machines: Readonly<Record<string, Machine>>;
  /** The machine that clients reach. */
  nearest: string;
  /** Replays so far: who asked for it, and who got it. */
  readonly replays: { readonly from: string; readonly to: string }[] = [];

  static async start(machines: Readonly<Record<string, Machine>>, nearest: string): Promise<FlyProxy> {
    const proxy = new FlyProxy(machines, nearest);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  private constructor(machines: Readonly<Record<string, Machine>>, nearest: string) {
    this.#machines = machines;
    this.nearest = nearest;
    this.#server = createServer((incoming, response) => {
      this.#serve(incoming, response).catch((error: Error) => {
        if (!response.headersSent) response.writeHead(502);
        response.end(error.message);
      });
    });
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await buffer(incoming);
    let id = this.nearest;
    let source: Record<string, string> = {};
    for (let replays = 0; ; replays++) {
      const answer = await this.#send(id, incoming, body, source);
      const wanted = parseReplay(answer.headers["fly-replay"]);
      if (wanted === undefined) return pass(answer, response);
      answer.resume();
      if (replays === REPLAYS_MAX) throw new Error("replayed too often");
      if (body.length > BODY_BYTES_MAX) throw new Error("the body is too long for a replay");
      const to = this.#find(wanted);
      if (to === undefined) throw new Error(`no machine for fly-replay: ${answer.headers["fly-replay"]?.toString()}`);
      this.replays.push({ from: id, to });
      const parts = [`instance=${id}`, `region=${this.#machines[id]?.region}`, `t=${Date.now() * 1000}`];
      if (wanted["state"] !== undefined) parts.push(`state=${wanted["state"]}`);
      source = { "fly-replay-src": parts.join(";") };
      id = to;
    }
  }

  #find({ instance, region }: Readonly<Record<string, string>>): string | undefined {
    if (instance !== undefined) return instance in this.#machines ? instance : undefined;
    return Object.keys(this.#machines).find((id) => this.#machines[id]?.region === region);
  }

  async #send(
    id: string,
    { method, url, headers }: IncomingMessage,
    body: Buffer,
    source: Readonly<Record<string, string>>,
  ): Promise<IncomingMessage> {
    const sent = request(new URL(url ?? "/", this.#machines[id]?.url), {
      method,
      headers: { ...headers, ...source, "fly-client-ip": "127.0.0.1" },
    });
    sent.end(body);
    const [answer] = (await once(sent, "response")) as [IncomingMessage];
    return answer;
  }
}

/** `instance=a;state=b`, or a JSON object. */
function parseReplay(header: string | string[] | undefined): Readonly<Record<string, string>> | undefined {
  if (typeof header !== "string") return undefined;
  if (header.startsWith("{")) return JSON.parse(header) as Record<string, string>;
  return Object.fromEntries(header.split(/[;,]/).map((part) => part.trim().split("=", 2) as [string, string]));
}

function pass(answer: IncomingMessage, response: ServerResponse): void {
  response.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
  answer.pipe(response);
}

import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import {
  Agent,
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as send,
  type Server,
  type ServerResponse,
} from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import os from "node:os";
import path from "node:path";
import { resolveProxy } from "../../src/config/resolve-proxy.ts";
import { parseConfig } from "../../src/config/load.ts";
import { createLog } from "../../src/observe/log.ts";
import { Metrics } from "../../src/observe/metrics.ts";
import { FrontDoor } from "../../src/proxy/server.ts";
import { Cluster, type ClusterNode } from "./cluster.ts";

/** What an application does with a request, after its body; by default it says what it was asked. */
export type App = (request: IncomingMessage, response: ServerResponse, node: TestNode) => void;

/** A node: an application, a front door, and its place in the cluster. */
export interface TestNode {
  readonly view: ClusterNode;
  readonly door: FrontDoor;
  readonly metrics: Metrics;
  readonly port: number;
  readonly app: Server;
  readonly appPort: number;
  /** What the application has seen: "POST /path". */
  readonly seen: string[];
}

/** POST commits; the answer tells who answered, and what was asked of it. */
export const echo: App = (request, response, node) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    try {
      const db = /[?&]db=([^&]+)/.exec(request.url!)?.[1] ?? node.view.cluster.dbs[0]!;
      if (request.method !== "GET" && request.method !== "HEAD") node.view.cluster.commit(node.view, db);
    } catch (error) {
      response.statusCode = 500;
      response.end((error as Error).message);
      return;
    }
    const { method, url, headers, rawTrailers } = request;
    const body = Buffer.concat(chunks).toString("latin1");
    response.end(JSON.stringify({ node: node.view.name, method, url, headers, body, trailers: rawTrailers }));
  });
};

export interface Setup {
  readonly cluster?: Cluster;
  /** Lines of `proxy:`. */
  readonly proxy?: string;
  readonly app?: App;
  readonly secrets?: readonly string[];
  /** Their applications aren't started yet. */
  readonly starting?: boolean;
}

/** Several nodes of a cluster, each with an application and a front door on ports of their own; "a" is the primary. */
export class Nodes implements AsyncDisposable {
  readonly cluster: Cluster;
  readonly all: TestNode[] = [];
  readonly #agent = new Agent({ keepAlive: true });
  readonly #sockets: Socket[] = [];
  readonly dir = mkdtempSync(path.join(os.tmpdir(), "sluice-door-"));

  private constructor(cluster: Cluster) {
    this.cluster = cluster;
  }

  static async start(count: number, setup: Setup = {}) {
    const { cluster = new Cluster(), proxy = "", app = echo, secrets, starting } = setup;
    const nodes = new Nodes(cluster);
    for (let i = 0; i < count; i++)
      await nodes.#add("abcdef"[i]!, proxy, app, secrets?.[i] ?? "a secret of all", starting);
    cluster.promote(nodes.all[0]!.view);
    return nodes;
  }

  async #add(name: string, proxy: string, app: App, secret: string, starting?: boolean): Promise<void> {
    const view = this.cluster.node(name);
    const server = createServer({ requestTimeout: 0 });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const appPort = (server.address() as AddressInfo).port;
    const config = proxyConfig(`app: http://127.0.0.1:${appPort}\n${proxy}`, this.dir);
    const metrics = new Metrics();
    const door = new FrontDoor({ config, view, metrics: metrics.proxy, log: createLog({ level: "silent" }), secret });
    const port = await door.listen(starting);
    view.proxy = new URL(`http://127.0.0.1:${port}`);
    const node: TestNode = { view, door, metrics, port, app: server, appPort, seen: [] };
    server.on("request", (request: IncomingMessage, response: ServerResponse) => {
      node.seen.push(`${request.method} ${request.url}`);
      app(request, response, node);
    });
    this.all.push(node);
  }

  get a(): TestNode {
    return this.all[0]!;
  }

  get b(): TestNode {
    return this.all[1]!;
  }

  get c(): TestNode {
    return this.all[2]!;
  }

  /** How many requests a front door has counted. */
  async requests(node: TestNode): Promise<number> {
    const { values } = await node.metrics.proxy.requests.get();
    return values.reduce((sum, { value }) => sum + value, 0);
  }

  /** One request to a node's front door, and all of its answer. */
  ask(node: TestNode, method: string, target: string, options: AskOptions = {}): Promise<Reply> {
    return ask(node.port, method, target, { agent: this.#agent, ...options });
  }

  /** A raw connection to a node's front door: what is written, and all that comes back until it ends or is silent. */
  async raw(node: TestNode, text: string | Buffer, silentMs = 150): Promise<string> {
    const socket = connect(node.port, "127.0.0.1");
    this.#sockets.push(socket);
    let back = "";
    let timer: NodeJS.Timeout | undefined;
    return new Promise((resolve) => {
      const done = (): void => {
        socket.destroy();
        resolve(back);
      };
      const rest = (): void => {
        clearTimeout(timer);
        timer = setTimeout(done, back === "" ? 3000 : silentMs);
      };
      socket.on("data", (chunk: Buffer) => {
        back += chunk.toString("latin1");
        rest();
      });
      socket.on("close", done);
      socket.on("error", done);
      socket.write(text);
      rest();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
    for (const socket of this.#sockets) socket.destroy();
    for (const { app, door } of this.all) {
      app.close();
      app.closeAllConnections();
      await door.stop(0);
    }
    rmSync(this.dir, { recursive: true });
  }
}

/** The front door's part of a configuration file, as the program reads it; short waits where nothing else is said. */
export function proxyConfig(proxy: string, dir: string) {
  const given = proxy.trim().split("\n").filter(Boolean);
  const defaults = ["listen: 127.0.0.1:0", "primary-timeout: 5s", "app-timeout: 0s", `replay-dir: ${dir}`];
  const keys = new Set(given.map((line) => line.split(":")[0]));
  const lines = [...given, ...defaults.filter((line) => !keys.has(line.split(":")[0]))];
  const text = `dbs: [{ path: a, store: b }]\nproxy:\n${lines.map((line) => `  ${line}\n`).join("")}`;
  const { value, problems } = parseConfig(text, {});
  const config =
    value?.proxy &&
    resolveProxy(value.proxy, { base: dir, advertise: "http://10.0.0.7:20202" }, (key, message) => {
      throw new Error(`${key.join(".")}: ${message}`);
    });
  if (config === undefined) throw new Error(JSON.stringify(problems));
  return config;
}

export interface AskOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  readonly agent?: Agent;
  readonly onSent?: () => void;
}

export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  readonly trailers: NodeJS.Dict<string>;
  /** What the application has seen, by the echo. */
  readonly json: {
    readonly node: string;
    readonly method: string;
    readonly url: string;
    readonly headers: IncomingHttpHeaders;
    readonly body: string;
    readonly trailers: readonly string[];
    readonly code: string;
  };
}

export async function ask(port: number, method: string, target: string, options: AskOptions = {}): Promise<Reply> {
  const { headers = {}, body, agent, onSent } = options;
  return new Promise((resolve, reject) => {
    const length =
      body === undefined || headers["transfer-encoding"] ? {} : { "content-length": Buffer.byteLength(body) };
    const request = send({
      host: "127.0.0.1",
      port,
      method,
      path: target,
      headers: { ...length, ...headers },
      ...(agent && { agent }),
    });
    request.on("error", reject);
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(chunks).toString();
        resolve({
          status: response.statusCode!,
          headers: response.headers,
          body: text,
          trailers: response.trailers,
          get json() {
            return JSON.parse(text) as Reply["json"];
          },
        });
      });
    });
    request.end(body, onSent);
  });
}

/** Looks again and again until it holds. */
export async function until(look: () => boolean, what = "what was waited for"): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!look()) {
    if (performance.now() > deadline) throw new Error(`${what} did not happen within 10 s`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

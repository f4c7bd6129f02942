import { timingSafeEqual, createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { json } from "node:stream/consumers";
import type { Node } from "../cluster/node.ts";
import type { ListenAddress } from "../config/config.ts";
import { isLoopback } from "../config/resolve.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { formatPosition } from "../ltx/position.ts";
import type { Metrics } from "../observe/metrics.ts";

const SYNC_LIMIT_MS = 30_000;
/** An event that a slow listener doesn't take is dropped beyond this; the stream then ends. */
const EVENT_BUFFER_BYTES = 1024 * 1024;

export interface AdminOptions {
  readonly node: Node;
  readonly metrics: Metrics;
  /** Bearer secret of `node.listen`; the control socket, which only its owner can open, needs none. */
  readonly secret: string | undefined;
}

/**
 * The admin API: `GET /healthz`, `/v1/status`, `/v1/events`, `/metrics`, `POST /v1/sync`. Served at `node.listen`, and
 * on a Unix socket for this machine's own commands.
 */
export class AdminServer {
  readonly #options: AdminOptions;
  readonly #servers: Server[] = [];

  constructor(options: AdminOptions) {
    this.#options = options;
  }

  /** Serves on a Unix socket that only this user can open. Throws SLU-1005. */
  async listenOnSocket(path: string): Promise<void> {
    const before = process.umask(0o077);
    try {
      await this.#listen({ path }, path, false);
    } finally {
      process.umask(before);
    }
  }

  /** Serves on a TCP address. Throws SLU-1005. */
  async listen({ host, port }: ListenAddress): Promise<void> {
    await this.#listen({ host, port }, `${host}:${port}`, !isLoopback(host));
  }

  async close(): Promise<void> {
    for (const server of this.#servers) {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    }
  }

  async #listen(at: { path: string } | ListenAddress, name: string, guarded: boolean): Promise<void> {
    const server = createServer((request, response) => void this.#serve(request, response, guarded));
    server.listen(at);
    try {
      await once(server, "listening");
    } catch (cause) {
      throw new SluiceError("SLU-1005", `${name}: ${(cause as Error).message}`, { cause });
    }
    server.unref();
    this.#servers.push(server);
  }

  async #serve(request: IncomingMessage, response: ServerResponse, guarded: boolean): Promise<void> {
    try {
      const url = new URL(request.url ?? "/", "http://sluice");
      if (guarded && url.pathname !== "/healthz" && !this.#isAllowed(request)) {
        response.setHeader("www-authenticate", "Bearer");
        return answer(response, 401, { error: "the cluster secret is required" });
      }
      await this.#route(`${request.method} ${url.pathname}`, request, response);
    } catch (error) {
      if (response.headersSent) return void response.destroy();
      const known = isSluiceError(error);
      const status = known && error.code === "SLU-1003" ? 404 : known && error.code === "SLU-1006" ? 504 : 500;
      const { message } = error as Error;
      answer(response, status, known ? { code: error.code, error: message, hint: error.hint } : { error: message });
    }
  }

  async #route(what: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { node, metrics } = this.#options;
    switch (what) {
      case "GET /healthz": {
        const failed = node.databases.filter(({ state }) => state === "failed").map(({ path }) => path);
        return answer(response, failed.length === 0 ? 200 : 503, { ok: failed.length === 0, failed });
      }
      case "GET /v1/status":
        return answer(response, 200, node.status);
      case "GET /metrics": {
        const text = await metrics.text();
        response.writeHead(200, { "content-type": metrics.contentType });
        response.end(text);
        return;
      }
      case "GET /v1/events":
        return this.#stream(response);
      case "POST /v1/sync":
        return this.#sync(request, response);
      default:
        return answer(response, 404, { error: `there is no ${what}` });
    }
  }

  async #sync(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = ((await json(request).catch(() => undefined)) ?? {}) as Record<string, unknown>;
    const { db, wait = "store", timeoutMs = SYNC_LIMIT_MS } = body;
    const valid = typeof db === "string" && (wait === "local" || wait === "store") && typeof timeoutMs === "number";
    if (!valid)
      return answer(response, 400, { error: 'expected {"db": PATH, "wait": "local" | "store", "timeoutMs": N}' });
    const signal = AbortSignal.timeout(timeoutMs);
    const gone = new AbortController();
    response.on("close", () => gone.abort());
    const start = performance.now();
    try {
      const position = await this.#options.node.sync(db, wait, AbortSignal.any([signal, gone.signal]));
      answer(response, 200, { db, wait, position: formatPosition(position), tookMs: performance.now() - start });
    } catch (error) {
      if (!signal.aborted) throw error;
      throw new SluiceError("SLU-1006", `${db}: not durable at ${wait} within ${timeoutMs} ms`, { cause: error });
    }
  }

  /** Server-sent events until the client leaves; one that doesn't keep up is cut off rather than buffered for ever. */
  #stream(response: ServerResponse): void {
    const { node } = this.#options;
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.flushHeaders();
    const listener = (event: { readonly type: string }): void => {
      if (response.writableLength > EVENT_BUFFER_BYTES) return void response.destroy();
      response.write(`event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`);
    };
    node.on("event", listener);
    response.on("close", () => node.off("event", listener));
  }

  #isAllowed(request: IncomingMessage): boolean {
    const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? "")?.[1] ?? "";
    const { secret } = this.#options;
    return secret !== undefined && timingSafeEqual(digest(given), digest(secret));
  }
}

/** Equal lengths for the comparison in constant time. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(`${JSON.stringify(body)}\n`);
}

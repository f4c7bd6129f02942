import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { Duplex } from "node:stream";
import { hasSecret, isOwnProgram } from "../cluster/access.ts";
import type { Node } from "../cluster/node.ts";
import { serverTls, type TlsFiles } from "../cluster/stream/tls.ts";
import type { ListenAddress } from "../config/config.ts";
import { isLoopback } from "../config/resolve.ts";
import { Lending } from "./lending.ts";
import { answerLoan, parseLoan, returnLoan } from "./loans.ts";
import { parseDuration } from "../config/duration.ts";
import type { ErrorCode } from "../errors/codes.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { formatPosition } from "../ltx/position.ts";
import type { Logger } from "../observe/log.ts";
import type { Metrics } from "../observe/metrics.ts";
import { answerExport, exportedName } from "./export.ts";
import { Strangers } from "./strangers.ts";

const SYNC_LIMIT_MS = 30_000;
/** A longer wait is asked for again; nothing that hangs is kept for ever. */
const SYNC_LONGEST_MS = 24 * 60 * 60_000;
const BODY_BYTES_MAX = 64 * 1024;
/** Shows a connection whose client is gone. */
const EVENTS_ALIVE_MS = 15_000;
const CONNECTIONS_MAX = 256;
/** An event that a slow listener doesn't take is dropped beyond this; the stream then ends. */
const EVENT_BUFFER_BYTES = 1024 * 1024;
/** Requests are small; nobody needs long to send one. */
const SLOWEST = { headersTimeout: 10_000, requestTimeout: 30_000, connectionsCheckingInterval: 1_000 };
const HANDSHAKE_LIMIT_MS = 10_000;

/**
 * `open`: everything. `local`: with the secret, or for programs of this machine. `guarded`: with the secret. `metrics`:
 * `/metrics` alone. `/healthz` is for everybody.
 */
type Access = "open" | "local" | "guarded" | "metrics";

const STATUS: Readonly<Partial<Record<ErrorCode, number>>> = {
  "SLU-8101": 409,
  "SLU-8104": 409,
  "SLU-8105": 409,
  "SLU-8110": 409,
  "SLU-8112": 409,
  "SLU-8113": 504,
  "SLU-1000": 400,
  "SLU-1003": 404,
  "SLU-1006": 504,
  "SLU-1013": 503,
  "SLU-2012": 503,
  "SLU-2013": 503,
};

export interface AdminOptions {
  readonly node: Node;
  readonly metrics: Metrics;
  /** Bearer secret of `node.listen`; the control socket, which only its owner can open, needs none. */
  readonly secret: string | undefined;
  readonly log?: Logger;
  /** For `node.listen`. */
  readonly tls?: TlsFiles | undefined;
  /** Takes what asks for another protocol at `node.listen`. */
  readonly onUpgrade?: ((request: IncomingMessage, socket: Duplex, head: Buffer) => void) | undefined;
}

/**
 * The admin API: `GET /healthz`, `/v1/status`, `/v1/events`, `/v1/databases/NAME/export`, `/metrics`,
 * `POST /v1/sync`, `/v1/promote`, `/v1/loans`, `/v1/loans/return`. Served at `node.listen`, and
 * on a Unix socket for this machine's own commands.
 */
export class AdminServer {
  readonly #options: AdminOptions;
  readonly #servers: Server[] = [];
  readonly #lending: Lending;

  constructor(options: AdminOptions) {
    this.#options = options;
    this.#lending = new Lending(options);
  }

  /** Serves on a Unix socket that only this user can open. Throws SLU-1005. */
  async listenOnSocket(path: string): Promise<void> {
    const before = process.umask(0o177);
    try {
      await this.#listen({ path }, path, "open");
    } finally {
      process.umask(before);
    }
  }

  /** Serves on a TCP address; returns the port. Throws SLU-1005. */
  async listen({ host, port }: ListenAddress): Promise<number> {
    const { tls, onUpgrade } = this.#options;
    return this.#listen({ host, port }, `${host}:${port}`, isLoopback(host) ? "local" : "guarded", { tls, onUpgrade });
  }

  /** Serves nothing but `/metrics` and `/healthz`, to everybody. Throws SLU-1005. */
  async listenForMetrics({ host, port }: ListenAddress): Promise<number> {
    return this.#listen({ host, port }, `${host}:${port}`, "metrics");
  }

  async close(): Promise<void> {
    for (const server of this.#servers) {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    }
  }

  async #listen(
    at: { path: string } | ListenAddress,
    name: string,
    access: Access,
    { tls, onUpgrade }: Pick<AdminOptions, "tls" | "onUpgrade"> = {},
  ): Promise<number> {
    const server =
      tls === undefined
        ? createServer(SLOWEST)
        : createSecureServer({ ...serverTls(tls), ...SLOWEST, handshakeTimeout: HANDSHAKE_LIMIT_MS });
    const strangers = access === "guarded" || access === "metrics" ? new Strangers(server) : undefined;
    server.on("request", (request, response) => void this.#serve(request, response, access, strangers));
    if (onUpgrade !== undefined) {
      server.on("upgrade", (request, socket, head) => {
        if (hasSecret(request, this.#options.secret)) strangers?.welcome(request.socket);
        onUpgrade(request, socket, head);
      });
    }
    server.maxConnections = CONNECTIONS_MAX;
    server.listen(at);
    try {
      await once(server, "listening");
    } catch (cause) {
      throw new SluiceError("SLU-1005", `${name}: ${(cause as Error).message}`, { cause });
    }
    server.unref();
    this.#servers.push(server);
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  async #serve(
    request: IncomingMessage,
    response: ServerResponse,
    access: Access,
    strangers: Strangers | undefined,
  ): Promise<void> {
    try {
      const { pathname } = new URL(request.url ?? "/", "http://sluice");
      const isKnown = hasSecret(request, this.#options.secret);
      if (isKnown) strangers?.welcome(request.socket);
      const allowed = access === "open" || isKnown || (access === "local" && isOwnProgram(request));
      if (pathname === "/healthz") return this.#health(response, allowed && access !== "metrics");
      if (!allowed && access !== "metrics") {
        // Nor is the rest of what it sends waited for.
        response.setHeader("connection", "close");
        if (access === "local") return answer(response, 403, { error: "web pages may not ask; the secret opens" });
        response.setHeader("www-authenticate", "Bearer");
        return answer(response, 401, { error: "the cluster secret is required" });
      }
      if (access === "metrics" && pathname !== "/metrics")
        return answer(response, 404, { error: "only /metrics is here" });
      const exported = request.method === "GET" ? exportedName(pathname) : undefined;
      if (exported !== undefined) return await answerExport(this.#options.node, exported, response);
      await this.#route(`${request.method} ${pathname}`, request, response);
    } catch (error) {
      if (response.headersSent) return void response.destroy();
      const known = isSluiceError(error);
      const { message } = error as Error;
      const body = known ? { code: error.code, error: message, hint: error.hint } : { error: message };
      answer(response, known ? (STATUS[error.code] ?? 500) : 500, body);
    }
  }

  /** Which databases have failed is said only to those who may know their names. */
  #health(response: ServerResponse, allowed: boolean): void {
    const failed = this.#options.node.databases.filter(({ state }) => state === "failed").map(({ path }) => path);
    const ok = failed.length === 0;
    answer(response, ok ? 200 : 503, allowed ? { ok, failed } : { ok });
  }

  async #route(what: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { node, metrics } = this.#options;
    switch (what) {
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
      case "POST /v1/promote": {
        const { node: to, force } = parsePromote(await readJson(request));
        return answer(response, 200, await this.#lending.promote(to, force));
      }
      case "POST /v1/loans":
        return answerLoan(this.#lending, node.status.node, parseLoan(await readJson(request)), response);
      case "POST /v1/loans/return":
        return answer(response, 200, await returnLoan(this.#lending, await readJson(request)));
      default:
        return answer(response, 404, { error: `there is no ${what}` });
    }
  }

  async #sync(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { db, wait, timeoutMs } = parseSync(await readJson(request));
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
    const alive = setInterval(() => response.write(": alive\n\n"), EVENTS_ALIVE_MS);
    alive.unref();
    response.on("close", () => {
      node.off("event", listener);
      clearInterval(alive);
    });
  }
}

/** The body of `POST /v1/promote`. Throws SLU-1000. */
function parsePromote(body: unknown): { readonly node: string | undefined; readonly force: boolean } {
  const { node, force = false } = (body ?? {}) as Record<string, unknown>;
  if ((node === undefined || typeof node === "string") && typeof force === "boolean") return { node, force };
  throw new SluiceError("SLU-1000", "the body is no promotion", {
    hint: 'Expected {}, {"node": "NAME"} or {"force": true}.',
  });
}

/** The body of `POST /v1/sync`. Throws SLU-1000. */
function parseSync(body: unknown): {
  readonly db: string;
  readonly wait: "local" | "replica" | "store";
  readonly timeoutMs: number;
} {
  const { db, wait = "store", timeout, timeoutMs = SYNC_LIMIT_MS } = (body ?? {}) as Record<string, unknown>;
  const limitMs = timeout === undefined ? timeoutMs : typeof timeout === "string" ? parseDuration(timeout) : undefined;
  const valid = typeof limitMs === "number" && limitMs >= 0 && limitMs <= SYNC_LONGEST_MS;
  if (typeof db === "string" && (wait === "local" || wait === "replica" || wait === "store") && valid)
    return { db, wait, timeoutMs: limitMs };
  throw new SluiceError("SLU-1000", "the body is no sync", {
    hint: 'Expected {"db": "/path", "wait": "local" | "replica" | "store", "timeout": "30s"}, at most 24h.',
  });
}

/** Throws SLU-1000 for a body that is too long or no JSON. */
async function readJson(request: IncomingMessage): Promise<unknown> {
  let text = "";
  request.setEncoding("utf8");
  for await (const chunk of request) {
    text += chunk as string;
    if (text.length > BODY_BYTES_MAX) throw new SluiceError("SLU-1000", "the body is too long");
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new SluiceError("SLU-1000", "the body is no JSON", { cause });
  }
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(`${JSON.stringify(body)}\n`);
}

import type { IncomingMessage, ServerResponse } from "node:http";
import { answerReplay, watch, type Proxy } from "./answer.ts";
import { Attempt, attempts, NotPrimary } from "./attempt.ts";
import { primaryOf } from "./files.ts";
import { Guarded, type SqliteConnection } from "./guarded.ts";

export interface ConnectOptions {
  /** The database files that Sluice looks after. */
  readonly databases: string | readonly string[];
  /** Whose proxy replays. Default: "sluice". */
  readonly proxy?: Proxy;
  /**
   * Methods that are tried on a replica; others are replayed at once. Default: all, since Sluice's proxy has sorted them;
   * with "fly" GET, HEAD, OPTIONS and TRACE.
   */
  readonly localMethods?: readonly string[];
  /** Requests that are replayed at once, by whatever is known of them: `(request) => request.url === "/pay"`. */
  readonly onPrimary?: (request: IncomingMessage) => boolean;
  /** Open connections (better-sqlite3 or node:sqlite), by database: on a replica their writes are refused at once. */
  readonly connections?: Readonly<Record<string, SqliteConnection | readonly SqliteConnection[]>>;
}

export type Next = (error?: unknown) => void;
export type Handler<Request extends IncomingMessage, Response extends ServerResponse> = (
  request: Request,
  response: Response,
) => unknown;

const READS = ["GET", "HEAD", "OPTIONS", "TRACE"];
const begun = new WeakMap<ServerResponse, { readonly attempt: Attempt; readonly proxy: Proxy }>();

/** What a request meets: replayed at once, or an attempt that is watched. */
export class Gate {
  readonly #options: ConnectOptions;
  readonly #databases: readonly string[];
  readonly #proxy: Proxy;
  readonly #localMethods: readonly string[] | undefined;
  readonly #guarded: readonly Guarded[];

  constructor(options: ConnectOptions) {
    this.#options = options;
    this.#databases = typeof options.databases === "string" ? [options.databases] : options.databases;
    this.#proxy = options.proxy ?? "sluice";
    this.#localMethods = options.localMethods ?? (this.#proxy === "fly" ? READS : undefined);
    this.#guarded = Object.entries(options.connections ?? {}).flatMap(([database, connections]) =>
      [connections].flat().map((connection) => new Guarded(connection, database)),
    );
  }

  /** Undefined when the request has been answered: it goes to the primary. */
  begin(request: IncomingMessage, response: ServerResponse): Attempt | undefined {
    if (this.#goesToPrimary(request)) {
      for (const database of this.#databases) {
        const primary = primaryOf(database);
        if (primary === undefined) continue;
        answerReplay(response, new NotPrimary(database, primary), this.#proxy);
        return undefined;
      }
    }
    for (const each of this.#guarded) each.look();
    const attempt = new Attempt(this.#databases, this.#guarded);
    begun.set(response, { attempt, proxy: this.#proxy });
    watch(response, attempt, this.#proxy);
    return attempt;
  }

  #goesToPrimary(request: IncomingMessage): boolean {
    const isLocal = this.#localMethods?.includes(request.method ?? "") ?? true;
    return !isLocal || (this.#options.onPrimary?.(request) ?? false);
  }
}

/** Notes a thrown error in the request's attempt; whether it is a refusal, and so a replay. */
export function note(response: ServerResponse, error: unknown): boolean {
  const { attempt } = begun.get(response) ?? {};
  if (attempt === undefined || response.headersSent) return false;
  attempt.refused ??= attempt.refusalOf(error);
  return attempt.refused !== undefined;
}

/** Express and Connect: goes before the routes. */
export function sluice(
  options: ConnectOptions,
): (request: IncomingMessage, response: ServerResponse, next: Next) => void {
  const gate = new Gate(options);
  return (request, response, next) => {
    const attempt = gate.begin(request, response);
    if (attempt !== undefined) attempts.run(attempt, next);
  };
}

/** Express and Connect: goes after the routes. Replays refused writes, and passes every other error on. */
export function replayErrors(): (
  error: unknown,
  request: IncomingMessage,
  response: ServerResponse,
  next: Next,
) => void {
  return (error, _request, response, next) => {
    if (note(response, error)) response.end();
    else next(error);
  };
}

/** node:http: `createServer(withSluice(options, handler))`. A refused write is replayed; other errors stay as they are. */
export function withSluice<Request extends IncomingMessage, Response extends ServerResponse>(
  options: ConnectOptions,
  handler: Handler<Request, Response>,
): Handler<Request, Response> {
  const gate = new Gate(options);
  return (request, response) => {
    const attempt = gate.begin(request, response);
    if (attempt === undefined) return undefined;
    const failed = (error: unknown): undefined => {
      if (!note(response, error)) throw error;
      response.end();
    };
    try {
      const result = attempts.run(attempt, () => handler(request, response));
      return result instanceof Promise ? result.catch(failed) : result;
    } catch (error) {
      return failed(error);
    }
  };
}

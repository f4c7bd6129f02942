import { type Agent, type ClientRequest, type IncomingMessage, request as send } from "node:http";
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { AppAddress } from "../config/config.ts";

/** What came back. */
export interface Answer {
  readonly message: IncomingMessage;
  /** The connection, when the answer is 101 Switching Protocols. */
  readonly upgraded: { readonly socket: Duplex; readonly head: Buffer } | undefined;
}

export interface AttemptOptions {
  readonly to: AppAddress;
  /** Undefined: a connection of its own, so that none is closed under the request as idle. */
  readonly agent: Agent | undefined;
  readonly method: string;
  readonly target: string;
  /** Flat. */
  readonly headers: readonly string[];
  /** How long the connection may take; 0: as long as the system says. */
  readonly connectTimeoutMs: number;
  /** An informational answer other than 101, such as 103. */
  readonly onInformation?: (status: number, headers: readonly string[]) => void;
  readonly onContinue?: () => void;
}

/** An attempt that brought no answer. */
export class AttemptError extends Error {
  /** Whether the other side may have read anything of the request. */
  readonly wasSent: boolean;
  /** The connection had served other requests, and was closed: most likely it had been idle for too long. */
  readonly wasStale: boolean;

  constructor(cause: NodeJS.ErrnoException, request: ClientRequest) {
    super(cause.message, { cause });
    this.wasSent = cause.syscall !== "connect" && cause.syscall !== "getaddrinfo";
    this.wasStale = request.reusedSocket && (cause.code === "ECONNRESET" || cause.code === "EPIPE");
  }
}

const HEAD_BYTES_MAX = 256 * 1024;

/** One request to the application or to another front door. Its body is the caller's to send. */
export class Attempt {
  readonly request: ClientRequest;
  /** The answer's head; rejects with an {@link AttemptError}. */
  readonly answer: Promise<Answer>;

  constructor({ to, agent, method, target, headers, connectTimeoutMs, onInformation, onContinue }: AttemptOptions) {
    const request = send({
      ...to,
      ...(agent === undefined ? { createConnection: () => ownConnection(to) } : { agent }),
      method,
      path: target,
      headers: headers as string[],
      setHost: false,
      maxHeaderSize: HEAD_BYTES_MAX,
    });
    this.request = request;
    if (onContinue) request.on("continue", onContinue);
    if (onInformation)
      request.on("information", ({ statusCode, rawHeaders }) => {
        if (statusCode !== 100 && statusCode !== 101) onInformation(statusCode, rawHeaders);
      });
    if (connectTimeoutMs > 0) request.on("socket", (socket) => limitConnecting(socket, request, connectTimeoutMs));
    this.answer = new Promise((resolve, reject) => {
      request.on("response", (message) => resolve({ message, upgraded: undefined }));
      request.on("upgrade", (message, socket, head) => resolve({ message, upgraded: { socket, head } }));
      request.on("error", (error) => reject(new AttemptError(error, request)));
    });
    // Nobody may be waiting any longer when it fails.
    this.answer.catch(() => undefined);
  }

  /** Breaks it off. */
  abort(): void {
    this.request.destroy();
  }
}

/** Straight, without an agent's lists of connections that are used again. */
function ownConnection(to: AppAddress): Socket {
  return connect("socketPath" in to ? { path: to.socketPath } : { ...to, noDelay: true });
}

function limitConnecting(socket: Socket, request: ClientRequest, ms: number): void {
  if (!socket.connecting) return;
  const timer = setTimeout(() => {
    const error: NodeJS.ErrnoException = new Error(`no connection within ${ms} ms`);
    error.code = "ETIMEDOUT";
    error.syscall = "connect";
    request.destroy(error);
  }, ms);
  const done = (): void => clearTimeout(timer);
  socket.once("connect", done);
  socket.once("close", done);
}

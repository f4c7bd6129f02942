import type { IncomingMessage, ServerResponse } from "node:http";
import { attempts, type Attempt } from "./attempt.ts";
import { Gate, note, type ConnectOptions } from "./middleware.ts";

/** What is used of Fastify, so that this package needs none. */
interface FastifyLike {
  addHook(name: string, hook: (...args: never[]) => unknown): unknown;
}

interface RequestLike {
  readonly raw: IncomingMessage;
}

interface ReplyLike {
  readonly raw: ServerResponse;
  hijack(): unknown;
}

/** Fastify: `await app.register(fastifySluice, options)` before the routes. Counts for the whole application. */
export function fastifySluice(app: FastifyLike, options: ConnectOptions, done: () => void): void {
  const gate = new Gate(options);
  const running = new WeakMap<IncomingMessage, Attempt>();
  app.addHook("onRequest", (request: RequestLike, reply: ReplyLike, next: () => void) => {
    const attempt = gate.begin(request.raw, reply.raw);
    if (attempt === undefined) {
      reply.hijack();
    } else {
      running.set(request.raw, attempt);
      attempts.run(attempt, next);
    }
  });
  // The body was parsed meanwhile, in the context of its connection.
  app.addHook("preValidation", (request: RequestLike, _reply: ReplyLike, next: () => void) => {
    const attempt = running.get(request.raw);
    if (attempt === undefined) next();
    else attempts.run(attempt, next);
  });
  app.addHook("onError", (_request: RequestLike, reply: ReplyLike, error: unknown, next: () => void) => {
    note(reply.raw, error);
    next();
  });
  done();
}

/** Fastify's sign that the hooks aren't for this plugin's own routes alone. */
Object.assign(fastifySluice, { [Symbol.for("skip-override")]: true, [Symbol.for("fastify.display-name")]: "sluice" });

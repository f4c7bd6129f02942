import type { ServerResponse } from "node:http";
import type { Attempt, NotPrimary } from "./attempt.ts";

/** Whose proxy replays: Sluice's, or Fly.io's alone. */
export type Proxy = "sluice" | "fly";

const BODY = "This request must run on the primary, where the proxy in front of this application replays it.\n";

/**
 * Answers so that the proxy in front replays the request on the primary. It acts on the header and drops the rest. Fly.io's
 * must be told which machine; while none is known the answer is 503.
 */
export function answerReplay(response: ServerResponse, error: NotPrimary, proxy: Proxy): void {
  for (const name of response.getHeaderNames()) response.removeHeader(name);
  response.setHeader("content-type", "text/plain; charset=utf-8");
  response.setHeader("cache-control", "no-store");
  response.statusMessage = "";
  if (proxy === "fly" && error.primary === "") {
    response.statusCode = 503;
    response.setHeader("retry-after", "1");
    response.end("There is no primary just now; try again.\n");
    return;
  }
  response.statusCode = 409;
  if (proxy === "fly") response.setHeader("fly-replay", `instance=${error.primary}`);
  else response.setHeader("sluice-replay", "primary");
  response.end(BODY);
}

/**
 * From now on, whatever the application answers after a write was refused becomes the replay: its head when it's about to
 * be sent, and what follows is dropped. A response whose head is gone is left as it is.
 */
export function watch(response: ServerResponse, attempt: Attempt, proxy: Proxy): void {
  const own = {
    writeHead: response.writeHead.bind(response) as Method,
    flushHeaders: response.flushHeaders.bind(response),
    write: response.write.bind(response) as Method,
    end: response.end.bind(response) as Method,
  };
  let replaced = false;
  const replace = (): boolean => {
    if (replaced) return true;
    if (attempt.refused === undefined || response.headersSent) return false;
    replaced = true;
    Object.assign(response, own);
    answerReplay(response, attempt.refused, proxy);
    Object.assign(response, watched);
    return true;
  };
  const watched = {
    writeHead: (...args: unknown[]) => (replace() ? response : own.writeHead(...args)),
    flushHeaders: () => (replace() ? undefined : own.flushHeaders()),
    write: (...args: unknown[]) => (replace() ? called(args, true) : own.write(...args)),
    end: (...args: unknown[]) => (replace() ? called(args, response) : own.end(...args)),
  };
  Object.assign(response, watched);
}

type Method = (...args: unknown[]) => unknown;

/** Who wrote into a response that was replaced learns that it's done. */
function called<Result>(args: readonly unknown[], result: Result): Result {
  const last = args.at(-1);
  if (typeof last === "function") process.nextTick(last);
  return result;
}

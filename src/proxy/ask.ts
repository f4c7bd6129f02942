import { setTimeout as sleep } from "node:timers/promises";
import { type Answer, Attempt, AttemptError } from "./attempt.ts";
import type { Door } from "./door.ts";
import { toApplication, toPrimary, valueOf } from "./headers.ts";
import { HOP, NOT_PRIMARY } from "./hop.ts";
import type { Incoming } from "./incoming.ts";
import { Refusal } from "./refusal.ts";
import type { RequestBody } from "./request-body.ts";

/** A request that is being asked of somebody. */
export interface Asking {
  readonly door: Door;
  readonly incoming: Incoming;
  /** Undefined for a request without one. */
  readonly body: RequestBody | undefined;
  /** Tells the client to send its body; at most once, however often it is called. */
  readonly sendContinue: () => void;
  /** Passes on what comes before the answer, such as 103 Early Hints. */
  readonly onInformation: (status: number, headers: readonly string[]) => void;
  /** Hears of each attempt, so that it can be broken off. */
  readonly onAttempt: (attempt: Attempt) => void;
  readonly signal: AbortSignal;
}

const REFUSED_AGAIN_MS = 100;
/** Applications that don't know `Expect` never say that they want the body. */
const CONTINUE_MS = 1000;
const HOP_CONNECT_MS = 3000;
/** A body up to this is sent at once and kept; for a longer one the primary says first that it is the primary. */
const SENT_AT_ONCE_BYTES = 64 * 1024;

/** Whether a request may be asked a second time though the first may have been read. */
function isRepeatable({ mode, head: { method } }: Incoming): boolean {
  return mode !== "write" && (method === "GET" || method === "HEAD" || method === "OPTIONS");
}

/**
 * Asks the application on this node. A refused connection is tried again for `app-timeout`; after that nothing is sent
 * twice but a read on a connection that turned out to be closed. Throws {@link Refusal}.
 */
export async function askApplication(asking: Asking): Promise<Answer> {
  const { door, incoming, body, signal } = asking;
  const { config } = door;
  const repeatable = isRepeatable(incoming);
  const waits = incoming.head.expects && (incoming.hop === undefined || incoming.hop.expects);
  const headers = toApplication(incoming.head, incoming.origin, waits, !repeatable);
  let agent = repeatable ? door.appAgent : undefined;
  const start = performance.now();
  for (;;) {
    const attempt = begin(asking, { to: config.app, agent, headers, connectTimeoutMs: config.appTimeoutMs });
    const timer = sendBody(asking, attempt, waits);
    try {
      return expected(await attempt.answer, incoming);
    } catch (error) {
      body?.stop();
      signal.throwIfAborted();
      if (!(error instanceof AttemptError)) throw error;
      const { wasSent, wasStale, message } = error;
      const again = body === undefined || body.isReplayable;
      if (!wasSent && again && performance.now() - start < config.appTimeoutMs) {
        await sleep(REFUSED_AGAIN_MS, undefined, { signal });
        continue;
      }
      if (!wasSent) throw new Refusal(502, "SLU-7004", `the application can't be reached: ${message}`);
      if (wasStale && repeatable && again && agent === door.appAgent) {
        agent = undefined;
        continue;
      }
      const unknown = incoming.mode === "write";
      throw new Refusal(502, "SLU-7005", `the application broke off: ${message}`, { unknown });
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * Asks the primary's front door at `url`. Undefined: nobody there has seen the request (no connection, or it is not the
 * primary), so it may go elsewhere. Throws {@link Refusal} when the outcome is unknown.
 */
export async function askPrimary(asking: Asking, url: URL): Promise<Answer | undefined> {
  const { door, incoming, body, signal } = asking;
  const { head, origin, mode } = incoming;
  const waits = body !== undefined && (head.expects || (head.contentLength ?? Infinity) > SENT_AT_ONCE_BYTES);
  const hop = {
    ...origin,
    from: door.view.name,
    mode: mode === "write" ? mode : "read",
    expects: head.expects,
  } as const;
  const headers = toPrimary(head, door.signer.sign(hop, head.method, head.target), waits);
  const to = { host: url.hostname.replace(/^\[|\]$/g, ""), port: Number(url.port || 80) };
  const attempt = begin(asking, { to, agent: door.hopAgent, headers, connectTimeoutMs: HOP_CONNECT_MS });
  let bodyBegun = !waits;
  if (waits)
    attempt.request.on("continue", () => {
      bodyBegun = true;
      if (head.expects) asking.sendContinue();
      body.sendTo(attempt.request);
    });
  else if (body === undefined) attempt.request.end();
  else body.sendTo(attempt.request);
  try {
    const answer = expected(await attempt.answer, incoming);
    if (valueOf(answer.message.rawHeaders, HOP.toLowerCase()) !== NOT_PRIMARY) return answer;
    answer.message.on("error", () => undefined).resume();
    body?.stop();
    return replayable(body);
  } catch (error) {
    body?.stop();
    signal.throwIfAborted();
    if (!(error instanceof AttemptError)) throw error;
    // Without its body, no application can have acted on it.
    if (!error.wasSent || !bodyBegun || isRepeatable(incoming)) return replayable(body);
    const unknown = mode === "write";
    const what = `the connection to the primary broke: ${error.message}`;
    throw new Refusal(unknown ? 504 : 502, "SLU-7012", what, { unknown });
  }
}

/** Another protocol that nobody asked for is no answer. */
function expected(answer: Answer, { head, mode }: Incoming): Answer {
  if (answer.upgraded === undefined || head.upgrade !== undefined) return answer;
  answer.upgraded.socket.destroy();
  throw new Refusal(502, "SLU-7005", "the answer changes the protocol, unasked", { unknown: mode === "write" });
}

function replayable(body: RequestBody | undefined): undefined {
  if (body && !body.isReplayable)
    throw new Refusal(503, "SLU-7009", "the primary changed, and the body was not kept", { retryAfterS: 1 });
}

type Target = Pick<ConstructorParameters<typeof Attempt>[0], "to" | "agent" | "headers" | "connectTimeoutMs">;

function begin(asking: Asking, target: Target): Attempt {
  const { method, target: path } = asking.incoming.head;
  try {
    const attempt = new Attempt({ ...target, method, target: path, onInformation: asking.onInformation });
    asking.onAttempt(attempt);
    return attempt;
  } catch (error) {
    // What the parser let through and Node.js doesn't send.
    throw new Refusal(400, "SLU-7006", (error as Error).message, { close: true });
  }
}

/** The application says when it wants the body, or is taken not to know how. */
function sendBody(
  { body, incoming, sendContinue }: Asking,
  { request }: Attempt,
  waits: boolean,
): NodeJS.Timeout | undefined {
  if (body === undefined) return void request.end();
  if (!waits) {
    if (incoming.head.expects) sendContinue();
    body.sendTo(request);
    return undefined;
  }
  let begun = false;
  const go = (): void => {
    if (begun || request.destroyed) return;
    begun = true;
    sendContinue();
    body.sendTo(request);
  };
  request.on("continue", go);
  return setTimeout(go, CONTINUE_MS);
}

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { askApplication, type Asking, askPrimary } from "./ask.ts";
import type { Answer, Attempt } from "./attempt.ts";
import { confirm, confirmRest, named, type Release } from "./confirm.ts";
import { Delivery } from "./delivery.ts";
import type { Door } from "./door.ts";
import { fromAnswer, valueOf } from "./headers.ts";
import { asWrite, type Incoming, readIncoming } from "./incoming.ts";
import { KeptBody } from "./kept-body.ts";
import type { DatabasePosition, NodeView } from "./node-view.ts";
import { ownAnswer } from "./own.ts";
import { findPlace, placeNow, waitForPrimary } from "./place.ts";
import { positionHeaders } from "./position-headers.ts";
import { Refusal, refuse, refuseRaw } from "./refusal.ts";
import { asksForReplay } from "./replay.ts";
import type { WritePass } from "./write-gate.ts";
import { discardRest, RequestBody } from "./request-body.ts";

const NONE: readonly DatabasePosition[] = [];
/** One for all: each would take a stack trace. */
const OVER = new Error("the request is over");
/** How often an application on the primary may say that it isn't there. */
const REFUSALS_MAX = 5;
const REFUSED_MS = 50;
/** Between two looks at a primary that says it isn't one. */
const AGAIN_MS = 100;

/**
 * One request and its answer.
 *
 * `received` → (head read, checked, routed) → `placing` (waits for the client's positions, for a primary, for the end
 * of a handoff) → `asked` here, or of the primary's front door:
 * - here → `answered` → (the application asks for a replay) → `placing`, for the primary only
 *   → `confirming` (for what is durable now) → `delivering` → (before the last byte: `confirming` again) → `done`;
 * - of the primary → (it isn't one, or has no connection: nobody has seen it) → `placing`; → `delivering` → `done`.
 *
 * A refusal in any state before `delivering` is an answer of the front door's own; in `delivering`, and when the
 * client leaves, everything is broken off.
 */
export class Exchange {
  readonly #door: Door;
  readonly #request: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #start = performance.now();
  readonly #gone = new AbortController();
  #incoming: Incoming | undefined;
  #body: RequestBody | undefined;
  #attempt: Attempt | undefined;
  #delivery: Delivery | undefined;
  #pass: WritePass | undefined;
  /** The client was told to send its body. */
  #continued = false;
  #answeredBy: "local" | "primary" | "own" = "own";
  /** The primary that is being asked, and since when it isn't the primary any longer. */
  #askedUrl: string | undefined;
  #deposedSince = 0;
  readonly #onDone: (exchange: Exchange) => void;
  /** The request that came after this one on its connection. */
  next: { run(): Promise<void> } | undefined;
  #isClosed = false;

  constructor(door: Door, request: IncomingMessage, response: ServerResponse, onDone: (exchange: Exchange) => void) {
    this.#door = door;
    this.#request = request;
    this.#response = response;
    this.#onDone = onDone;
    response.on("close", () => this.#close());
  }

  /** To its end; never rejects. */
  async run(): Promise<void> {
    // An answer whose turn had not come hears nothing of its connection's end.
    if (this.socket.destroyed) return this.#close();
    try {
      const own = ownAnswer(this.#door, this.#request);
      if (own) {
        this.#response.writeHead(own.status, { "content-type": "application/json", "cache-control": "no-store" });
        return void this.#response.end(own.body);
      }
      this.#incoming = readIncoming(this.#door, this.#request);
      this.#body = this.#keptBody(this.#incoming);
      await this.#answer(this.#incoming);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Called every second or so: breaks off what a client or a former primary keeps waiting. */
  look(now: number): void {
    const { clientTimeoutMs, durabilityTimeoutMs } = this.#door.config;
    const since = this.#body?.waitingSince || this.#delivery?.blockedSince || 0;
    if (since > 0 && now - since > clientTimeoutMs) return this.#fail(tooSlow(clientTimeoutMs));
    if (this.#askedUrl === undefined) return;
    const deposed = this.#door.view.primary()?.proxy?.href !== this.#askedUrl;
    if (!deposed) this.#deposedSince = 0;
    else if (this.#deposedSince === 0) this.#deposedSince = now;
    else if (now - this.#deposedSince > durabilityTimeoutMs) this.#attempt?.abort();
  }

  get socket(): Socket {
    return this.#request.socket;
  }

  /** The connection's bytes make no sense any more: in this request's body, or after it. */
  refuseRest(refusal: Refusal): void {
    if (!this.#request.complete) this.#fail(refusal);
    else this.#response.once("close", () => refuseRaw(this.socket, refusal));
  }

  async #answer(first: Incoming): Promise<void> {
    let incoming = first;
    for (let refused = 0; ;) {
      const place =
        placeNow(this.#door, incoming.visit) ?? (await findPlace(this.#door, incoming.visit, this.#gone.signal));
      if (place.kind === "fly") return this.#sendToFly(place.name);
      if (place.kind === "primary") {
        if (await this.#throughPrimary(incoming, place.url)) return;
        await waitForPrimary(this.#door, incoming.visit, this.#gone.signal, AGAIN_MS);
        continue;
      }
      if (!(await this.#here(incoming, place.reign))) return;
      // The application wants to have it on the primary.
      if (place.reign !== undefined) {
        if (++refused > REFUSALS_MAX) throw refusesHere();
        await sleep(REFUSED_MS * refused, undefined, { signal: this.#gone.signal });
      }
      if (this.#body && !this.#body.isReplayable) throw notKept();
      this.#door.metrics.replays.inc();
      incoming = asWrite(this.#door, incoming);
      this.#incoming = incoming;
    }
  }

  /** Asks the application on this node; true when it wants a replay. */
  async #here(incoming: Incoming, reign: number | undefined): Promise<boolean> {
    const door = this.#door;
    const { mode } = incoming;
    const isWrite = mode === "write";
    const watches =
      mode !== "pass" && (incoming.level !== "local" || (door.config.readYourWrites && reign !== undefined));
    const before = watches ? await door.view.positions() : NONE;
    if (isWrite) this.#pass = this.#door.gate.enter();
    const answer = await askApplication(this.#asking(incoming));
    if (asksForReplay(answer.message.rawHeaders, door.config.forward === "fly-replay")) {
      this.#pass?.released();
      this.#body?.stop();
      answer.message.on("error", () => undefined);
      answer.message.destroy();
      return true;
    }
    this.#answeredBy = "local";
    this.#stopBodyOf(answer);
    await this.#deliver(incoming, answer, reign, before, watches);
    return false;
  }

  async #deliver(
    incoming: Incoming,
    { message }: Answer,
    reign: number | undefined,
    before: readonly DatabasePosition[],
    watches: boolean,
  ): Promise<void> {
    const door = this.#door;
    const isWrite = incoming.mode === "write";
    const length = bodyLength(message, incoming);
    const isStream = valueOf(message.rawHeaders, "content-type")?.startsWith("text/event-stream") === true;
    const level = isStream ? "local" : incoming.level;
    const waits = level !== "local";
    let atEnd: ReturnType<NodeView["positions"]> | undefined;
    let uncaptured: unknown;
    const onEnd = (): void => {
      if (waits) this.#pass?.answered();
      else this.#pass?.released();
      try {
        if (waits) atEnd = door.view.positions();
      } catch (error) {
        uncaptured = error;
      }
    };
    let broken = false;
    const onBreak = (): void => {
      broken = true;
      this.#pass?.released();
    };
    const delivery = new Delivery(message, this.#response, onEnd, onBreak);
    this.#delivery = delivery;
    // Who says how much comes has done its work; of who goes on sending only the end tells.
    if (length !== undefined) this.#pass?.answered();
    else if (isStream) this.#pass?.released();
    if (waits) await delivery.gather();
    if (uncaptured !== undefined) throw uncaptured as Error;
    let positions = watches ? await (atEnd ?? door.view.positions()) : NONE;
    if (door.config.readYourWrites && watches && isWrite && !isStream)
      positions = await named(door, positions, this.#gone.signal);
    const release: Release = { level, reign, isWrite };
    if (waits || (isWrite && !isStream)) await confirm(door, positions, release, this.#gone.signal);
    if (broken) throw brokenOff(isWrite);
    const headers = fromAnswer(message.rawHeaders, false);
    if (watches || incoming.seen.size > 0)
      positionHeaders(headers, { incoming, before, after: positions, reign, ryw: door.config.readYourWrites });
    if (isWrite || waits) headers.push("Sluice-Durable", level);
    this.#endConnection(headers);
    const rest = async (): Promise<void> => {
      if (atEnd === undefined) throw uncaptured as Error;
      await confirmRest(door, positions, await atEnd, release, this.#gone.signal);
      this.#pass?.released();
    };
    if (atEnd !== undefined || (!waits && length !== undefined)) this.#pass?.released();
    delivery.send(headers, length, waits ? rest : undefined);
  }

  /** Asks the primary's front door; false when nobody there has seen it. */
  async #throughPrimary(incoming: Incoming, url: URL): Promise<boolean> {
    this.#askedUrl = url.href;
    const answer = await askPrimary(this.#asking(incoming), url);
    this.#askedUrl = undefined;
    if (answer === undefined) return false;
    this.#answeredBy = "primary";
    this.#stopBodyOf(answer);
    this.#delivery = new Delivery(answer.message, this.#response, noop, noop);
    const headers = fromAnswer(answer.message.rawHeaders, true);
    this.#endConnection(headers);
    this.#delivery.send(headers, undefined, undefined);
    return true;
  }

  #sendToFly(name: string): void {
    const headers = ["fly-replay", `instance=${name}`, "Content-Length", "0", "Cache-Control", "no-store"];
    this.#endConnection(headers);
    this.#answeredBy = "primary";
    // Fly.io's proxy looks at the header alone; anybody else must not take this for success.
    this.#response.writeHead(409, headers);
    this.#response.end();
  }

  #asking(incoming: Incoming): Asking {
    return {
      door: this.#door,
      incoming,
      body: this.#body,
      sendContinue: () => this.#continue(),
      onInformation: (status, raw) => this.#inform(status, raw),
      onAttempt: (attempt) => (this.#attempt = attempt),
      signal: this.#gone.signal,
    };
  }

  #continue(): void {
    if (this.#continued || this.#response.headersSent) return;
    this.#continued = true;
    this.#response.writeContinue();
  }

  /** Early hints are passed on; other informational answers have no meaning beyond one connection. */
  #inform(status: number, raw: readonly string[]): void {
    const link = valueOf(raw, "link");
    if (status === 103 && link !== undefined && !this.#response.headersSent) this.#response.writeEarlyHints({ link });
  }

  #keptBody({ head: { contentLength, chunked }, mode }: Incoming): RequestBody | undefined {
    if (!chunked && (contentLength ?? 0) === 0) return undefined;
    const { config, budget, diskBudget, log } = this.#door;
    // Writes go to the primary at once, and are replayed only while primaries change.
    const diskBytes = mode === "write" ? 0 : config.replayDiskBytes;
    const limits = { memoryBytes: config.replayMemoryBytes, diskBytes, dir: config.replayDir };
    const kept = new KeptBody(limits, { memory: budget, disk: diskBudget }, (err) =>
      log.warn({ err, code: "SLU-7015" }, "a request's body could not be kept on disk"),
    );
    const tooLarge = (): void =>
      this.#fail(new Refusal(413, "SLU-7008", `the body is longer than ${config.bodyBytesMax} bytes`));
    return new RequestBody(this.#request, kept, config.bodyBytesMax, { tooLarge });
  }

  /** Who is leaving says so. (Node.js does, too, to a client that was never told to send its body.) */
  #endConnection(headers: string[]): void {
    if (this.#door.isDraining) headers.push("Connection", "close");
  }

  /** Who refuses a request does not read the rest of its body, and closes; what is sent then loses the answer. */
  #stopBodyOf({ message }: Answer): void {
    if (message.statusCode! >= 300 && this.#body?.hasEnded === false) this.#body.stop();
  }

  #fail(error: unknown): void {
    this.#pass?.released();
    if (this.#gone.signal.aborted || this.#response.destroyed) return;
    const refusal = error instanceof Refusal ? error : this.#internal(error);
    this.#door.metrics.own.inc({ code: refusal.code });
    if (refusal.options.unknown) this.#door.metrics.unknown.inc();
    this.#attempt?.abort();
    this.#body?.stop();
    if (this.#response.writableEnded) return;
    if (this.#response.headersSent) return void this.#response.destroy();
    this.#answeredBy = "own";
    refuse(this.#response, refusal, this.#door.isDraining);
  }

  #internal(error: unknown): Refusal {
    this.#door.log.error({ err: error, code: "SLU-7000" }, "a request failed for no reason that the front door knows");
    const unknown = this.#incoming?.mode === "write" && this.#attempt !== undefined;
    return new Refusal(unknown ? 504 : 500, "SLU-7000", "the front door failed", { unknown });
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#gone.abort(OVER);
    this.#pass?.released();
    this.#body?.release();
    if (this.#response.writableFinished && !this.#request.complete)
      discardRest(this.#request, this.#door.config.clientTimeoutMs);
    if (this.#delivery === undefined || !this.#response.writableFinished) this.#attempt?.abort();
    const mode = this.#incoming?.mode ?? "read";
    const status = `${Math.floor(this.#response.statusCode / 100)}xx`;
    this.#door.metrics.requests.inc({ mode, by: this.#answeredBy, status });
    this.#door.metrics.seconds.observe({ mode }, (performance.now() - this.#start) / 1000);
    this.#onDone(this);
  }
}

function noop(): void {}

/** How long an answer's body is; undefined when only its end tells. */
function bodyLength({ statusCode, rawHeaders }: IncomingMessage, { head }: Incoming): number | undefined {
  if (head.method === "HEAD" || statusCode === 204 || statusCode === 304) return 0;
  const text = valueOf(rawHeaders, "content-length");
  return text === undefined ? undefined : Number(text);
}

function tooSlow(ms: number): Refusal {
  return new Refusal(408, "SLU-7014", `the client did nothing for ${ms} ms`, { close: true });
}

function refusesHere(): Refusal {
  return new Refusal(503, "SLU-7010", "the application on the primary asks for the primary", { retryAfterS: 1 });
}

function notKept(): Refusal {
  return new Refusal(503, "SLU-7009", "the application asks for a replay, and the body was not kept", {
    retryAfterS: 1,
  });
}

function brokenOff(unknown: boolean): Refusal {
  return new Refusal(502, "SLU-7005", "the application broke off its answer", { unknown });
}

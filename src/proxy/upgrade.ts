import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { askApplication, type Asking, askPrimary } from "./ask.ts";
import type { Answer, Attempt } from "./attempt.ts";
import type { Door } from "./door.ts";
import { fromAnswer } from "./headers.ts";
import { asWrite, type Incoming, readIncoming } from "./incoming.ts";
import { findPlace, waitForPrimary } from "./place.ts";
import { rawHead, Refusal, refuseRaw } from "./refusal.ts";
import { asksForReplay } from "./replay.ts";

const AGAIN_MS = 100;

/**
 * A request for a WebSocket: routed as any other, then two connections joined, without
 * durability. `received` → `placing` → `asked` → `joined` (bytes both ways, with backpressure) → `closed`; an answer
 * other than 101 is passed on, and ends the connection.
 */
export class Upgrade {
  readonly #door: Door;
  readonly #request: IncomingMessage;
  readonly #socket: Socket;
  readonly #head: Buffer;
  readonly #gone = new AbortController();
  readonly #onDone: (upgrade: Upgrade) => void;
  #attempt: Attempt | undefined;
  #upstream: Duplex | undefined;

  constructor(door: Door, request: IncomingMessage, socket: Socket, head: Buffer, onDone: (upgrade: Upgrade) => void) {
    this.#door = door;
    this.#request = request;
    this.#socket = socket;
    this.#head = head;
    this.#onDone = onDone;
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#close());
  }

  /** Until the connections are joined or refused; never rejects. */
  async run(): Promise<void> {
    try {
      const incoming = readIncoming(this.#door, this.#request);
      const { contentLength, chunked, expects } = incoming.head;
      // What comes after the head would be body or protocol, depending on whom one asks.
      if (chunked || (contentLength ?? 0) > 0 || expects)
        throw new Refusal(400, "SLU-7006", "can't be passed on: an upgrade with a body", { close: true });
      const answer = await this.#ask(incoming);
      if (answer === undefined) return;
      if (this.#gone.signal.aborted) answer.answer.upgraded?.socket.destroy();
      else this.#join(answer.answer, answer.own);
    } catch (error) {
      if (this.#gone.signal.aborted) return;
      this.#attempt?.abort();
      const refusal = error instanceof Refusal ? error : this.#internal(error);
      this.#door.metrics.own.inc({ code: refusal.code });
      refuseRaw(this.#socket, refusal);
    }
  }

  /** Ends it: a protocol that isn't known can't be told to end by itself. */
  close(): void {
    this.#socket.destroy();
  }

  async #ask(first: Incoming): Promise<{ readonly answer: Answer; readonly own: boolean } | undefined> {
    let incoming = first;
    const { signal } = this.#gone;
    for (;;) {
      const place = await findPlace(this.#door, incoming.visit, signal);
      if (place.kind === "fly") {
        const headers = ["fly-replay", `instance=${place.name}`, "Content-Length", "0", "Connection", "close"];
        this.#socket.end(rawHead(409, "Conflict", headers));
        return undefined;
      }
      if (place.kind === "here") {
        const answer = await askApplication(this.#asking(incoming));
        const wantsPrimary = asksForReplay(answer.message.rawHeaders, this.#door.config.forward === "fly-replay");
        if (!wantsPrimary || place.reign !== undefined) return { answer, own: false };
        answer.message.on("error", () => undefined).destroy();
        this.#door.metrics.replays.inc();
        incoming = asWrite(this.#door, incoming);
        continue;
      }
      const answer = await askPrimary(this.#asking(incoming), place.url);
      if (answer) return { answer, own: true };
      await waitForPrimary(this.#door, incoming.visit, signal, AGAIN_MS);
    }
  }

  #asking(incoming: Incoming): Asking {
    return {
      door: this.#door,
      incoming,
      body: undefined,
      sendContinue: () => undefined,
      onInformation: () => undefined,
      onAttempt: (attempt) => (this.#attempt = attempt),
      signal: this.#gone.signal,
    };
  }

  #join({ message, upgraded }: Answer, own: boolean): void {
    const client = this.#socket;
    const headers = fromAnswer(message.rawHeaders, own);
    if (upgraded === undefined) {
      headers.push("Connection", "close");
      client.write(rawHead(message.statusCode!, message.statusMessage ?? "", headers));
      message.on("error", () => client.destroy());
      message.pipe(client);
      return;
    }
    const { socket, head } = upgraded;
    this.#upstream = socket;
    headers.push("Connection", "Upgrade", "Upgrade", "websocket");
    client.write(rawHead(101, message.statusMessage ?? "Switching Protocols", headers));
    client.setNoDelay(true);
    client.setTimeout(0);
    if (head.length > 0) client.write(head);
    if (this.#head.length > 0) socket.write(this.#head);
    socket.on("error", () => client.destroy());
    socket.on("close", () => client.destroySoon());
    socket.pipe(client);
    client.pipe(socket);
  }

  #internal(error: unknown): Refusal {
    this.#door.log.error({ err: error, code: "SLU-7000" }, "an upgrade failed for no reason that the front door knows");
    return new Refusal(500, "SLU-7000", "the front door failed", { close: true });
  }

  #close(): void {
    this.#gone.abort();
    this.#attempt?.abort();
    this.#upstream?.destroy();
    this.#onDone(this);
  }
}

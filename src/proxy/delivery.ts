import type { IncomingMessage, ServerResponse } from "node:http";
import { freeing } from "./free.ts";
import { pairs } from "./request-body.ts";

/** What may be in memory of an answer that waits. */
const GATHERED_BYTES_MAX = 64 * 1024;
/** How long an answer that waits is given to arrive as a whole, so that one wait is enough. */
const GATHER_MS = 5;

/**
 * An answer on its way to the client, with backpressure.
 *
 * `arriving` → gather → `gathered` (its end, or as much as may wait, is here) → send → `flowing` ⇄ `blocked` (by the
 * client) → `ended` → (beforeEnd: the last byte is held back) → `done`. A broken answer breaks the client's connection
 * in every state, so that it can't be taken for a whole one.
 */
export class Delivery {
  readonly #answer: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #onEnd: () => void;
  readonly #onBreak: () => void;
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #sending = false;
  #ended = false;
  #finishing = false;
  #wake: (() => void) | undefined;
  #beforeEnd: (() => Promise<void>) | undefined;
  /** Bytes until the client would take the answer for whole. */
  #left = Number.POSITIVE_INFINITY;
  #last: Buffer | undefined;
  /** Since when the client takes nothing; 0 while it does. */
  blockedSince = 0;

  /** `onEnd` is called when the answer's last byte is here, `onBreak` when it never will be. */
  constructor(answer: IncomingMessage, response: ServerResponse, onEnd: () => void, onBreak: () => void) {
    this.#answer = answer;
    this.#response = response;
    this.#onEnd = onEnd;
    this.#onBreak = onBreak;
    answer.on("data", (chunk: Buffer) => this.#take(chunk));
    answer.on("end", () => this.#end());
    answer.on("error", () => this.#break());
    answer.on("close", () => this.#break());
  }

  /** Until the answer is here as a whole, or as much of it as may wait. */
  async gather(): Promise<void> {
    if (this.#ended || this.#waitingBytes >= GATHERED_BYTES_MAX) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, GATHER_MS);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = undefined;
  }

  /** Sends head and body; `beforeEnd` holds the last byte back, and breaks the answer off when it rejects. */
  send(headers: string[], length: number | undefined, beforeEnd: (() => Promise<void>) | undefined): void {
    const { statusCode, statusMessage } = this.#answer;
    this.#beforeEnd = beforeEnd;
    if (length !== undefined && beforeEnd) this.#left = length;
    this.#response.writeHead(statusCode!, statusMessage, headers);
    this.#response.on("drain", () => this.#resume());
    this.#sending = true;
    const waiting = this.#waiting;
    this.#waiting = [];
    this.#waitingBytes = 0;
    for (const chunk of waiting) this.#write(chunk);
    if (this.#ended) this.#finish();
    else if (!this.#response.writableNeedDrain) this.#resume();
    // A stream's head is news in itself.
    if (waiting.length === 0 && !this.#ended) setImmediate(() => this.#flushHead());
  }

  #flushHead(): void {
    if (!this.#response.writableEnded && !this.#response.destroyed) this.#response.flushHeaders();
  }

  #take(chunk: Buffer): void {
    if (this.#sending) {
      this.#write(chunk);
      if (this.#response.writableNeedDrain) this.#block();
      return;
    }
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.length;
    if (this.#waitingBytes < GATHERED_BYTES_MAX) return;
    this.#answer.pause();
    this.#wake?.();
  }

  #write(chunk: Buffer): void {
    this.#left -= chunk.length;
    if (this.#left <= 0 && this.#last === undefined) this.#last = chunk;
    else this.#response.write(chunk, freeing(chunk));
  }

  #block(): void {
    this.#answer.pause();
    this.blockedSince ||= performance.now();
  }

  #resume(): void {
    this.blockedSince = 0;
    this.#answer.resume();
  }

  #end(): void {
    this.#ended = true;
    this.#onEnd();
    this.#wake?.();
    if (this.#sending) this.#finish();
  }

  #finish(): void {
    if (this.#finishing) return;
    this.#finishing = true;
    if (this.#beforeEnd === undefined) return this.#finishNow();
    this.#beforeEnd().then(
      () => this.#finishNow(),
      () => this.#response.destroy(),
    );
  }

  #finishNow(): void {
    const { rawTrailers } = this.#answer;
    if (rawTrailers.length > 0) this.#response.addTrailers(pairs(rawTrailers));
    if (this.#last === undefined) this.#response.end();
    else this.#response.end(this.#last);
    if (this.#response.writableNeedDrain) this.blockedSince = performance.now();
  }

  #break(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#onBreak();
    this.#wake?.();
    if (this.#sending) this.#response.destroy();
  }
}

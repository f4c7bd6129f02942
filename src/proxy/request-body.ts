import type { ClientRequest, IncomingMessage } from "node:http";
import { freeing } from "./free.ts";
import type { KeptBody } from "./kept-body.ts";

export interface BodyEvents {
  /** More came than `bytesMax`. */
  readonly tooLarge: () => void;
}

/**
 * A request's body on its way to whoever is asked, with backpressure, and kept for another one.
 *
 * `resting` → sendTo → `flowing` ⇄ `blocked` (by the receiver, or the disk that keeps) → `sent`.
 * From every state, stop → `resting`; then sendTo sends what was kept and goes on with what the client still sends.
 */
export class RequestBody {
  readonly #source: IncomingMessage;
  readonly #kept: KeptBody;
  readonly #bytesMax: number;
  readonly #events: BodyEvents;
  #sink: ClientRequest | undefined;
  #bytes = 0;
  #begun = false;
  #ended = false;
  #resending = false;
  /** A chunk is on its way from the client to the receiver. */
  #passing = false;
  #keeping: Promise<void> | undefined;
  /** When the client was last heard of while its body is waited for; 0 while it isn't. */
  waitingSince = 0;

  constructor(source: IncomingMessage, kept: KeptBody, bytesMax: number, events: BodyEvents) {
    this.#source = source;
    this.#kept = kept;
    this.#bytesMax = bytesMax;
    this.#events = events;
  }

  /** Whether it can be sent (again) from its first byte. */
  get isReplayable(): boolean {
    return this.#bytes === 0 || this.#kept.isComplete;
  }

  /** Whether all of it has been read from the client. */
  get hasEnded(): boolean {
    return this.#ended;
  }

  /** Sends all of it, then ends `sink`, with the client's trailers. */
  sendTo(sink: ClientRequest): void {
    this.#sink = sink;
    if (!this.#begun) {
      this.#begun = true;
      const source = this.#source;
      source.on("data", (chunk: Buffer) => this.#take(chunk));
      source.on("end", () => this.#end());
      this.#heard();
      source.resume();
      return;
    }
    void this.#resend(sink);
  }

  /** The receiver is out of the game; the client is not read any further. */
  stop(): void {
    this.#sink = undefined;
    this.waitingSince = 0;
    if (this.#begun && !this.#ended) this.#source.pause();
  }

  release(): void {
    this.stop();
    this.#kept.release();
  }

  #take(chunk: Buffer): void {
    this.#bytes += chunk.length;
    if (this.#bytes > this.#bytesMax) return this.#events.tooLarge();
    const sink = this.#sink;
    const keeping = this.#kept.add(chunk);
    this.#keeping = keeping;
    this.#source.pause();
    this.waitingSince = 0;
    // A receiver that has answered early may have closed its connection, and writing to that loses the answer: what
    // has arrived is read first.
    this.#passing = true;
    setImmediate(() => {
      this.#passing = false;
      if (sink === undefined || this.#sink !== sink) return;
      const flows = sink.write(chunk, this.#kept.isComplete ? undefined : freeing(chunk));
      if (this.#ended) this.#finish(sink);
      else if (flows && keeping === undefined) this.#goOn();
      else void this.#unblock(sink, flows, keeping);
    });
  }

  async #unblock(sink: ClientRequest, flows: boolean, keeping: Promise<void> | undefined): Promise<void> {
    await keeping;
    if (!flows) await drained(sink);
    if (this.#sink === sink) this.#goOn();
  }

  #goOn(): void {
    if (this.#ended) return;
    this.#heard();
    this.#source.resume();
  }

  async #resend(sink: ClientRequest): Promise<void> {
    this.#resending = true;
    try {
      await this.#keeping;
      for await (const chunk of this.#kept.read()) {
        if (this.#sink !== sink) return;
        if (!sink.write(chunk)) await drained(sink);
      }
    } catch (error) {
      return void sink.destroy(error as Error);
    } finally {
      this.#resending = false;
    }
    if (this.#sink !== sink) return;
    if (this.#ended) this.#finish(sink);
    else this.#goOn();
  }

  #end(): void {
    this.#ended = true;
    this.waitingSince = 0;
    if (this.#sink !== undefined && !this.#resending && !this.#passing) this.#finish(this.#sink);
  }

  #finish(sink: ClientRequest): void {
    const { rawTrailers } = this.#source;
    if (rawTrailers.length > 0) sink.addTrailers(pairs(rawTrailers));
    sink.end();
  }

  #heard(): void {
    this.waitingSince = performance.now();
  }
}

/**
 * Reads what is left of a request that was answered already, so that the client sees the answer instead of a broken
 * connection, and the next request is found. A client that isn't through within `limitMs` is left.
 */
export function discardRest(request: IncomingMessage, limitMs: number): void {
  const { socket } = request;
  const timer = setTimeout(() => socket.destroy(), limitMs);
  const done = (): void => clearTimeout(timer);
  request.removeAllListeners("data");
  request.on("end", done);
  socket.once("close", done);
  request.resume();
}

/** Node.js takes trailers in pairs. Names of headers that frame or route a message are no trailers (RFC 9110, 6.5.1). */
export function pairs(flat: readonly string[]): [string, string][] {
  const found: [string, string][] = [];
  for (let i = 0; i < flat.length; i += 2) if (!NO_TRAILER.test(flat[i]!)) found.push([flat[i]!, flat[i + 1]!]);
  return found;
}

const NO_TRAILER =
  /^(?:transfer-encoding|content-length|host|trailer|connection|authorization|cookie|set-cookie|te|expect|forwarded|x[-_]forwarded[-_].*|x[-_]real[-_]ip|sluice[-_].*)$/i;

async function drained(sink: ClientRequest): Promise<void> {
  if (sink.destroyed || !sink.writableNeedDrain) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      sink.off("drain", done);
      sink.off("close", done);
      resolve();
    };
    sink.on("drain", done);
    sink.on("close", done);
  });
}

import type { WebSocket } from "ws";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import { type Clock, systemClock } from "../../log/clock.ts";
import { damaged } from "./bytes.ts";
import { type Content, decode, encode, type Message, type MessageType } from "./messages.ts";

/** After this many heartbeats without a message the other side is given up. */
const SILENT_BEATS = 3;
/** How long a polite end may take. */
const CLOSE_MS = 1_000;
/** A message is not begun while more than this waits to be sent. */
const SEND_BYTES = 1024 * 1024;

export interface LinkEvents {
  /** Whatever it throws ends the link. */
  readonly onMessage: (message: Message, sizeBytes: number) => void;
  /** Once a heartbeat interval; the place to send one. */
  readonly onBeat: () => void;
  /** Once, with the reason. */
  readonly onEnd: (error: SluiceError) => void;
  /** There is room to send again. */
  readonly onDrain: () => void;
}

/**
 * One side of a connection: messages over a WebSocket, with a deadline for silence.
 *
 *     open ── end(error): a refusal says why, where one is given ──► ended
 *       ├── the other side closes, or the connection breaks ───────► ended, SLU-8210
 *       ├── a message that isn't one ─────────────────────────────► ended, SLU-8208
 *       └── nothing came for three heartbeats ────────────────────► ended, SLU-8209
 *
 * Beats are counted, not measured: after this process itself has slept, what has come meanwhile is read first.
 */
export class Link {
  readonly #socket: WebSocket;
  readonly #events: LinkEvents;
  readonly #clock: Clock;
  #cancelBeat: () => void;
  #silentBeats = 0;
  #ended = false;
  #isFull = false;
  sentBytes = 0;
  receivedBytes = 0;

  constructor(socket: WebSocket, heartbeatMs: number, events: LinkEvents, clock = systemClock) {
    this.#socket = socket;
    this.#events = events;
    this.#clock = clock;
    socket.binaryType = "nodebuffer";
    socket.on("message", (data, isBinary) => this.#receive(data as Buffer, isBinary));
    socket.on("close", (code) => this.end(lost(`the connection was closed (${code})`)));
    socket.on("error", (error) => this.end(lost(error.message, error)));
    this.#cancelBeat = this.#beatIn(heartbeatMs);
  }

  /** The primary says how often both beat. */
  beatEvery(heartbeatMs: number): void {
    if (this.#ended) return;
    this.#cancelBeat();
    this.#cancelBeat = this.#beatIn(heartbeatMs);
  }

  #beatIn(heartbeatMs: number): () => void {
    return this.#clock.schedule(heartbeatMs, () => {
      this.#cancelBeat = this.#beatIn(heartbeatMs);
      this.#beat();
    });
  }

  get isEnded(): boolean {
    return this.#ended;
  }

  /** Whether more may be sent now; when not, `onDrain` tells when. */
  get hasRoom(): boolean {
    if (this.#socket.bufferedAmount < SEND_BYTES) return true;
    this.#isFull = true;
    return false;
  }

  send<T extends MessageType>(type: T, content: Content<T>): void {
    this.sendEncoded(encode(type, content));
  }

  /** `message` is the link's from now on. */
  sendEncoded(message: Uint8Array): void {
    if (this.#ended) return;
    this.sentBytes += message.length;
    this.#socket.send(message, { binary: true, compress: false }, this.#onSent);
  }

  /** Ends the link; `say` is told to the other side first. */
  end(error: SluiceError, say?: { readonly code: string; readonly message: string; readonly primary: string }): void {
    if (this.#ended) return;
    if (say !== undefined) this.send("refusal", say);
    this.#ended = true;
    this.#cancelBeat();
    const socket = this.#socket;
    const cancel = this.#clock.schedule(error.code === "SLU-8209" ? 0 : CLOSE_MS, () => socket.terminate());
    socket.once("close", cancel);
    socket.close();
    this.#events.onEnd(error);
  }

  readonly #onSent = (): void => {
    if (!this.#isFull || this.#ended || this.#socket.bufferedAmount >= SEND_BYTES) return;
    this.#isFull = false;
    this.#events.onDrain();
  };

  #receive(data: Buffer, isBinary: boolean): void {
    if (this.#ended) return;
    this.#silentBeats = 0;
    this.receivedBytes += data.length;
    try {
      if (!isBinary) throw damaged("a message of text");
      const message = decode(data);
      if (message !== undefined) this.#events.onMessage(message, data.length);
    } catch (error) {
      if (!isSluiceError(error)) throw error;
      this.end(error, { code: error.code, message: error.message, primary: "" });
    }
  }

  #beat(): void {
    this.#silentBeats++;
    if (this.#silentBeats > SILENT_BEATS) {
      return this.end(new SluiceError("SLU-8209", `nothing came for ${SILENT_BEATS} heartbeats`));
    }
    this.#events.onBeat();
  }
}

function lost(message: string, cause?: unknown): SluiceError {
  return new SluiceError("SLU-8210", message, { cause });
}

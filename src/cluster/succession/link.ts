import type { Socket } from "node:net";
import { codes, type ErrorCode } from "../../errors/codes.ts";
import { isSluiceError, SluiceError } from "../../errors/error.ts";

/** A question of either side; what its fields are is a matter of `do`. */
export interface Question {
  readonly do: string;
  readonly [field: string]: unknown;
}

/** Answers a question of the other side; what it rejects with is told there. The signal: nobody waits any more. */
export type Answerer = (question: Question, signal: AbortSignal) => Promise<unknown>;

type Message =
  | { readonly ask: number; readonly question: Question }
  | { readonly cancel: number }
  | { readonly answer: number; readonly value?: unknown; readonly error?: Refused };

interface Refused {
  readonly code?: string | undefined;
  readonly message: string;
  readonly hint?: string | undefined;
}

const LINE_BYTES_MAX = 64 * 1024;

/**
 * Two Sluices of one host, for one database: both ask and answer, one JSON document a line. Lives until one of them closes
 * it or ends. A line that isn't understood ends it, too: the other program is none of ours.
 */
export class Link {
  readonly #socket: Socket;
  readonly #asked = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #answering = new Map<number, AbortController>();
  #next = 1;
  #rest = "";
  #gone = Promise.withResolvers<void>();
  #isGone = false;
  answerer: Answerer;

  constructor(socket: Socket, answerer: Answerer) {
    this.#socket = socket;
    this.answerer = answerer;
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => this.#read(chunk));
    socket.on("error", () => undefined);
    socket.on("close", () => this.#end());
  }

  /** Resolves when the other side has ended, or either has closed it. */
  get gone(): Promise<void> {
    return this.#gone.promise;
  }

  get isGone(): boolean {
    return this.#isGone;
  }

  /** Rejects with the other side's error, with the reason of `signal`, or with SLU-6013 when the link ends first. */
  async ask(question: Question, signal?: AbortSignal): Promise<unknown> {
    signal?.throwIfAborted();
    if (this.#isGone) throw ended();
    const id = this.#next++;
    const answer = Promise.withResolvers<unknown>();
    this.#asked.set(id, answer);
    const cancel = (): void => {
      this.#asked.delete(id);
      this.#send({ cancel: id });
      answer.reject(signal?.reason);
    };
    signal?.addEventListener("abort", cancel, { once: true });
    this.#send({ ask: id, question });
    try {
      return await answer.promise;
    } finally {
      signal?.removeEventListener("abort", cancel);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  #send(message: Message): void {
    if (!this.#socket.destroyed) this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  #read(chunk: string): void {
    const lines = (this.#rest + chunk).split("\n");
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > LINE_BYTES_MAX) return this.close();
    for (const line of lines) {
      try {
        this.#handle(JSON.parse(line) as Message);
      } catch {
        return this.close();
      }
    }
  }

  #handle(message: Message): void {
    if ("ask" in message) void this.#reply(message.ask, message.question);
    else if ("cancel" in message) this.#answering.get(message.cancel)?.abort();
    else {
      const asked = this.#asked.get(message.answer);
      this.#asked.delete(message.answer);
      if (message.error === undefined) asked?.resolve(message.value);
      else asked?.reject(told(message.error));
    }
  }

  async #reply(id: number, question: Question): Promise<void> {
    const abort = new AbortController();
    this.#answering.set(id, abort);
    try {
      this.#send({ answer: id, value: await this.answerer(question, abort.signal) });
    } catch (error) {
      const { code, hint } = isSluiceError(error) ? error : { code: undefined, hint: undefined };
      this.#send({
        answer: id,
        error: { code, hint, message: error instanceof Error ? error.message : String(error) },
      });
    } finally {
      this.#answering.delete(id);
    }
  }

  #end(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    for (const answer of this.#asked.values()) answer.reject(ended());
    this.#asked.clear();
    for (const abort of this.#answering.values()) abort.abort();
    this.#gone.resolve();
  }
}

function ended(): SluiceError {
  return new SluiceError("SLU-6013", "the other Sluice of this database has ended");
}

function told({ code, message, hint }: Refused): Error {
  if (code === undefined || !(code in codes)) return new Error(message);
  return new SluiceError(code as ErrorCode, message, hint === undefined ? {} : { hint });
}

import { readFileSync } from "node:fs";
import { Agent as HttpAgent, request as httpRequest, type RequestOptions } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import type { LeaseTls } from "../config/config.ts";
import { SluiceError } from "../errors/error.ts";

export interface Answer {
  readonly status: number;
  readonly body: string;
}

export interface Call {
  readonly method: "GET" | "PUT" | "POST";
  readonly path: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

const ANSWER_BYTES_MAX = 1024 * 1024;

/**
 * A small service spoken to in JSON over HTTP, at one address or several that are as good as each other: after a call
 * without an answer the next one goes to the next address. Nothing is repeated here.
 */
export class HttpService {
  /** For messages. */
  readonly name: string;
  readonly #urls: readonly URL[];
  readonly #agents: { readonly http: HttpAgent; readonly https: HttpsAgent };
  #at = 0;

  /** Throws SLU-8006 when a certificate can't be read. */
  constructor(name: string, urls: readonly URL[], tls: LeaseTls = {}) {
    this.name = name;
    this.#urls = urls;
    const pem = Object.fromEntries(Object.entries(tls).map(([name, file]: [string, string]) => [name, readPem(file)]));
    const kept = { keepAlive: true, maxSockets: 4 };
    this.#agents = { http: new HttpAgent(kept), https: new HttpsAgent({ ...kept, ...pem }) };
  }

  /** Where calls go now, without user and password. */
  get address(): string {
    return this.#url.origin;
  }

  /** The answer, whatever its status. Throws SLU-8001 when there is none: it may have been carried out all the same. */
  async call(call: Call, signal: AbortSignal): Promise<Answer> {
    try {
      return await this.#send(call, signal);
    } catch (cause) {
      const { address } = this;
      this.#at = (this.#at + 1) % this.#urls.length;
      throw new SluiceError("SLU-8001", `${this.name} at ${address}: ${reasonOf(cause)}`, { cause });
    }
  }

  /** Ends all connections; calls under way fail. */
  close(): void {
    this.#agents.http.destroy();
    this.#agents.https.destroy();
  }

  get #url(): URL {
    return this.#urls[this.#at]!;
  }

  #send({ method, path, body, headers }: Call, signal: AbortSignal): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const isTls = this.#url.protocol === "https:";
      const content = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
      const options: RequestOptions = {
        method,
        signal,
        agent: isTls ? this.#agents.https : this.#agents.http,
        headers: {
          ...headers,
          ...(content && { "content-type": "application/json", "content-length": content.length }),
        },
      };
      const sent = (isTls ? httpsRequest : httpRequest)(new URL(path, this.#url), options, (answer) => {
        const chunks: Buffer[] = [];
        let sizeBytes = 0;
        answer.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          sizeBytes += chunk.length;
          if (sizeBytes > ANSWER_BYTES_MAX) answer.destroy(new Error("an answer without end"));
        });
        answer.on("end", () => resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(chunks).toString() }));
        answer.on("error", reject);
        answer.on("close", () => reject(new Error("the answer broke off")));
      });
      sent.on("error", reject);
      sent.end(content);
    });
  }
}

function reasonOf(error: unknown): string {
  const reason = error instanceof Error && error.name === "AbortError" ? (error.cause ?? error) : error;
  return reason instanceof Error ? reason.message : String(reason);
}

function readPem(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (cause) {
    throw new SluiceError("SLU-8006", `${file}: ${(cause as Error).message}`, { cause });
  }
}

/** A text as a service's JSON has its keys and values. */
export function base64(text: string): string {
  return Buffer.from(text).toString("base64");
}

export function fromBase64(text: string): string {
  return Buffer.from(text, "base64").toString();
}

/** What the answer says in JSON. Throws SLU-8001 when it's none: some other program answers there. */
export function json(service: HttpService, { body }: Answer): unknown {
  try {
    return JSON.parse(body);
  } catch (cause) {
    const message = `${service.name} at ${service.address}: an answer that is not ${service.name}'s`;
    throw new SluiceError("SLU-8001", message, { cause });
  }
}

/** The error for an answer that says no: SLU-8003 for 401 and 403, SLU-8001 for any other. */
export function refusal(service: HttpService, what: string, { status, body }: Answer): SluiceError {
  const code = status === 401 || status === 403 ? "SLU-8003" : "SLU-8001";
  return new SluiceError(
    code,
    `${service.name} at ${service.address}: ${what}: ${status} ${body.trim().slice(0, 200)}`,
  );
}

import { createHash } from "node:crypto";
import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { Readable } from "node:stream";
import aws4 from "aws4";
import type { S3Config, S3Credentials } from "./s3-config.ts";

export interface S3Request {
  readonly method: "GET" | "PUT" | "POST" | "DELETE" | "HEAD";
  /** Key in the bucket; "" for the bucket itself. */
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | SizedStream;
  readonly signal?: AbortSignal | undefined;
}

/** A body that is not in memory; `open` gives it from its start, and may be called again. */
export interface SizedStream {
  readonly sizeBytes: number;
  readonly sha256: string | undefined;
  open(): Readable;
}

/** Without a byte in either direction for this long, a request counts as lost. */
const SILENCE_MS = 30_000;
const SOCKETS_MAX = 64;
const EMPTY_SHA256 = createHash("sha256").update("").digest("hex");

/**
 * Signed requests to one bucket (AWS Signature Version 4), each sent once: who calls decides what a failure means.
 * Connections are kept and reused; a proxy is taken from HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
 */
export class S3Http {
  readonly #config: S3Config;
  readonly #agent: HttpAgent;
  #credentials: (() => Promise<S3Credentials>) | undefined;
  #region: string;

  constructor(config: S3Config) {
    this.#config = config;
    this.#region = config.region ?? "us-east-1";
    const options = { keepAlive: true, maxSockets: SOCKETS_MAX, proxyEnv: process.env };
    this.#agent = this.#isPlain
      ? new HttpAgent(options)
      : new HttpsAgent({ ...options, rejectUnauthorized: !config.skipVerify });
  }

  /** Resolves with the answer's head; its body must be read or destroyed. Rejects when there is no answer. */
  async send(request: S3Request): Promise<IncomingMessage> {
    const answer = await this.#sendTo(this.#region, request);
    // AWS says where the bucket really is; the request was not executed.
    const region = answer.headers["x-amz-bucket-region"];
    const elsewhere = typeof region === "string" && region !== this.#region;
    if (!elsewhere || (answer.statusCode !== 301 && answer.statusCode !== 400)) return answer;
    answer.destroy();
    this.#region = region;
    return this.#sendTo(region, request);
  }

  close(): void {
    this.#agent.destroy();
  }

  get #isPlain(): boolean {
    return this.#config.endpoint?.protocol === "http:";
  }

  async #sendTo(region: string, { method, key, query, headers, body, signal }: S3Request): Promise<IncomingMessage> {
    const { host, path, port } = this.#address(region, key, query ?? {});
    const size = body === undefined ? 0 : body instanceof Uint8Array ? body.length : body.sizeBytes;
    const signed = aws4.sign(
      {
        service: "s3",
        region,
        method,
        host,
        path,
        headers: {
          ...headers,
          "content-length": String(size),
          "x-amz-content-sha256": this.#payloadHash(body),
        },
      },
      await this.#login(),
    );
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const send = this.#isPlain ? httpRequest : httpsRequest;
    const outgoing = send(
      {
        agent: this.#agent,
        method,
        path,
        host: host.replace(/:\d+$/, ""),
        port,
        headers: signed.headers as Record<string, string>,
        ...(signal !== undefined && { signal }),
      },
      resolve,
    );
    outgoing.on("error", reject);
    outgoing.setTimeout(SILENCE_MS, () => outgoing.destroy(new Error(`no answer for ${SILENCE_MS / 1000} s`)));
    if (body === undefined || body instanceof Uint8Array) outgoing.end(body);
    else
      body
        .open()
        .on("error", (error) => outgoing.destroy(error))
        .pipe(outgoing);
    return promise;
  }

  #payloadHash(body: S3Request["body"]): string {
    if (body === undefined) return EMPTY_SHA256;
    if (!this.#config.signPayload) return "UNSIGNED-PAYLOAD";
    if (body instanceof Uint8Array) return createHash("sha256").update(body).digest("hex");
    return body.sha256 ?? "UNSIGNED-PAYLOAD";
  }

  #address(region: string, key: string, query: Readonly<Record<string, string>>): Address {
    const { bucket, endpoint, pathStyle } = this.#config;
    const base = endpoint ?? new URL(`https://s3.${region}.amazonaws.com`);
    const root = base.pathname.replace(/\/+$/, "");
    const place = pathStyle ? `${root}/${bucket}/${encodeKey(key)}` : `${root}/${encodeKey(key)}`;
    const search = Object.entries(query)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, value]) => `${encode(name)}=${encode(value)}`)
      .join("&");
    return {
      host: pathStyle ? base.host : `${bucket}.${base.host}`,
      port: base.port === "" ? (this.#isPlain ? 80 : 443) : Number(base.port),
      path: search === "" ? place : `${place}?${search}`,
    };
  }

  /** From the configuration, or else AWS's usual chain: environment, profile, container, instance. */
  async #login(): Promise<S3Credentials> {
    const { credentials } = this.#config;
    if (credentials !== undefined) return credentials;
    if (this.#credentials === undefined) {
      const { defaultProvider } = await import("@aws-sdk/credential-provider-node");
      this.#credentials ??= defaultProvider();
    }
    return this.#credentials();
  }
}

interface Address {
  /** With a port where it isn't the scheme's own. */
  readonly host: string;
  readonly port: number;
  readonly path: string;
}

/** RFC 3986, as the signature wants it. */
function encode(text: string): string {
  return encodeURIComponent(text).replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

function encodeKey(key: string): string {
  return key.split("/").map(encode).join("/");
}

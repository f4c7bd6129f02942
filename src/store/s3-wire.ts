import { closeSync, createReadStream, openSync, readSync } from "node:fs";
import http, { type IncomingMessage } from "node:http";
import https from "node:https";
import aws4 from "aws4";
import { isSluiceError, SluiceError, systemErrorCode } from "../errors/error.ts";
import { bodySha256, type Credentials, credentialsFrom, EMPTY_SHA256, UNSIGNED, type WireBody } from "./s3-sign.ts";
import type { S3Settings } from "./s3-settings.ts";
import { parseFault, text, type S3Fault } from "./s3-xml.ts";

export interface WireRequest {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** The whole key, with the store's prefix; "" for the bucket itself. */
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: WireBody | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Statuses that the caller wants to judge itself. 2xx always are. */
  readonly expect?: readonly number[];
}

/** Without a byte in either direction for this long, a request has failed. */
const SILENCE_MS = 30_000;
/** An unused connection is given up before servers and middle boxes usually do. */
const UNUSED_MS = 5_000;
const CONNECTIONS_MAX = 64;
const SEND_CHUNK_BYTES = 256 * 1024;
/** Files up to this are read at once. */
const AT_HAND_BYTES_MAX = 1024 * 1024;
const REPLY_BYTES_MAX = 16 * 1024 * 1024;
const REGION_HOST = "s3.amazonaws.com";

/**
 * Sends single signed requests to one bucket, each exactly once; who may repeat one does so (s3-retry.ts). Throws
 * SLU-3101 where the server can't be reached or can't serve now (the request may have been carried out all the same),
 * SLU-3102 to SLU-3104 and SLU-3404 for what it refuses. Costs nothing while it's not used: connections close after 5 s.
 */
export class S3Wire {
  readonly settings: S3Settings;
  readonly #url: string;
  readonly #silenceMs: number;
  readonly #credentials: Credentials;
  readonly #agents: { readonly http: http.Agent; readonly https: https.Agent };
  /** How far this machine's clock is behind the server's; only a server that complains about it changes this. */
  #clockOffsetMs = 0;
  #target: Promise<Target> | undefined;

  constructor(settings: S3Settings, url: string, env: NodeJS.ProcessEnv, silenceMs = SILENCE_MS) {
    this.settings = settings;
    this.#url = url;
    this.#silenceMs = silenceMs;
    assertProxies(env);
    this.#credentials = credentialsFrom(settings.credentials);
    const options = {
      keepAlive: true,
      maxSockets: CONNECTIONS_MAX,
      timeout: UNUSED_MS,
      proxyEnv: env,
    };
    this.#agents = {
      http: new http.Agent(options),
      https: new https.Agent({ ...options, rejectUnauthorized: settings.isCertificateChecked }),
    };
  }

  close(): void {
    this.#agents.http.destroy();
    this.#agents.https.destroy();
  }

  /** Sends and returns the reply with its body unread; it must be read or destroyed. */
  async send(request: WireRequest): Promise<IncomingMessage> {
    const { signal, expect = [] } = request;
    signal?.throwIfAborted();
    try {
      const target = await this.#resolve();
      const whole = { ...request, body: atHand(request.body) };
      const reply = await this.#exchange(await this.#sign(whole, target), whole);
      const status = reply.statusCode ?? 0;
      if ((status >= 200 && status < 300) || expect.includes(status)) return reply;
      throw this.#refusal(request, reply, await readText(reply));
    } catch (error) {
      signal?.throwIfAborted();
      throw this.error(error, request.key);
    }
  }

  /** Sends, and reads the reply's body as text. An error in a 200, as S3 may send one, is thrown like any other. */
  async sendForText(request: WireRequest): Promise<{ readonly reply: IncomingMessage; readonly xml: string }> {
    const reply = await this.send(request);
    try {
      const xml = await readText(reply);
      const fault = reply.statusCode === 200 && !xml.includes("<DeleteResult") ? parseFault(xml) : undefined;
      if (fault !== undefined && !(request.expect?.includes(statusOf(fault)) === true))
        throw this.#refusal(request, reply, xml);
      return { reply, xml };
    } catch (error) {
      request.signal?.throwIfAborted();
      throw this.error(error, request.key);
    }
  }

  async #sign(request: WireRequest, { url, region }: Target): Promise<http.RequestOptions> {
    const { method, key, query = {}, headers = {}, body } = request;
    const base = url.pathname.replace(/\/$/, "");
    const bucket = this.settings.isPathStyle ? `/${escape(this.settings.bucket)}` : "";
    const signed = aws4.sign(
      {
        service: "s3",
        region,
        method,
        path: `${base}${bucket}/${key.split("/").map(escape).join("/")}${queryString(query)}`,
        headers: {
          host: url.host,
          ...this.settings.extraHeaders,
          ...headers,
          "x-amz-content-sha256": await this.#payloadHash(body),
          "x-amz-date": new Date(Date.now() + this.#clockOffsetMs).toISOString().replace(/[:-]|\.\d{3}/g, ""),
          ...((body !== undefined || method === "PUT" || method === "POST") && {
            "content-length": String(body === undefined ? 0 : sizeOf(body)),
          }),
        },
      },
      await this.#credentials(),
    );
    return {
      method,
      protocol: url.protocol,
      hostname: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port,
      path: signed.path!,
      headers: signed.headers!,
    };
  }

  async #payloadHash(body: WireBody | undefined): Promise<string> {
    if (body === undefined) return EMPTY_SHA256;
    return this.settings.isPayloadSigned ? bodySha256(body) : UNSIGNED;
  }

  /** One request and the head of its reply. A reply that comes before the body is sent counts, too. */
  #exchange(options: http.RequestOptions, { body, signal }: WireRequest): Promise<IncomingMessage> {
    const isTls = options.protocol === "https:";
    return new Promise((resolve, reject) => {
      const request = (isTls ? https : http).request({
        ...options,
        agent: isTls ? this.#agents.https : this.#agents.http,
        timeout: this.#silenceMs,
        ...(signal && { signal }),
      });
      let reply: IncomingMessage | undefined;
      request.once("response", (message) => {
        reply = message;
        // Handed on with errors to come: a reader finds them in its iteration.
        message.on("error", () => undefined);
        resolve(message);
      });
      request.on("timeout", () => {
        // A reader that takes its time is no silence of the server.
        if (reply !== undefined && reply.readableLength > 0) request.socket?.setTimeout(this.#silenceMs);
        else request.destroy(new Error(`nothing came for ${this.#silenceMs / 1000} s`));
      });
      request.on("error", reject);
      write(request, body);
    });
  }

  async #resolve(): Promise<Target> {
    this.#target ??= this.#findTarget().catch((error: unknown) => {
      this.#target = undefined;
      throw error;
    });
    return this.#target;
  }

  async #findTarget(): Promise<Target> {
    const { endpoint, bucket, isPathStyle } = this.settings;
    const region = this.settings.region ?? (await this.#lookUpRegion());
    const domain = region.startsWith("cn-") ? "amazonaws.com.cn" : "amazonaws.com";
    const url = new URL(endpoint ?? `https://s3.${region}.${domain}`);
    if (!isPathStyle) url.host = `${bucket}.${url.host}`;
    return { url, region };
  }

  /** Amazon names a bucket's region to anybody who asks. */
  async #lookUpRegion(): Promise<string> {
    const path = `/${escape(this.settings.bucket)}`;
    const options = { method: "HEAD", protocol: "https:", hostname: REGION_HOST, path };
    const reply = await this.#exchange(options, { method: "HEAD", key: "" });
    reply.resume();
    const region = reply.headers["x-amz-bucket-region"];
    if (typeof region === "string") return region;
    throw new SluiceError("SLU-3105", `${this.#url}: Amazon doesn't know the bucket "${this.settings.bucket}"`);
  }

  #refusal(request: WireRequest, reply: IncomingMessage, xml: string): SluiceError {
    const fault = parseFault(xml) ?? { code: "", message: "" };
    const status = reply.statusCode === 200 ? statusOf(fault) : (reply.statusCode ?? 0);
    if (fault.code === "RequestTimeTooSkewed") this.#setClock(reply, xml);
    const words = fault.code === "" ? "" : `: ${fault.code}${fault.message && `, ${fault.message}`}`;
    const message = `${this.place(request.key)}: ${request.method} was answered with ${status}${words}`;
    return new SluiceError(codeOf(status, fault.code), message, { cause: retryAfter(reply) });
  }

  #setClock(reply: IncomingMessage, xml: string): void {
    const theirs = Date.parse(text(xml, "ServerTime") ?? reply.headers.date ?? "");
    if (!Number.isNaN(theirs)) this.#clockOffsetMs = theirs - Date.now();
  }

  /** Any error of a request to `key` as one of the catalogue. */
  error(error: unknown, key: string): SluiceError {
    if (isSluiceError(error)) return error;
    const { name, message } = error as Error;
    if (name === "CredentialsProviderError" || name === "TokenProviderError")
      return new SluiceError("SLU-3102", `${this.#url}: no credentials: ${message}`, { cause: error });
    const code = systemErrorCode(error);
    if (code === "ENOENT" || code === "EACCES" || code === "EIO")
      return new SluiceError("SLU-3104", `${this.place(key)}: what was to be sent can't be read: ${message}`, {
        cause: error,
      });
    if (code?.startsWith("ERR_TLS") === true || /CERT|SELF_SIGNED|UNABLE_TO_VERIFY/.test(code ?? ""))
      return new SluiceError("SLU-3104", `${this.place(key)}: the server's certificate isn't trusted: ${message}`, {
        cause: error,
      });
    return new SluiceError("SLU-3101", `${this.place(key)}: ${message || code || name}`, { cause: error });
  }

  /** An object as messages name it. */
  place(key: string): string {
    const { bucket } = this.settings;
    return key === "" ? this.#url : `s3://${bucket}/${key}`;
  }
}

/** Node.js reads the proxies of the environment for agents since 22.21 and 24.5; to go past a proxy is no way out. */
function assertProxies(env: NodeJS.ProcessEnv): void {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const knows = major > 24 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21);
  const names = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"].filter((each) => env[each]);
  // Node.js says the whole of it, password included.
  const wrong = names.find((each) => !URL.canParse(env[each]!));
  if (wrong !== undefined)
    throw new SluiceError("SLU-3003", `${wrong} is not a URL`, {
      hint: "Characters such as / and @ in a user or password are written %2F and %40.",
    });
  const [name] = names;
  if (knows || name === undefined) return;
  throw new SluiceError("SLU-3003", `${name} is set, and Node.js ${process.versions.node} knows no proxies`, {
    hint: "Use Node.js 22.21, 24.5 or newer, or unset the variable.",
  });
}

interface Target {
  readonly url: URL;
  readonly region: string;
}

/** How long the server asked to be left alone, ms; the cause of its refusal carries it to the next try. */
export class RetryAfter extends Error {
  readonly ms: number;
  constructor(ms: number) {
    super(`asked to wait ${ms} ms`);
    this.ms = ms;
  }
}

function retryAfter(reply: IncomingMessage): RetryAfter | undefined {
  const seconds = Number(reply.headers["retry-after"]);
  return seconds > 0 ? new RetryAfter(seconds * 1000) : undefined;
}

function write(request: http.ClientRequest, body: WireBody | undefined): void {
  if (body === undefined || sizeOf(body) === 0) {
    request.end();
  } else if (body instanceof Uint8Array) {
    request.end(body);
  } else {
    const file = createReadStream(body.path, { highWaterMark: SEND_CHUNK_BYTES, end: body.sizeBytes - 1 });
    let sent = 0;
    file.on("data", (chunk) => (sent += chunk.length));
    file.on("error", (error) => request.destroy(error));
    file.on("end", () => {
      if (sent === body.sizeBytes) request.end();
      else request.destroy(shorter(body, sent));
    });
    request.once("close", () => file.destroy());
    file.pipe(request, { end: false });
  }
}

/**
 * A small file's bytes, read in one go. Most are batches that were written just now and are in the page cache; each turn
 * of the event loop that a stream would take for opening, reading and closing, twice, is time in which commits wait.
 */
function atHand(body: WireBody | undefined): WireBody | undefined {
  if (body === undefined || body instanceof Uint8Array || body.sizeBytes > AT_HAND_BYTES_MAX) return body;
  const bytes = Buffer.allocUnsafe(body.sizeBytes);
  const file = openSync(body.path, "r");
  try {
    let read = 0;
    for (let got = 1; got > 0 && read < bytes.length; read += got)
      got = readSync(file, bytes, read, bytes.length - read, read);
    if (read < bytes.length) throw shorter(body, read);
    return bytes;
  } finally {
    closeSync(file);
  }
}

function shorter({ path, sizeBytes }: Exclude<WireBody, Uint8Array>, bytes: number): Error {
  return new Error(`${path} has ${bytes} bytes instead of ${sizeBytes}`);
}

function sizeOf(body: WireBody): number {
  return body instanceof Uint8Array ? body.length : body.sizeBytes;
}

async function readText(reply: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of reply as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > REPLY_BYTES_MAX) throw new SluiceError("SLU-3104", `a reply has more than ${REPLY_BYTES_MAX} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** The status that S3 gives an error which it had to send within a 200. */
function statusOf({ code }: S3Fault): number {
  switch (code) {
    case "PreconditionFailed":
      return 412;
    case "ConditionalRequestConflict":
    case "OperationAborted":
      return 409;
    case "NoSuchKey":
    case "NoSuchUpload":
      return 404;
    case "SlowDown":
      return 503;
    case "AccessDenied":
      return 403;
    default:
      return 500;
  }
}

const FULL = new Set(["QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "InsufficientStorage"]);
/** Refusals of a request that would have been right, had it come through as it was sent, or at another time. */
const PASSING = new Set([
  "RequestTimeout",
  "RequestTimeTooSkewed",
  "IncompleteBody",
  "BadDigest",
  "ClientDisconnected",
]);

/** SLU-3101 is what may be tried again. */
function codeOf(
  status: number,
  code: string,
): "SLU-3101" | "SLU-3102" | "SLU-3103" | "SLU-3104" | "SLU-3105" | "SLU-3404" {
  if (FULL.has(code) || status === 507) return "SLU-3103";
  if (PASSING.has(code)) return "SLU-3101";
  if (code === "NoSuchBucket") return "SLU-3105";
  if (status === 501) return "SLU-3104";
  if (status >= 500 || status === 408 || status === 409 || status === 429) return "SLU-3101";
  if (status === 401 || status === 403) return "SLU-3102";
  return status === 404 ? "SLU-3404" : "SLU-3104";
}

function queryString(query: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(query).map(([name, value]) => `${escape(name)}=${escape(value)}`);
  return pairs.length === 0 ? "" : `?${pairs.join("&")}`;
}

/** RFC 3986's unreserved characters stay; the signature is computed over the same. */
function escape(part: string): string {
  return encodeURIComponent(part).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

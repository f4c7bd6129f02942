import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { IncomingMessage } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { buffer } from "node:stream/consumers";
import { XMLParser } from "fast-xml-parser";
import type { StoreSettings } from "../config/config.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { redact } from "./open.ts";
import { type S3Config, s3Config } from "./s3-config.ts";
import { S3Http, type S3Request, type SizedStream } from "./s3-http.ts";
import { putParts } from "./s3-multipart.ts";
import type {
  Body,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  PutOutcome,
  StoredObject,
} from "./store.ts";

const TRIES_MAX = 6;
const BACKOFF_MS = 100;
const BACKOFF_MAX_MS = 5_000;
/** Keys that one DeleteObjects takes. */
const DELETE_MAX = 1000;
/** Files above this go up in parts; S3 takes 5 GiB in one request. */
const SINGLE_PUT_MAX_BYTES = 256 * 1024 * 1024;

/** Answers that say nothing about whether the request was, or will be, executed. */
const UNDECIDED = new Set([408, 409, 429, 500, 502, 503, 504]);

const xml = new XMLParser({ ignoreAttributes: true, parseTagValue: false, isArray: (name) => name === "Contents" });

export async function openS3(url: URL, settings: StoreSettings): Promise<ObjectStore> {
  return new S3Store(s3Config(url, settings), redact(url.href));
}

/**
 * A bucket, or a folder of one, on anything that speaks S3. Requests are signed by `aws4` and sent by Node.js, so that
 * nobody below this file repeats a conditional write: the log decides what a lost answer means. Reads, listings,
 * deletes and unconditional writes are repeated here, at most six times over some ten seconds.
 */
export class S3Store implements ObjectStore {
  readonly url: string;
  readonly layout = "level-prefix";
  readonly #config: S3Config;
  readonly #http: S3Http;
  readonly #root: string;

  constructor(config: S3Config, url: string) {
    this.#config = config;
    this.url = url;
    this.#http = new S3Http(config);
    this.#root = config.path === "" ? "" : `${config.path}/`;
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncIterable<ObjectInfo> {
    let token: string | undefined;
    do {
      const query: Record<string, string> = { "list-type": "2", prefix: this.#root + prefix };
      if (token !== undefined) query["continuation-token"] = token;
      else if (options.startAfter !== undefined) query["start-after"] = this.#root + options.startAfter;
      const page = await this.#retried(`list ${prefix}`, options.signal, async () => {
        const answer = await this.#http.send({ method: "GET", key: "", query, signal: options.signal });
        const body = await buffer(answer);
        if (answer.statusCode !== 200) throw this.#failure(answer, body, prefix);
        return parseList(body.toString());
      });
      for (const { key, ...info } of page.objects) yield { key: key.slice(this.#root.length), ...info };
      token = page.next;
    } while (token !== undefined);
  }

  async get(key: string, options: GetOptions = {}): Promise<StoredObject> {
    const { range, signal } = options;
    const start = range === undefined ? 0 : range.offset;
    if (range?.length === 0) return this.#emptyRange(key, options);
    const answer = await this.#open(key, rangeHeader(range), undefined, signal);
    const info = infoOf(key, answer);
    const length = Number(answer.headers["content-length"] ?? 0);
    const first = start < 0 ? info.sizeBytes - length : start;
    return { ...info, body: this.#body(answer, { key, etag: info.etag, first, length, signal }) };
  }

  async put(key: string, body: Body, options: PutOptions = {}): Promise<PutOutcome> {
    const isStream = !(body instanceof Uint8Array) && !("path" in body);
    const inParts = isStream || (!(body instanceof Uint8Array) && body.sizeBytes > SINGLE_PUT_MAX_BYTES);
    if (inParts) return this.#putParts(key, body, options);
    const sized = body instanceof Uint8Array ? body : await fromFile(body, this.#config.signPayload);
    const request: S3Request = {
      method: "PUT",
      key: this.#root + key,
      headers: { ...this.#writeHeaders(options), ...conditionHeaders(options.condition) },
      body: sized,
      signal: options.signal,
    };
    if (options.condition === undefined) return this.#putUntilWritten(key, request);
    return this.#conditional(key, () => this.#http.send(request));
  }

  async delete(keys: readonly string[], options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    for (let from = 0; from < keys.length; from += DELETE_MAX) {
      const some = keys.slice(from, from + DELETE_MAX);
      await this.#retried("delete", options.signal, async () => this.#deleteSome(some, options.signal));
    }
  }

  async close(): Promise<void> {
    this.#http.close();
  }

  async #deleteSome(keys: readonly string[], signal: AbortSignal | undefined): Promise<void> {
    const objects = keys.map((key) => `<Object><Key>${escapeXml(this.#root + key)}</Key></Object>`).join("");
    const body = Buffer.from(`<Delete><Quiet>true</Quiet>${objects}</Delete>`);
    const headers = { "content-md5": createHash("md5").update(body).digest("base64"), "content-type": "text/xml" };
    const answer = await this.#http.send({ method: "POST", key: "", query: { delete: "" }, headers, body, signal });
    const text = await buffer(answer);
    if (answer.statusCode !== 200) throw this.#failure(answer, text, keys[0] ?? "");
    const failed = (xml.parse(text.toString()) as Parsed)["DeleteResult"]?.["Error"];
    if (failed !== undefined) throw new SluiceError("SLU-3104", `${this.url}: delete: ${JSON.stringify(failed)}`);
  }

  async #putUntilWritten(key: string, request: S3Request): Promise<PutOutcome> {
    return this.#retried(`put ${key}`, request.signal, async () => {
      const answer = await this.#http.send(request);
      const body = await buffer(answer);
      if (answer.statusCode !== 200) throw this.#failure(answer, body, key);
      return { outcome: "written", etag: String(answer.headers.etag) };
    });
  }

  /** One try of a write with a condition: written, refused, or nobody knows. */
  async #conditional(key: string, send: () => Promise<IncomingMessage>): Promise<PutOutcome> {
    let answer: IncomingMessage;
    let body: Buffer;
    try {
      answer = await send();
      body = await buffer(answer);
    } catch (cause) {
      return { outcome: "undecided", cause: new SluiceError("SLU-3101", `${this.url}/${key}: ${String(cause)}`) };
    }
    const status = answer.statusCode ?? 0;
    // A completed multipart upload can answer 200 with an error in its body.
    const failed = body.includes("<Error>");
    if (status === 200 && !failed) return { outcome: "written", etag: answer.headers.etag ?? etagIn(body) };
    if (status === 412 || (status === 200 && body.includes("PreconditionFailed"))) return { outcome: "refused" };
    const cause = this.#failure(answer, body, key);
    if (UNDECIDED.has(status) || status === 200 || isTimeout(body)) return { outcome: "undecided", cause };
    throw cause;
  }

  async #putParts(key: string, body: Body, options: PutOptions): Promise<PutOutcome> {
    const { partBytes, concurrency } = this.#config;
    const name = this.#root + key;
    const start = async (): Promise<string> =>
      this.#retried(`start ${key}`, options.signal, async () => {
        const headers = this.#writeHeaders(options);
        const query = { uploads: "" };
        const answer = await this.#http.send({ method: "POST", key: name, query, headers, signal: options.signal });
        const text = await buffer(answer);
        if (answer.statusCode !== 200) throw this.#failure(answer, text, key);
        return String((xml.parse(text.toString()) as Parsed)["InitiateMultipartUploadResult"]?.["UploadId"]);
      });
    const part = async (upload: string, number: number, bytes: Uint8Array): Promise<string> =>
      this.#retried(`part ${number} of ${key}`, options.signal, async () => {
        const query = { partNumber: String(number), uploadId: upload };
        const headers = this.#customerKey();
        const request: S3Request = { method: "PUT", key: name, query, headers, body: bytes, signal: options.signal };
        const answer = await this.#http.send(request);
        const text = await buffer(answer);
        if (answer.statusCode !== 200) throw this.#failure(answer, text, key);
        return String(answer.headers.etag);
      });
    const complete = async (upload: string, etags: readonly string[]): Promise<PutOutcome> => {
      const parts = etags.map(
        (etag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escapeXml(etag)}</ETag></Part>`,
      );
      const request: S3Request = {
        method: "POST",
        key: name,
        query: { uploadId: upload },
        headers: { ...conditionHeaders(options.condition), "content-type": "text/xml" },
        body: Buffer.from(`<CompleteMultipartUpload>${parts.join("")}</CompleteMultipartUpload>`),
        signal: options.signal,
      };
      return this.#conditional(key, () => this.#http.send(request));
    };
    const abort = async (upload: string): Promise<void> => {
      const answer = await this.#http.send({ method: "DELETE", key: name, query: { uploadId: upload } });
      answer.resume();
    };
    return putParts(bytesOf(body), { partBytes, concurrency, start, part, complete, abort });
  }

  /** Asks for an object until there's an answer with a body; `etag`: only this version of it. */
  async #open(
    key: string,
    range: string | undefined,
    etag: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<IncomingMessage> {
    return this.#retried(`get ${key}`, signal, async () => {
      const headers = { ...this.#customerKey(), ...(range && { range }), ...(etag && { "if-match": etag }) };
      const answer = await this.#http.send({ method: "GET", key: this.#root + key, headers, signal });
      if (answer.statusCode === 200 || answer.statusCode === 206) return answer;
      throw this.#failure(answer, await buffer(answer), key);
    });
  }

  /** The bytes of an answer; where its connection breaks, the rest of the same object is asked for. */
  async *#body(first: IncomingMessage, what: Part): AsyncIterable<Uint8Array> {
    const { key, etag, signal } = what;
    let answer = first;
    let done = 0;
    for (let attempt = 1; ; attempt++) {
      try {
        for await (const chunk of answer as AsyncIterable<Buffer>) {
          done += chunk.length;
          yield chunk;
        }
        if (done >= what.length) return;
        throw new Error("the connection was closed early");
      } catch (error) {
        signal?.throwIfAborted();
        if (attempt === TRIES_MAX)
          throw new SluiceError("SLU-3101", `${this.url}/${key}: ${String(error)}`, { cause: error });
        await sleep(backoffMs(attempt), undefined, signal === undefined ? {} : { signal });
        const last = what.first + what.length - 1;
        answer = await this.#open(key, `bytes=${what.first + done}-${last}`, etag, signal);
      } finally {
        answer.destroy();
      }
    }
  }

  /** An empty range can't be asked for; what the object is, can. */
  async #emptyRange(key: string, { signal }: GetOptions): Promise<StoredObject> {
    const answer = await this.#open(key, undefined, undefined, signal);
    answer.destroy();
    return { ...infoOf(key, answer), body: none() };
  }

  async #retried<T>(what: string, signal: AbortSignal | undefined, run: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      signal?.throwIfAborted();
      try {
        return await run();
      } catch (error) {
        signal?.throwIfAborted();
        const passing = !isSluiceError(error) || error.code === "SLU-3101";
        if (!passing) throw error;
        if (attempt === TRIES_MAX) {
          if (isSluiceError(error)) throw error;
          throw new SluiceError("SLU-3101", `${this.url}: ${what}: ${String(error)}`, { cause: error });
        }
        await sleep(backoffMs(attempt), undefined, signal === undefined ? {} : { signal });
      }
    }
  }

  /** An answer that is none of the good ones, as an error of the catalogue; SLU-3101 where another try may help. */
  #failure(answer: IncomingMessage, body: Buffer, key: string): SluiceError {
    const status = answer.statusCode ?? 0;
    const parsed = body.includes("<Error>") ? (xml.parse(body.toString()) as Parsed)["Error"] : undefined;
    const words = parsed === undefined ? "" : ` ${String(parsed["Code"])}: ${String(parsed["Message"])}`;
    const message = `${this.url}/${key}: ${status}${words}`;
    if (UNDECIDED.has(status) || isTimeout(body)) return new SluiceError("SLU-3101", message);
    if (status === 404 && parsed?.["Code"] !== "NoSuchBucket")
      return new SluiceError("SLU-3404", `${this.url}/${key} doesn't exist`);
    if (status === 401 || status === 403) return new SluiceError("SLU-3102", message);
    if (status === 507) return new SluiceError("SLU-3103", message);
    // The object was replaced between two reads of it.
    if (status === 412) return new SluiceError("SLU-3404", `${this.url}/${key} was replaced meanwhile`);
    return new SluiceError("SLU-3104", message);
  }

  #writeHeaders({ timestampMs }: PutOptions): Record<string, string> {
    const { storageClass, sseKmsKeyId } = this.#config;
    return {
      ...this.#customerKey(),
      ...(timestampMs !== undefined && { "x-amz-meta-litestream-timestamp": rfc3339Nano(timestampMs) }),
      ...(storageClass !== undefined && { "x-amz-storage-class": storageClass }),
      ...(sseKmsKeyId !== undefined && {
        "x-amz-server-side-encryption": "aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id": sseKmsKeyId,
      }),
    };
  }

  /** SSE-C: every request that touches content carries the key. */
  #customerKey(): Record<string, string> {
    const { sseCustomerKey } = this.#config;
    if (sseCustomerKey === undefined) return {};
    const md5 = createHash("md5").update(Buffer.from(sseCustomerKey, "base64")).digest("base64");
    return {
      "x-amz-server-side-encryption-customer-algorithm": "AES256",
      "x-amz-server-side-encryption-customer-key": sseCustomerKey,
      "x-amz-server-side-encryption-customer-key-md5": md5,
    };
  }
}

type Parsed = Record<string, Record<string, unknown> | undefined>;
type FileBody = Extract<Body, { readonly path: string }>;

interface Part {
  readonly key: string;
  readonly etag: string;
  readonly first: number;
  readonly length: number;
  readonly signal: AbortSignal | undefined;
}

interface ListPage {
  readonly objects: readonly ObjectInfo[];
  readonly next: string | undefined;
}

function parseList(text: string): ListPage {
  const result = (xml.parse(text) as Parsed)["ListBucketResult"] ?? {};
  const contents = (result["Contents"] ?? []) as Record<string, string>[];
  const objects = contents.map((object) => ({
    key: object["Key"]!,
    sizeBytes: Number(object["Size"]),
    modifiedMs: Date.parse(object["LastModified"]!),
  }));
  const more = result["IsTruncated"] === "true";
  return { objects, next: more ? String(result["NextContinuationToken"]) : undefined };
}

function infoOf(key: string, answer: IncomingMessage): Omit<StoredObject, "body"> {
  const { headers } = answer;
  // "bytes 0-99/1234": the size of the whole object stands behind the slash.
  const total = headers["content-range"]?.split("/")[1] ?? headers["content-length"];
  return {
    key,
    sizeBytes: Number(total),
    modifiedMs: Date.parse(String(headers["last-modified"])),
    etag: String(headers.etag),
  };
}

function rangeHeader(range: GetOptions["range"]): string | undefined {
  if (range === undefined) return undefined;
  if (range.offset < 0) return `bytes=${range.offset}`;
  return `bytes=${range.offset}-${range.length === undefined ? "" : range.offset + range.length - 1}`;
}

function conditionHeaders(condition: PutOptions["condition"]): Record<string, string> {
  if (condition === undefined) return {};
  return condition === "absent" ? { "if-none-match": "*" } : { "if-match": condition.etag };
}

/** A file as a body whose hash is known, where the payload is to be signed. */
async function fromFile({ path, sizeBytes }: FileBody, sign: boolean): Promise<SizedStream> {
  let sha256: string | undefined;
  if (sign) {
    const hash = createHash("sha256");
    for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
    sha256 = hash.digest("hex");
  }
  return { sizeBytes, sha256, open: () => createReadStream(path) };
}

function bytesOf(body: Body): AsyncIterable<Uint8Array> {
  if (body instanceof Uint8Array) return one(body);
  return "path" in body ? createReadStream(body.path, { highWaterMark: 1024 * 1024 }) : body;
}

async function* one(bytes: Uint8Array): AsyncIterable<Uint8Array> {
  yield bytes;
}

async function* none(): AsyncIterable<Uint8Array> {
  // No bytes.
}

function etagIn(body: Buffer): string {
  return String((xml.parse(body.toString()) as Parsed)["CompleteMultipartUploadResult"]?.["ETag"]);
}

/** S3 answers 400 when a body came too slowly; the request was not executed, but another try may be. */
function isTimeout(body: Buffer): boolean {
  return body.includes("<Code>RequestTimeout</Code>");
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Doubling, each shortened by up to half at random, so that many clients don't come back together. */
function backoffMs(attempt: number): number {
  return Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (attempt - 1)) * (1 - Math.random() / 2);
}

/** Go's RFC3339Nano, in UTC: fractions without zeros at their end. */
function rfc3339Nano(ms: number): string {
  return new Date(ms).toISOString().replace(/\.?0*Z$/, "Z");
}

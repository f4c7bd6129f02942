import { createHash, randomBytes } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import type { StoreSettings } from "../config/config.ts";
import { readObject } from "./s3-read.ts";
import { repeat } from "./s3-retry.ts";
import { s3Settings } from "./s3-settings.ts";
import type { WireBody } from "./s3-sign.ts";
import { S3Wire } from "./s3-wire.ts";
import { putParts, putWhole } from "./s3-write.ts";
import { escapeXml, parseDeleteFaults, parseListPage } from "./s3-xml.ts";
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

/** Above this a file goes in parts where that may be: a lost connection then costs one part. */
const WHOLE_BYTES_MAX = 64 * 1024 * 1024;
/** S3 takes no more in one request. */
const REQUEST_BYTES_MAX = 5 * 1024 ** 3;
const DELETE_KEYS_MAX = 1_000;
const SPOOL_CHUNK_BYTES = 1024 * 1024;

/** A store in an S3 bucket, or a server that speaks like one. The URL's query and the environment may have settings. */
export function openS3(url: URL, given: StoreSettings, env: NodeJS.ProcessEnv = process.env): S3Store {
  const settings = s3Settings(url, given, env);
  const name = `s3://${settings.bucket}${settings.prefix === "" ? "" : `/${settings.prefix.slice(0, -1)}`}`;
  return new S3Store(new S3Wire(settings, name, env), name);
}

/**
 * Objects in a bucket, under the URL's path. Small ones go in one request with its length; larger ones in parts, but
 * with a condition only where this server has shown that it honours it on the completion of parts (asked once, when
 * it's first needed); elsewhere they go in one request, through a file when their length isn't known.
 * Source: Amazon S3 API reference; "conditional writes" in its user guide for 412, 409 and 404.
 */
export class S3Store implements ObjectStore {
  readonly url: string;
  readonly layout = "level-prefix";
  readonly #wire: S3Wire;
  #honoursParts: Promise<boolean> | undefined;

  constructor(wire: S3Wire, url: string) {
    this.#wire = wire;
    this.url = url;
  }

  async *list(prefix: string, { startAfter, signal }: ListOptions = {}): AsyncIterable<ObjectInfo> {
    const root = this.#wire.settings.prefix;
    const common = { "list-type": "2", prefix: root + prefix, "encoding-type": "url" };
    for (let next: string | undefined, isFirst = true; isFirst || next !== undefined; isFirst = false) {
      const query = {
        ...common,
        ...(startAfter !== undefined && { "start-after": root + startAfter }),
        ...(next !== undefined && { "continuation-token": next }),
      };
      const page = await repeat(signal, async () =>
        parseListPage((await this.#wire.sendForText({ method: "GET", key: "", query, signal })).xml),
      );
      for (const object of page.objects) yield { ...object, key: object.key.slice(root.length) };
      next = page.next;
    }
  }

  async get(key: string, options: GetOptions = {}): Promise<StoredObject> {
    return readObject(this.#wire, this.#key(key), key, options);
  }

  async put(key: string, body: Body, options: PutOptions = {}): Promise<PutOutcome> {
    const whole = this.#key(key);
    if (body instanceof Uint8Array) return putWhole(this.#wire, whole, body, options);
    if (!("path" in body)) return this.#putStream(whole, body, options);
    if (body.sizeBytes <= WHOLE_BYTES_MAX || !(await this.#mayUseParts(options)))
      return this.#putWhole(whole, body, options);
    const chunks = createReadStream(body.path, { highWaterMark: SPOOL_CHUNK_BYTES });
    return putParts(this.#wire, whole, exactly(chunks, body), options);
  }

  async delete(keys: readonly string[], { signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    if (keys.length === 1) return this.#deleteOne(keys[0]!, signal);
    for (let i = 0; i < keys.length; i += DELETE_KEYS_MAX)
      await this.#deleteMany(keys.slice(i, i + DELETE_KEYS_MAX), signal);
  }

  /**
   * Whether `If-None-Match: *` holds when parts are put together: tried out once, with an object of its own. Throws
   * where the server can't be asked.
   */
  honoursConditionOnParts(signal?: AbortSignal): Promise<boolean> {
    this.#honoursParts ??= this.#tryParts(signal).catch((error: unknown) => {
      this.#honoursParts = undefined;
      throw error;
    });
    return this.#honoursParts;
  }

  async close(): Promise<void> {
    this.#wire.close();
  }

  #key(key: string): string {
    if (key === "" || key.startsWith("/") || key.endsWith("/"))
      throw new SluiceError("SLU-3104", `${this.url}: "${key}" can't be a key here`);
    return this.#wire.settings.prefix + key;
  }

  async #putStream(key: string, chunks: AsyncIterable<Uint8Array>, options: PutOptions): Promise<PutOutcome> {
    const iterator = chunks[Symbol.asyncIterator]();
    try {
      const { head, isEnd } = await take(iterator, this.#wire.settings.partSizeBytes);
      if (isEnd) return await putWhole(this.#wire, key, Buffer.concat(head), options);
      const all = chain(head, iterator);
      if (await this.#mayUseParts(options)) return await putParts(this.#wire, key, all, options);
      return await spooled(all, (body) => this.#putWhole(key, body, options));
    } finally {
      await iterator.return?.();
    }
  }

  async #putWhole(
    key: string,
    body: WireBody & { readonly sizeBytes: number },
    options: PutOptions,
  ): Promise<PutOutcome> {
    if (body.sizeBytes <= REQUEST_BYTES_MAX) return putWhole(this.#wire, key, body, options);
    const message = `${this.#wire.place(key)}: ${body.sizeBytes} bytes are more than one request may have`;
    throw new SluiceError("SLU-3104", message, {
      hint: "This server doesn't honour conditions on uploads in parts, so objects of a log can't be above 5 GiB there.",
    });
  }

  async #mayUseParts({ condition, signal }: PutOptions): Promise<boolean> {
    return condition === undefined || this.honoursConditionOnParts(signal);
  }

  async #tryParts(signal: AbortSignal | undefined): Promise<boolean> {
    const key = `${this.#wire.settings.prefix}.sluice-parts-${randomBytes(8).toString("hex")}`;
    const put = (byte: number) =>
      putParts(this.#wire, key, chain([Buffer.of(byte)]), { condition: "absent", ...(signal && { signal }) });
    try {
      const outcomes = [(await put(1)).outcome, (await put(2)).outcome];
      if (outcomes.includes("undecided"))
        throw new SluiceError("SLU-3101", `${this.url}: no answer to whether conditions hold for uploads in parts`);
      return outcomes[0] === "written" && outcomes[1] === "refused";
    } catch (error) {
      // A server that knows no uploads in parts, or no condition on them, says so in many ways.
      if (isSluiceError(error, "SLU-3104")) return false;
      throw error;
    } finally {
      await this.#delete(key, signal).catch(() => undefined);
    }
  }

  async #deleteOne(key: string, signal: AbortSignal | undefined): Promise<void> {
    await this.#delete(this.#key(key), signal);
  }

  async #delete(key: string, signal: AbortSignal | undefined): Promise<void> {
    const request = { method: "DELETE", key, signal, expect: [404] } as const;
    const { reply, xml } = await repeat(signal, () => this.#wire.sendForText(request));
    if (reply.statusCode === 404 && xml.includes("NoSuchBucket"))
      throw new SluiceError("SLU-3105", `${this.url}: the bucket doesn't exist`);
  }

  async #deleteMany(keys: readonly string[], signal: AbortSignal | undefined): Promise<void> {
    const objects = keys.map((key) => `<Object><Key>${escapeXml(this.#key(key))}</Key></Object>`).join("");
    const body = Buffer.from(
      `<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>${objects}</Delete>`,
    );
    const headers = {
      "content-type": "application/xml",
      ...(this.#wire.settings.isContentMd5Sent && { "content-md5": createHash("md5").update(body).digest("base64") }),
    };
    const request = { method: "POST", key: "", query: { delete: "" }, headers, body, signal } as const;
    await repeat(signal, async () => {
      const { reply, xml } = await this.#wire.sendForText({ ...request, expect: [501] });
      // Some servers delete only one object at a time.
      if (reply.statusCode === 501) for (const key of keys) await this.#deleteOne(key, signal);
      const fault = parseDeleteFaults(xml).find(({ code }) => code !== "NoSuchKey" && code !== "NotImplemented");
      if (fault === undefined) return;
      const code = fault.code === "AccessDenied" ? "SLU-3102" : "SLU-3101";
      throw new SluiceError(code, `${this.url}: not all objects were deleted: ${fault.code}, ${fault.message}`);
    });
  }
}

/** The first chunks of a stream, up to `sizeBytes` or its end. */
async function take(
  iterator: AsyncIterator<Uint8Array>,
  sizeBytes: number,
): Promise<{ readonly head: readonly Uint8Array[]; readonly isEnd: boolean }> {
  const head: Uint8Array[] = [];
  for (let size = 0; size <= sizeBytes;) {
    const { value, done } = await iterator.next();
    if (done === true) return { head, isEnd: true };
    // The giver may use its buffer again.
    head.push(Buffer.from(value));
    size += value.length;
  }
  return { head, isEnd: false };
}

async function* chain(head: readonly Uint8Array[], rest?: AsyncIterator<Uint8Array>): AsyncIterable<Uint8Array> {
  yield* head;
  if (rest !== undefined) yield* { [Symbol.asyncIterator]: () => ({ next: () => rest.next() }) };
}

async function* exactly(
  chunks: AsyncIterable<Uint8Array>,
  { path, sizeBytes }: { readonly path: string; readonly sizeBytes: number },
): AsyncIterable<Uint8Array> {
  let size = 0;
  for await (const chunk of chunks) {
    size += chunk.length;
    yield chunk;
  }
  if (size !== sizeBytes) throw new SluiceError("SLU-3104", `${path} has ${size} bytes instead of ${sizeBytes}`);
}

/** Through a temporary file, for a request that must begin with its length. */
async function spooled(
  chunks: AsyncIterable<Uint8Array>,
  send: (body: { readonly path: string; readonly sizeBytes: number }) => Promise<PutOutcome>,
): Promise<PutOutcome> {
  const dir = await mkdtemp(path.join(os.tmpdir(), "sluice-upload-"));
  try {
    const file = await open(path.join(dir, "body"), "wx", 0o600);
    let sizeBytes = 0;
    try {
      for await (const chunk of chunks) {
        await file.writeFile(chunk);
        sizeBytes += chunk.length;
      }
    } finally {
      await file.close();
    }
    return await send({ path: path.join(dir, "body"), sizeBytes });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

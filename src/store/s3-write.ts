import { isSluiceError, SluiceError } from "../errors/error.ts";
import { repeat } from "./s3-retry.ts";
import type { WireBody } from "./s3-sign.ts";
import type { S3Wire } from "./s3-wire.ts";
import { escapeXml, text } from "./s3-xml.ts";
import type { PutOptions, PutOutcome } from "./store.ts";

/** A part may have another size than the one before it; S3 wants at most 10,000, so later ones grow. */
const PARTS_MAX = 10_000;
const PARTS_OF_ONE_SIZE = 1_000;

/** One request. Repeated only where there's no condition. */
export async function putWhole(wire: S3Wire, key: string, body: WireBody, options: PutOptions): Promise<PutOutcome> {
  const { condition, signal } = options;
  const { createHeaders, keyHeaders } = wire.settings;
  const headers = { ...createHeaders, ...keyHeaders, ...timestamp(options), ...conditionHeaders(condition) };
  const send = async (): Promise<PutOutcome> => {
    const { reply } = await wire.sendForText({
      method: "PUT",
      key,
      headers,
      body,
      signal,
      expect: refusals(condition),
    });
    const status = reply.statusCode ?? 0;
    return status === 412 || status === 404
      ? { outcome: "refused" }
      : { outcome: "written", etag: reply.headers.etag ?? "" };
  };
  return condition === undefined ? repeat(signal, send) : once(send);
}

/**
 * In parts of the store's size, several at a time; nobody sees it before the last step, which has the condition. Bytes
 * of at most `concurrency` + 1 parts are in memory. Whatever isn't finished is removed again.
 */
export async function putParts(
  wire: S3Wire,
  key: string,
  chunks: AsyncIterable<Uint8Array>,
  options: PutOptions,
): Promise<PutOutcome> {
  const { signal } = options;
  const { createHeaders, keyHeaders } = wire.settings;
  const uploadId = await begin(wire, key, { ...createHeaders, ...keyHeaders, ...timestamp(options) }, signal);
  let isDone = false;
  try {
    const etags = await sendParts(wire, key, uploadId, chunks, signal);
    const outcome = await complete(wire, key, uploadId, etags, options);
    isDone = outcome.outcome === "written";
    return outcome;
  } finally {
    if (!isDone) await abandon(wire, key, uploadId);
  }
}

async function begin(wire: S3Wire, key: string, headers: Record<string, string>, signal: AbortSignal | undefined) {
  const request = { method: "POST", key, query: { uploads: "" }, headers, signal } as const;
  const { xml } = await repeat(signal, () => wire.sendForText(request));
  const uploadId = text(xml, "UploadId");
  if (uploadId === undefined)
    throw new SluiceError("SLU-3104", `${wire.place(key)}: the store began no upload in parts`);
  return uploadId;
}

async function sendParts(
  wire: S3Wire,
  key: string,
  uploadId: string,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<readonly string[]> {
  const { partSizeBytes, concurrency, keyHeaders } = wire.settings;
  const etags: string[] = [];
  const underway = new Set<Promise<void>>();
  const failed = new AbortController();
  const either = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  let failure: unknown;
  const send = async (number: number, body: Uint8Array): Promise<void> => {
    const query = { partNumber: String(number), uploadId };
    const request = { method: "PUT", key, query, headers: keyHeaders, body, signal: either } as const;
    const { reply } = await repeat(either, () => wire.sendForText(request));
    etags[number - 1] = reply.headers.etag ?? "";
  };
  try {
    let number = 0;
    for await (const body of inParts(chunks, partSizeBytes)) {
      if (++number > PARTS_MAX)
        throw new SluiceError("SLU-3104", `${wire.place(key)}: too large for ${PARTS_MAX} parts`);
      const part = send(number, body).catch((error: unknown) => {
        failure ??= error;
        failed.abort();
      });
      underway.add(part);
      void part.finally(() => underway.delete(part));
      if (underway.size >= concurrency) await Promise.race(underway);
      if (failure !== undefined) break;
    }
  } catch (error) {
    failure ??= error;
    failed.abort();
  }
  await Promise.all(underway);
  if (failure !== undefined) throw failure;
  return etags;
}

async function complete(
  wire: S3Wire,
  key: string,
  uploadId: string,
  etags: readonly string[],
  { condition, signal }: PutOptions,
): Promise<PutOutcome> {
  const parts = etags.map((etag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escapeXml(etag)}</ETag></Part>`);
  const xml = `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${parts.join("")}</CompleteMultipartUpload>`;
  const headers = { ...conditionHeaders(condition), "content-type": "application/xml" };
  // Not repeated, not even without a condition: the upload is gone when the first try has come through unheard.
  const send = async (): Promise<PutOutcome> => {
    const request = { method: "POST", key, query: { uploadId }, headers, body: Buffer.from(xml), signal } as const;
    const { reply, xml: answer } = await wire.sendForText({ ...request, expect: condition === undefined ? [] : [412] });
    if (reply.statusCode === 412 || text(answer, "Code") === "PreconditionFailed") return { outcome: "refused" };
    return { outcome: "written", etag: text(answer, "ETag") ?? reply.headers.etag ?? "" };
  };
  return condition === undefined ? send() : once(send);
}

/** Parts that nobody completes cost money for ever, where the bucket has no rule for them. */
async function abandon(wire: S3Wire, key: string, uploadId: string): Promise<void> {
  const remove = async () => (await wire.send({ method: "DELETE", key, query: { uploadId }, expect: [404] })).resume();
  // The upload's own failure is what the caller must hear of.
  await repeat(undefined, remove).catch(() => undefined);
}

/** Buffers of `sizeBytes`, which doubles after each 1,000; the last may be smaller. At least one, even if empty. */
async function* inParts(chunks: AsyncIterable<Uint8Array>, sizeBytes: number): AsyncIterable<Uint8Array> {
  let count = 0;
  let size = sizeBytes;
  let part = Buffer.allocUnsafe(size);
  let used = 0;
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length;) {
      if (used === size) {
        yield part;
        if (++count % PARTS_OF_ONE_SIZE === 0) size *= 2;
        part = Buffer.allocUnsafe(size);
        used = 0;
      }
      const taken = Math.min(size - used, chunk.length - at);
      part.set(chunk.subarray(at, at + taken), used);
      used += taken;
      at += taken;
    }
  }
  if (used > 0 || count === 0) yield part.subarray(0, used);
}

/** What must not be sent twice: no answer, or one that leaves it open, is the outcome `undecided`. */
async function once(send: () => Promise<PutOutcome>): Promise<PutOutcome> {
  try {
    return await send();
  } catch (cause) {
    if (isSluiceError(cause, "SLU-3101")) return { outcome: "undecided", cause };
    throw cause;
  }
}

function conditionHeaders(condition: PutOptions["condition"]): Record<string, string> {
  if (condition === undefined) return {};
  return condition === "absent" ? { "if-none-match": "*" } : { "if-match": condition.etag };
}

/** With If-Match, an object that isn't there is answered with 404. */
function refusals(condition: PutOptions["condition"]): readonly number[] {
  if (condition === undefined) return [];
  return condition === "absent" ? [412] : [412, 404];
}

/** As Litestream keeps it: RFC 3339 with as many digits as it needs. */
function timestamp({ timestampMs }: PutOptions): Record<string, string> {
  if (timestampMs === undefined) return {};
  const value = new Date(timestampMs).toISOString().replace(/\.?0*Z$/, "Z");
  return { "x-amz-meta-litestream-timestamp": value };
}

import type { IncomingMessage } from "node:http";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { pause, repeat } from "./s3-retry.ts";
import type { S3Wire } from "./s3-wire.ts";
import type { GetOptions, StoredObject } from "./store.ts";

/** Losses of the connection without a single byte between them, after which a read gives up. */
const LOSSES_MAX = 6;

/** One object or a range of it, over as many connections as it takes. `name` is the key that the caller used. */
export async function readObject(wire: S3Wire, key: string, name: string, options: GetOptions): Promise<StoredObject> {
  const { range, signal } = options;
  const reply = await repeat(signal, () =>
    wire.send({
      method: "GET",
      key,
      headers: { ...wire.settings.keyHeaders, ...(range && { range: rangeHeader(range) }) },
      signal,
      expect: [416],
    }),
  );
  if (reply.statusCode === 416 || range?.length === 0) return emptyRange(wire, key, name, reply, signal);
  const extent = range === undefined ? whole(reply) : part(reply, key);
  const { start, end, sizeBytes } = extent;
  const etag = etagOf(reply);
  return {
    key: name,
    sizeBytes,
    modifiedMs: modified(reply),
    etag,
    body: read(wire, { key, etag, start, end }, reply, signal),
  };
}

interface Extent {
  readonly key: string;
  readonly etag: string;
  readonly start: number;
  /** First byte that isn't wanted. */
  readonly end: number;
}

async function* read(
  wire: S3Wire,
  { key, etag, start, end }: Extent,
  first: IncomingMessage,
  signal: AbortSignal | undefined,
): AsyncIterable<Uint8Array> {
  let at = start;
  let reply: IncomingMessage | undefined = first;
  for (let losses = 0; ;) {
    try {
      reply ??= await wire.send({
        method: "GET",
        key,
        headers: { ...wire.settings.keyHeaders, range: `bytes=${at}-${end - 1}`, "if-match": etag },
        signal,
        expect: [412],
      });
      if (reply.statusCode === 412) {
        reply.resume();
        throw new SluiceError("SLU-3404", `${wire.place(key)}: replaced by another object while it was being read`);
      }
      for await (const chunk of reply as AsyncIterable<Buffer>) {
        if (at + chunk.length > end) throw new SluiceError("SLU-3104", `${wire.place(key)}: more bytes than asked for`);
        at += chunk.length;
        losses = 0;
        yield chunk;
      }
      if (at === end) return;
      throw new Error(`the reply ended ${end - at} bytes early`);
    } catch (error) {
      signal?.throwIfAborted();
      const lost = wire.error(error, key);
      if (!isSluiceError(lost, "SLU-3101") || ++losses > LOSSES_MAX) throw lost;
      await pause(losses, lost, signal);
    } finally {
      // Also when the reader has had enough and returns.
      reply?.destroy();
    }
    reply = undefined;
  }
}

/** A range that begins at the object's end or behind it, or asks for nothing. */
async function emptyRange(
  wire: S3Wire,
  key: string,
  name: string,
  refused: IncomingMessage,
  signal: AbortSignal | undefined,
): Promise<StoredObject> {
  refused.destroy();
  const reply = await repeat(signal, () =>
    wire.send({ method: "HEAD", key, headers: wire.settings.keyHeaders, signal }),
  );
  reply.resume();
  const sizeBytes = Number(reply.headers["content-length"] ?? 0);
  return { key: name, sizeBytes, modifiedMs: modified(reply), etag: etagOf(reply), body: nothing() };
}

async function* nothing(): AsyncIterable<Uint8Array> {
  // No bytes.
}

function rangeHeader({ offset, length }: NonNullable<GetOptions["range"]>): string {
  if (offset < 0) return `bytes=${offset}`;
  if (length === undefined) return `bytes=${offset}-`;
  return `bytes=${offset}-${offset + Math.max(1, length) - 1}`;
}

function whole(reply: IncomingMessage): { start: number; end: number; sizeBytes: number } {
  const sizeBytes = Number(reply.headers["content-length"]);
  if (Number.isNaN(sizeBytes)) throw new SluiceError("SLU-3104", "a reply doesn't say how long the object is");
  return { start: 0, end: sizeBytes, sizeBytes };
}

function part(reply: IncomingMessage, key: string): { start: number; end: number; sizeBytes: number } {
  const found = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(reply.headers["content-range"] ?? "");
  if (found === null || reply.statusCode !== 206) {
    reply.destroy();
    throw new SluiceError(
      "SLU-3104",
      `${key}: the store sent the whole object instead of the range that was asked for`,
    );
  }
  return { start: Number(found[1]), end: Number(found[2]) + 1, sizeBytes: Number(found[3]) };
}

function etagOf(reply: IncomingMessage): string {
  return reply.headers.etag ?? "";
}

function modified(reply: IncomingMessage): number {
  return Date.parse(reply.headers["last-modified"] ?? "") || 0;
}

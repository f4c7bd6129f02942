import { randomBytes } from "node:crypto";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { Backoff, untilAnswered, type LogContext } from "./context.ts";

/** `LogState.logId` of a database that was restored from a log without an identity: Litestream's. */
export const NO_LOG_ID = "";

/** What `sluice.json` beside a log says. */
export interface LogIdentity {
  /** 32 random hex digits: tells this log from every other that was ever in this place. */
  readonly logId: string;
  /** When it was created, RFC 3339. */
  readonly created: string;
  /** Of this format: 1. */
  readonly version: 1;
  /** The last slot that was Litestream's when Sluice began to continue its log; 0 for a log of Sluice's own. */
  readonly base: number;
  /** When `sluice forget` ended the log, RFC 3339. Nothing is written to an ended log. */
  readonly ended?: string;
}

interface ReadIdentity {
  readonly identity: LogIdentity;
  readonly etag: string;
}

const MAX_BYTES = 64 * 1024;

/** The identity of the log, or undefined where there's none. Throws SLU-4107 when it makes no sense. */
export async function readIdentity(context: LogContext, signal: AbortSignal): Promise<LogIdentity | undefined> {
  return (await read(context, signal))?.identity;
}

/**
 * Gives the log an identity, unless it has one: conditionally, so that of two that start a log at once both go on
 * with the same. Returns the one that is in the store. `logId`: to put back an identity that was deleted.
 */
export async function ensureIdentity(
  context: LogContext,
  options: { readonly base?: number; readonly logId?: string },
  signal: AbortSignal,
): Promise<LogIdentity> {
  const { base = 0, logId = randomBytes(16).toString("hex") } = options;
  const created = new Date(context.clock.now()).toISOString();
  const bytes = encode({ logId, created, version: 1, base });
  const backoff = new Backoff(context, "create sluice.json");
  for (;;) {
    const answer = await context.store
      .put(context.layout.identityKey, bytes, { condition: "absent", signal })
      .catch((cause: unknown) => ({ outcome: "undecided" as const, cause }));
    // Whatever the answer was, what counts is what is there; an undecided create that shows nothing is repeated.
    const found = answer.outcome === "undecided" ? undefined : await read(context, signal);
    if (found !== undefined) return found.identity;
    await backoff.wait(answer.outcome === "undecided" ? answer.cause : undefined, signal);
  }
}

/**
 * Ends the log with a tombstone: no Sluice writes to it any more, its files stay. For `sluice forget`; the database
 * must not be looked after by a running Sluice. Returns false when there's no log with an identity.
 */
export async function endLog(context: LogContext, signal: AbortSignal): Promise<boolean> {
  const backoff = new Backoff(context, "end the log");
  for (;;) {
    const found = await read(context, signal);
    if (found === undefined) return false;
    if (found.identity.ended !== undefined) return true;
    const ended = new Date(context.clock.now()).toISOString();
    const answer = await context.store
      .put(context.layout.identityKey, encode({ ...found.identity, ended }), {
        condition: { etag: found.etag },
        signal,
      })
      .catch((cause: unknown) => ({ outcome: "undecided" as const, cause }));
    if (answer.outcome === "written") return true;
    await backoff.wait(answer.outcome === "undecided" ? answer.cause : undefined, signal);
  }
}

function encode(identity: LogIdentity): Buffer {
  return Buffer.from(`${JSON.stringify(identity, null, 2)}\n`);
}

function read(context: LogContext, signal: AbortSignal): Promise<ReadIdentity | undefined> {
  const { store, layout } = context;
  return untilAnswered(context, "read sluice.json", signal, async () => {
    try {
      const object = await store.get(layout.identityKey, { signal });
      const chunks: Uint8Array[] = [];
      let length = 0;
      for await (const chunk of object.body) {
        length += chunk.length;
        if (length > MAX_BYTES) break;
        chunks.push(chunk);
      }
      return { identity: decode(Buffer.concat(chunks).toString("utf8"), context), etag: object.etag };
    } catch (error) {
      if (isSluiceError(error, "SLU-3404")) return undefined;
      throw error;
    }
  });
}

function decode(text: string, context: LogContext): LogIdentity {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw unreadable(context, "is not JSON", cause);
  }
  const { logId, created, version, base = 0, ended } = (value ?? {}) as Record<string, unknown>;
  if (version !== 1) throw unreadable(context, `has version ${JSON.stringify(version)}; this Sluice knows 1`);
  if (typeof logId !== "string" || !/^[0-9a-f]{32}$/.test(logId)) throw unreadable(context, "has no log id");
  if (!Number.isSafeInteger(base) || (base as number) < 0) throw unreadable(context, "has no valid base");
  return {
    logId,
    created: typeof created === "string" ? created : "",
    version,
    base: base as number,
    ...(typeof ended === "string" && { ended }),
  };
}

function unreadable(context: LogContext, what: string, cause?: unknown): SluiceError {
  const message = `${context.url}: ${context.layout.identityKey} ${what}`;
  return new SluiceError("SLU-4107", message, cause === undefined ? {} : { cause });
}

import type { PutOutcome } from "./store.ts";

export interface MultipartSteps {
  readonly partBytes: number;
  /** Parts that are sent at once. */
  readonly concurrency: number;
  start(): Promise<string>;
  /** Returns the part's etag. */
  part(upload: string, number: number, bytes: Uint8Array): Promise<string>;
  complete(upload: string, etags: readonly string[]): Promise<PutOutcome>;
  abort(upload: string): Promise<void>;
}

/**
 * Sends a stream of unknown length in parts; the object appears with the last step, and only that carries the
 * condition. Memory is bounded by `concurrency` + 1 parts. A failure removes the parts; an undecided completion leaves
 * them, because it may still take effect.
 */
export async function putParts(body: AsyncIterable<Uint8Array>, steps: MultipartSteps): Promise<PutOutcome> {
  const upload = await steps.start();
  const etags: string[] = [];
  const busy = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | undefined;
  const send = async (bytes: Uint8Array): Promise<void> => {
    const number = etags.push("");
    const sent = steps
      .part(upload, number, bytes)
      .then((etag) => void (etags[number - 1] = etag))
      .catch((error: unknown) => void (failure ??= { error }))
      .finally(() => busy.delete(sent));
    busy.add(sent);
    if (busy.size >= steps.concurrency) await Promise.race(busy);
    if (failure) throw failure.error;
  };
  try {
    for await (const bytes of partsOf(body, steps.partBytes)) await send(bytes);
    await Promise.all(busy);
    if (failure) throw failure.error;
  } catch (error) {
    await Promise.all(busy);
    await steps.abort(upload).catch(() => undefined);
    throw error;
  }
  const outcome = await steps.complete(upload, etags);
  if (outcome.outcome === "refused") await steps.abort(upload).catch(() => undefined);
  return outcome;
}

/** Chunks of exactly `size` bytes, the last one shorter; one empty part for an empty body. */
async function* partsOf(body: AsyncIterable<Uint8Array>, size: number): AsyncIterable<Uint8Array> {
  let part = Buffer.allocUnsafe(size);
  let used = 0;
  let any = false;
  for await (const chunk of body) {
    for (let at = 0; at < chunk.length;) {
      const count = Math.min(chunk.length - at, size - used);
      part.set(chunk.subarray(at, at + count), used);
      used += count;
      at += count;
      if (used < size) continue;
      yield part;
      any = true;
      // What was yielded is being sent.
      part = Buffer.allocUnsafe(size);
      used = 0;
    }
  }
  if (used > 0 || !any) yield part.subarray(0, used);
}

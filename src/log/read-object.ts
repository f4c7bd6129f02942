import type { ObjectStore } from "../store/store.ts";

/**
 * A whole object of at most `maxBytes` (the rest is not read), or a range of one, in memory. Rejects as the store's
 * `get` does.
 */
export async function readObject(
  store: ObjectStore,
  key: string,
  maxBytes: number,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  return readRange(store, key, { offset: 0, length: maxBytes }, signal);
}

/** A range of an object, in memory of its own (to be given away to a worker); shorter where the object ends. */
export async function readRange(
  store: ObjectStore,
  key: string,
  range: { readonly offset: number; readonly length: number },
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  const object = await store.get(key, { range, ...(signal !== undefined && { signal }) });
  const into = new Uint8Array(range.length);
  let length = 0;
  for await (const chunk of object.body) {
    const part = chunk.subarray(0, into.length - length);
    into.set(part, length);
    length += part.length;
    if (length === into.length) break;
  }
  return length === into.length ? into : into.slice(0, length);
}

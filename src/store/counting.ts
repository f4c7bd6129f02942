import { isSluiceError } from "../errors/error.ts";
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

/** One call of a store that has ended. */
export interface StoreCall {
  readonly operation: "list" | "get" | "put" | "delete";
  /** To the end of the body that was read or written. */
  readonly tookMs: number;
  /** Bytes of objects, read or written. */
  readonly bytes: number;
  /** Why it failed: an error's code, "undecided" for a write without an answer, "none" for an error without a code. */
  readonly failure: string | undefined;
}

/**
 * A store that tells of each call when it has ended; otherwise the same store. What is read from a local file is no
 * call of it.
 */
export class CountingStore implements ObjectStore {
  readonly url: string;
  readonly layout: ObjectStore["layout"];
  readonly #store: ObjectStore;
  readonly #onCall: (call: StoreCall) => void;

  constructor(store: ObjectStore, onCall: (call: StoreCall) => void) {
    this.#store = store;
    this.#onCall = onCall;
    this.url = store.url;
    this.layout = store.layout;
  }

  async *list(prefix: string, options?: ListOptions): AsyncIterable<ObjectInfo> {
    const call = this.#begin("list");
    try {
      yield* this.#store.list(prefix, options);
    } catch (error) {
      call.failed(error);
      throw error;
    } finally {
      call.end();
    }
  }

  async get(key: string, options?: GetOptions): Promise<StoredObject> {
    const call = this.#begin("get");
    try {
      const object = await this.#store.get(key, options);
      return { ...object, body: counted(object.body, call) };
    } catch (error) {
      call.failed(error);
      call.end();
      throw error;
    }
  }

  localFile(key: string): string | undefined {
    return this.#store.localFile?.(key);
  }

  async put(key: string, body: Body, options?: PutOptions): Promise<PutOutcome> {
    const call = this.#begin("put");
    try {
      const isStream = !(body instanceof Uint8Array) && !("path" in body);
      if (!isStream) call.bytes += body instanceof Uint8Array ? body.length : body.sizeBytes;
      const outcome = await this.#store.put(key, isStream ? counting(body, call) : body, options);
      if (outcome.outcome === "undecided") call.failure = "undecided";
      return outcome;
    } catch (error) {
      call.failed(error);
      throw error;
    } finally {
      call.end();
    }
  }

  async delete(keys: readonly string[], options?: { readonly signal?: AbortSignal }): Promise<void> {
    const call = this.#begin("delete");
    try {
      await this.#store.delete(keys, options);
    } catch (error) {
      call.failed(error);
      throw error;
    } finally {
      call.end();
    }
  }

  close(): Promise<void> {
    return this.#store.close();
  }

  #begin(operation: StoreCall["operation"]): Underway {
    return new Underway(operation, this.#onCall);
  }
}

class Underway {
  bytes = 0;
  failure: string | undefined;
  readonly #operation: StoreCall["operation"];
  readonly #onCall: (call: StoreCall) => void;
  readonly #startedAtMs = performance.now();

  constructor(operation: StoreCall["operation"], onCall: (call: StoreCall) => void) {
    this.#operation = operation;
    this.#onCall = onCall;
  }

  failed(error: unknown): void {
    this.failure = isSluiceError(error) ? error.code : "none";
  }

  end(): void {
    const tookMs = performance.now() - this.#startedAtMs;
    this.#onCall({ operation: this.#operation, tookMs, bytes: this.bytes, failure: this.failure });
  }
}

async function* counting(chunks: AsyncIterable<Uint8Array>, call: Underway): AsyncIterable<Uint8Array> {
  for await (const chunk of chunks) {
    call.bytes += chunk.length;
    yield chunk;
  }
}

/** A body whose reading, to whatever end, is the end of the call. */
async function* counted(body: AsyncIterable<Uint8Array>, call: Underway): AsyncIterable<Uint8Array> {
  try {
    yield* counting(body, call);
  } catch (error) {
    call.failed(error);
    throw error;
  } finally {
    call.end();
  }
}

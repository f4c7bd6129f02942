import { isSluiceError } from "../errors/error.ts";
import type { ObjectStore } from "../store/store.ts";
import type { LeaseRecord, LeaseRegister, LeaseVersion, SwapOutcome } from "./lease.ts";
import { decodeRecord, encodeRecord, RECORD_BYTES_MAX } from "./record.ts";

/** The object's key, below the first database's log or `lease.url`. */
const DEFAULT_KEY = "lease.json";

/** A lease of type `store`: one object, replaced only by who knows its ETag. Owns the store. */
export class StoreLease implements LeaseRegister {
  readonly place: string;
  readonly expires = true;
  readonly #store: ObjectStore;
  readonly #key: string;

  constructor(store: ObjectStore, key = DEFAULT_KEY) {
    this.#store = store;
    this.#key = key;
    this.place = `${store.url}/${key}`;
  }

  async read(signal: AbortSignal): Promise<LeaseVersion | undefined> {
    try {
      const object = await this.#store.get(this.#key, { range: { offset: 0, length: RECORD_BYTES_MAX }, signal });
      const chunks: Uint8Array[] = [];
      for await (const chunk of object.body) chunks.push(Uint8Array.from(chunk));
      const record = decodeRecord(Buffer.concat(chunks).toString(), this.place);
      return { version: object.etag, record, isFree: false };
    } catch (error) {
      if (isSluiceError(error, "SLU-3404")) return undefined;
      throw error;
    }
  }

  async swap(expected: string | undefined, next: LeaseRecord, signal: AbortSignal): Promise<SwapOutcome> {
    try {
      const outcome = await this.#store.put(this.#key, Buffer.from(encodeRecord(next)), {
        condition: expected === undefined ? "absent" : { etag: expected },
        signal,
      });
      return outcome.outcome === "written" ? { outcome: "written", version: outcome.etag } : outcome;
    } catch (cause) {
      // A store that fails may have done it all the same: a full disk after the rename, a call that was given up.
      return { outcome: "undecided", cause };
    }
  }

  close(): Promise<void> {
    return this.#store.close();
  }
}

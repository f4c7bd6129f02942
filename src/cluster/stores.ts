import type { StoreConfig } from "../config/config.ts";
import { openStore } from "../store/open.ts";
import type { ObjectStore } from "../store/store.ts";

/** One store for each URL of a configuration, opened when it's first asked for. */
export class Stores {
  readonly #open = new Map<string, Promise<ObjectStore>>();

  get({ url, settings }: StoreConfig): Promise<ObjectStore> {
    let store = this.#open.get(url);
    if (store === undefined) this.#open.set(url, (store = openStore(url, settings)));
    return store;
  }

  async close(): Promise<void> {
    for (const store of this.#open.values()) await (await store.catch(() => undefined))?.close();
    this.#open.clear();
  }
}

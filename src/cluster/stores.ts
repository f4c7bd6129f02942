import type { StoreConfig } from "../config/config.ts";
import type { Logger } from "../observe/log.ts";
import type { Metrics } from "../observe/metrics.ts";
import { CountingStore } from "../store/counting.ts";
import { openStore } from "../store/open.ts";
import { type FencingProblem, probeFencing } from "../store/probe.ts";
import type { ObjectStore } from "../store/store.ts";

export interface StoresOptions {
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** How long a start waits for a store to show that it keeps writers apart. */
const PROBE_MS = 3_000;

/** One store for each URL with its settings, opened when it's first asked for; its calls are counted. */
export class Stores {
  readonly #open = new Map<string, Promise<ObjectStore>>();
  readonly #options: StoresOptions;
  readonly #warned = new WeakSet<ObjectStore>();

  constructor(options: StoresOptions) {
    this.#options = options;
  }

  get({ url, settings }: StoreConfig): Promise<ObjectStore> {
    // Two databases may name one bucket and have other credentials for it.
    const key = JSON.stringify([url, Object.entries(settings).toSorted(([a], [b]) => (a < b ? -1 : 1))]);
    let store = this.#open.get(key);
    if (store === undefined) {
      store = openStore(url, settings).then((opened) => this.#counted(opened));
      this.#open.set(key, store);
    }
    return store;
  }

  /**
   * Says, once for each store, when it can't keep two writers from one log. To be called when it has answered before.
   * Resolves with what it said.
   */
  async warnIfUnfenced(store: ObjectStore, signal: AbortSignal): Promise<FencingProblem> {
    const problem = await probeFencing(store, signal).catch(() => undefined);
    if (problem === undefined || this.#warned.has(store)) return problem;
    this.#warned.add(store);
    this.#options.log.warn({ code: problem.code, hint: problem.hint }, problem.message);
    return problem;
  }

  /**
   * Throws SLU-3004 for a store that can't keep two writers from one log. One that doesn't answer within seconds passes:
   * it is asked again when it does.
   */
  async assertFenced(store: ObjectStore): Promise<void> {
    const problem = await probeFencing(store, AbortSignal.timeout(PROBE_MS)).catch(() => undefined);
    if (problem !== undefined) throw problem;
  }

  async close(): Promise<void> {
    for (const store of this.#open.values()) await (await store.catch(() => undefined))?.close();
    this.#open.clear();
  }

  #counted(store: ObjectStore): ObjectStore {
    const { storeCalls, storeBytes, storeFailures, storeSeconds } = this.#options.metrics;
    return new CountingStore(store, ({ operation, tookMs, bytes, failure }) => {
      const labels = { store: store.url, operation };
      storeCalls.inc(labels);
      storeBytes.inc(labels, bytes);
      storeSeconds.observe(labels, tookMs / 1000);
      if (failure !== undefined) storeFailures.inc({ ...labels, code: failure });
    });
  }
}

import { readFile } from "node:fs/promises";
import { SluiceError } from "../../../src/errors/error.ts";
import type {
  Body,
  GetOptions,
  ListOptions,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  PutOutcome,
  StoredObject,
} from "../../../src/store/store.ts";
import type { LifeClock, Random, VirtualClock } from "./clock.ts";

/** How often requests go wrong, each 0 … 1. */
export interface Faults {
  /** The answer to a conditional put is lost after its effect. */
  readonly lostAnswer: number;
  /** The request is lost, or refused with 409, 500, 503. */
  readonly lostRequest: number;
  /** The answer is a timeout, and the request takes effect up to `lateMs` later. */
  readonly late: number;
  /** The request takes effect now, and once more up to `lateMs` later. */
  readonly twice: number;
  /** A read, list or delete fails. */
  readonly read: number;
  readonly lateMs: number;
  /** Up to this long to the store, and the same back. */
  readonly latencyMs: number;
}

const CALM: Faults = {
  lostAnswer: 0,
  lostRequest: 0,
  late: 0,
  twice: 0,
  read: 0,
  lateMs: 0,
  latencyMs: 20,
};

export type Reach = "both" | "requests" | "none";

/** A client gives up what isn't answered for so long. */
const SILENT_MS = 10_000;

export interface SimObject {
  readonly bytes: Uint8Array;
  readonly modifiedMs: number;
  readonly etag: string;
  /** Who sent the request that created it. */
  readonly client: string;
}

/** What every client of one simulated bucket shares. */
export class SimBucket {
  readonly objects = new Map<string, SimObject>();
  /** The first object that was ever created under each key: for a slot of level 0, the true record. */
  readonly first = new Map<string, SimObject>();
  /** Number of requests by kind, of all clients. */
  readonly requests = { list: 0, get: 0, put: 0, delete: 0 };
  readonly clock: VirtualClock;
  readonly random: Random;
  faults: Faults;
  /** Called after each effect of a put or a delete. */
  onChange: (key: string) => void = () => undefined;
  /** What a put, or its answer, waits for on its way. */
  onWay: (client: string, way: "request" | "answer", key: string) => Promise<void> | undefined = () => undefined;
  /** Whether a client's requests get here, and the answers back. What doesn't is given up after a while. */
  reach: (client: string) => Reach = () => "both";
  #version = 0;

  constructor(clock: VirtualClock, random: Random, faults: Faults = CALM) {
    this.clock = clock;
    this.random = random;
    this.faults = faults;
  }

  /** `life`: of the process that asks; answers arrive by its clock. */
  client(name: string, life: LifeClock): SimClient {
    return new SimClient(this, name, life);
  }

  execute(key: string, bytes: Uint8Array, options: PutOptions, client: string): PutOutcome {
    const existing = this.objects.get(key);
    const { condition } = options;
    if (condition === "absent" ? existing !== undefined : condition && existing?.etag !== condition.etag) {
      return { outcome: "refused" };
    }
    const etag = `"${++this.#version}"`;
    const object = { bytes: bytes.slice(), modifiedMs: this.clock.now(), etag, client };
    this.objects.set(key, object);
    if (!this.first.has(key)) this.first.set(key, object);
    this.onChange(key);
    return { outcome: "written", etag };
  }

  remove(key: string): void {
    this.objects.delete(key);
    this.onChange(key);
  }
}

/** One process's view of the bucket. When that has died no answer arrives; what was sent may still take effect. */
export class SimClient implements ObjectStore {
  readonly layout = "ltx-prefix";
  readonly url = "sim:///log";
  readonly name: string;
  readonly #bucket: SimBucket;
  readonly #life: LifeClock;

  constructor(bucket: SimBucket, name: string, life: LifeClock) {
    this.#bucket = bucket;
    this.name = name;
    this.#life = life;
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncIterable<ObjectInfo> {
    this.#bucket.requests.list++;
    yield* await this.#read(options.signal, () =>
      [...this.#bucket.objects]
        .filter(([key]) => key.startsWith(prefix) && (options.startAfter === undefined || key > options.startAfter))
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([key, object]) => ({ key, sizeBytes: object.bytes.length, modifiedMs: object.modifiedMs })),
    );
  }

  async get(key: string, options: GetOptions = {}): Promise<StoredObject> {
    this.#bucket.requests.get++;
    const object = await this.#read(options.signal, () => this.#bucket.objects.get(key));
    if (object === undefined) throw new SluiceError("SLU-3404", `${key} is not there`);
    const { range } = options;
    const start = range === undefined ? 0 : range.offset < 0 ? object.bytes.length + range.offset : range.offset;
    const end = range?.length === undefined || range.offset < 0 ? object.bytes.length : start + range.length;
    const bytes = object.bytes.slice(start, end);
    return {
      key,
      sizeBytes: object.bytes.length,
      modifiedMs: object.modifiedMs,
      etag: object.etag,
      body: (async function* () {
        const half = bytes.length >>> 1;
        yield bytes.subarray(0, half);
        yield bytes.subarray(half);
      })(),
    };
  }

  async put(key: string, body: Body, options: PutOptions = {}): Promise<PutOutcome> {
    this.#bucket.requests.put++;
    const bytes = await collect(body);
    const { random, faults } = this.#bucket;
    const execute = (): PutOutcome => this.#bucket.execute(key, bytes, options, this.name);
    let luck = random.next();
    const is = (probability: number): boolean => (luck -= probability) < 0;
    if (is(faults.late)) {
      this.#later(execute);
      return this.#answer({ outcome: "undecided", cause: new Error("timeout") }, options.signal);
    }
    if (is(faults.lostRequest)) return this.#answer({ outcome: "undecided", cause: new Error("503") }, options.signal);
    const isLost = is(faults.lostAnswer);
    const isTwice = is(faults.twice);
    if (!(await this.#crossing("request", options.signal))) return { outcome: "undecided", cause: unanswered() };
    // The effect does not depend on whether the client still lives.
    await orAborted(this.#bucket.onWay(this.name, "request", key), options.signal);
    const outcome = await new Promise<PutOutcome>((resolve) => {
      this.#bucket.clock.schedule(random.below(faults.latencyMs + 1), () => resolve(execute()));
    });
    if (isTwice) this.#later(execute);
    await orAborted(this.#bucket.onWay(this.name, "answer", key), options.signal);
    if (!(await this.#crossing("answer", options.signal))) return { outcome: "undecided", cause: unanswered() };
    return this.#answer(isLost ? { outcome: "undecided", cause: new Error("reset") } : outcome, options.signal);
  }

  async delete(keys: readonly string[], options: { readonly signal?: AbortSignal } = {}): Promise<void> {
    this.#bucket.requests.delete++;
    await this.#read(options.signal, () => {
      for (const key of keys) this.#bucket.remove(key);
    });
  }

  async close(): Promise<void> {}

  /** A request, and its answer, are lost where the way is cut at that moment. */
  async #crossing(way: "request" | "answer", signal: AbortSignal | undefined): Promise<boolean> {
    const reach = this.#bucket.reach(this.name);
    if (reach === "both" || (way === "request" && reach === "requests")) return true;
    await this.#wait(SILENT_MS, signal);
    return false;
  }

  async #read<T>(signal: AbortSignal | undefined, execute: () => T): Promise<T> {
    await this.#travel(signal);
    this.#mayFail();
    if (!(await this.#crossing("request", signal))) throw unanswered();
    const found = execute();
    if (!(await this.#crossing("answer", signal))) throw unanswered();
    await this.#travel(signal);
    return found;
  }

  #mayFail(): void {
    const { random, faults } = this.#bucket;
    if (random.chance(faults.read)) throw new SluiceError("SLU-3104", "503");
  }

  #later(execute: () => unknown): void {
    const { random, faults, clock } = this.#bucket;
    clock.schedule(random.below(faults.lateMs), () => void execute());
  }

  async #answer<T>(answer: T, signal: AbortSignal | undefined): Promise<T> {
    await this.#travel(signal);
    return answer;
  }

  /** One way of a request or an answer. */
  #travel(signal: AbortSignal | undefined): Promise<void> {
    const { random, faults } = this.#bucket;
    return this.#wait(random.below(faults.latencyMs + 1), signal);
  }

  #wait(delayMs: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const arrive = (): void => {
        if (signal?.aborted === true) reject(signal.reason as Error);
        else resolve();
      };
      this.#life.schedule(delayMs, arrive);
      signal?.addEventListener("abort", arrive, { once: true });
    });
  }
}

function unanswered(): SluiceError {
  return new SluiceError("SLU-3104", "no answer");
}

function orAborted(way: Promise<void> | undefined, signal: AbortSignal | undefined): Promise<void> {
  if (way === undefined || signal === undefined) return way ?? Promise.resolve();
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    way.then(resolve, reject);
  });
}

async function collect(body: Body): Promise<Uint8Array> {
  if (body instanceof Uint8Array) return body;
  if ("path" in body) return readFile(body.path);
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(Uint8Array.from(chunk));
  return Buffer.concat(chunks);
}

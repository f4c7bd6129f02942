import type { LeaseTls } from "../config/config.ts";
import { SluiceError } from "../errors/error.ts";
import { type Answer, base64, fromBase64, HttpService, json, refusal } from "./http.ts";
import type { LeaseRecord, LeaseRegister, LeaseVersion, SwapOutcome } from "./lease.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

export interface ConsulSettings {
  /** The agent. A password in it is the token, a path the prefix of all keys, as LiteFS has it. */
  readonly url: string;
  readonly key: string;
  readonly token?: string | undefined;
  readonly lockDelayMs: number;
  readonly tls?: LeaseTls | undefined;
}

interface KvEntry {
  readonly Value: string | null;
  readonly Session?: string;
  readonly ModifyIndex: number;
}

type KvOperation = {
  readonly Verb: string;
  readonly Index?: number;
  readonly Value?: string;
  readonly Session?: string;
};

/**
 * A lease of type `consul`: a key that is locked by a session with a TTL (Consul's HTTP API, Sessions, KV store and
 * Transactions). The record is compared and swapped by the key's ModifyIndex, and the lock goes along with it: Consul
 * ends it when the session isn't renewed for its TTL (up to twice as long, and never earlier), and lets nobody lock the
 * key again before the lock delay has passed.
 *
 * The session is renewed before the record is written, so it never ends before the time that the record promises. It is
 * bound to no health check: a node that Consul's gossip loses is not thereby a dead primary.
 */
export class ConsulLease implements LeaseRegister {
  readonly place: string;
  readonly expires = true;
  readonly #service: HttpService;
  readonly #settings: ConsulSettings;
  readonly #ttlMs: number;
  readonly #key: string;
  /** Of the catalogue's node that sessions belong to; undefined: the agent's own. */
  readonly #node: string | undefined;
  readonly #headers: Readonly<Record<string, string>>;
  #session: string | undefined;

  /** `ttlMs`: Consul's limits for it are 10 s to 24 h. */
  constructor(settings: ConsulSettings, ttlMs: number) {
    const url = new URL(settings.url);
    const prefix = url.pathname.replace(/^\/+|\/+$/g, "");
    const token = settings.token ?? decodeURIComponent(url.password);
    this.#service = new HttpService("Consul", [url], settings.tls);
    this.#settings = settings;
    this.#ttlMs = ttlMs;
    this.#key = prefix === "" ? settings.key : `${prefix}/${settings.key}`;
    this.#node = prefix === "" ? undefined : `${prefix}/sluice`;
    this.#headers = token === "" ? {} : { "x-consul-token": token };
    this.place = `${this.#service.address}, Consul's key ${this.#key}`;
  }

  async read(signal: AbortSignal): Promise<LeaseVersion | undefined> {
    const path = `/v1/kv/${this.#key.split("/").map(encodeURIComponent).join("/")}?consistent`;
    const answer = await this.#service.call({ method: "GET", path, headers: this.#headers }, signal);
    if (answer.status === 404) return undefined;
    if (answer.status !== 200) throw refusal(this.#service, "reading the lease", answer);
    const [entry] = json(this.#service, answer) as KvEntry[];
    if (entry === undefined) return undefined;
    const record = decodeRecord(fromBase64(entry.Value ?? ""), this.place);
    return { version: String(entry.ModifyIndex), record, isFree: (entry.Session ?? "") === "" };
  }

  async swap(expected: string | undefined, next: LeaseRecord, signal: AbortSignal): Promise<SwapOutcome> {
    try {
      const isGivingUp = next.released === true || next.successor !== undefined;
      const session = await this.#liveSession(signal);
      const outcome = await this.#write(expected, next, isGivingUp ? "unlock" : "lock", session, signal);
      if (isGivingUp && outcome.outcome === "written") await this.#destroySession(signal);
      return outcome;
    } catch (cause) {
      return { outcome: "undecided", cause };
    }
  }

  close(): Promise<void> {
    this.#service.close();
    return Promise.resolve();
  }

  /** All operations take effect, or none. */
  async #write(
    expected: string | undefined,
    next: LeaseRecord,
    verb: "lock" | "unlock",
    session: string,
    signal: AbortSignal,
  ): Promise<SwapOutcome> {
    const check: KvOperation =
      expected === undefined ? { Verb: "check-not-exists" } : { Verb: "check-index", Index: Number(expected) };
    const write: KvOperation = { Verb: verb, Value: base64(encodeRecord(next)), Session: session };
    const body = [check, write].map((operation) => ({ KV: { Key: this.#key, ...operation } }));
    const answer = await this.#put("/v1/txn", body, signal);
    if (answer.status === 409) return { outcome: "refused" };
    if (answer.status !== 200) return { outcome: "undecided", cause: refusal(this.#service, "the lease", answer) };
    const { Results } = json(this.#service, answer) as { Results: { KV?: KvEntry }[] };
    const index = Results.at(-1)?.KV?.ModifyIndex;
    if (index === undefined) throw new SluiceError("SLU-8001", `${this.place}: Consul's answer has no index`);
    return { outcome: "written", version: String(index) };
  }

  /** The own session, renewed just now, or a new one. */
  async #liveSession(signal: AbortSignal): Promise<string> {
    if (this.#session !== undefined) {
      const answer = await this.#put(`/v1/session/renew/${this.#session}`, undefined, signal);
      if (answer.status === 200) return this.#session;
      if (answer.status !== 404) throw refusal(this.#service, "renewing the session", answer);
      this.#session = undefined;
    }
    if (this.#node !== undefined) await this.#registerNode(this.#node, signal);
    const body = {
      Name: "sluice",
      TTL: `${Math.ceil(this.#ttlMs)}ms`,
      LockDelay: `${this.#settings.lockDelayMs}ms`,
      Behavior: "release",
      NodeChecks: [],
      ...(this.#node !== undefined && { Node: this.#node }),
    };
    const answer = await this.#put("/v1/session/create", body, signal);
    if (answer.status !== 200) throw refusal(this.#service, "creating a session", answer);
    this.#session = (json(this.#service, answer) as { ID: string }).ID;
    return this.#session;
  }

  /** Where keys have a prefix the token allows nothing outside it, and so no session of the agent's own node. */
  async #registerNode(node: string, signal: AbortSignal): Promise<void> {
    const answer = await this.#put("/v1/catalog/register", { Node: node, Address: "localhost" }, signal);
    if (answer.status !== 200) throw refusal(this.#service, `registering the node ${node}`, answer);
  }

  /** Unlocked keys know no lock delay; the session that nobody needs would end by itself, too. */
  async #destroySession(signal: AbortSignal): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    if (session !== undefined)
      await this.#put(`/v1/session/destroy/${session}`, undefined, signal).catch(() => undefined);
  }

  #put(path: string, body: unknown, signal: AbortSignal): Promise<Answer> {
    return this.#service.call({ method: "PUT", path, body, headers: this.#headers }, signal);
  }
}

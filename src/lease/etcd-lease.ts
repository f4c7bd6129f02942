import type { LeaseTls } from "../config/config.ts";
import { type Answer, base64, fromBase64, HttpService, json, refusal } from "./http.ts";
import type { LeaseRecord, LeaseRegister, LeaseVersion, SwapOutcome } from "./lease.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

export interface EtcdSettings {
  /** Members of one etcd cluster. */
  readonly urls: readonly string[];
  readonly key: string;
  readonly user?: string | undefined;
  readonly password?: string | undefined;
  readonly tls?: LeaseTls | undefined;
}

interface Range {
  readonly kvs?: readonly { readonly value?: string; readonly mod_revision: string }[];
}

/** gRPC codes, which the gateway puts into its errors. */
const NOT_FOUND = 5;
const UNAUTHENTICATED = 16;
const UNAUTHORIZED = 401;

/**
 * A lease of type `etcd`, over the JSON gateway of etcd's v3 API (etcd's documentation, "Why gRPC gateway"; 3.4 and
 * newer). The record is a key that stays, compared and swapped by its mod_revision. Beside it stands a second key,
 * `KEY/holder`, bound to an etcd lease of the same TTL: it goes when its owner stops renewing, and everybody sees then
 * that the record is free, though the record and its generation are kept.
 *
 * The etcd lease is renewed before the record is written, so it never ends before the time that the record promises.
 */
export class EtcdLease implements LeaseRegister {
  readonly place: string;
  readonly expires = true;
  readonly #service: HttpService;
  readonly #settings: EtcdSettings;
  readonly #ttlSeconds: number;
  readonly #key: string;
  readonly #holderKey: string;
  #leaseId: string | undefined;
  #token: string | undefined;

  constructor(settings: EtcdSettings, ttlMs: number) {
    const urls = settings.urls.map((url) => new URL(url));
    this.#service = new HttpService("etcd", urls, settings.tls);
    this.#settings = settings;
    this.#ttlSeconds = Math.ceil(ttlMs / 1000);
    this.#key = base64(settings.key);
    this.#holderKey = base64(`${settings.key}/holder`);
    this.place = `${this.#service.address}, etcd's key ${settings.key}`;
  }

  /** Both keys at one revision, through the quorum. */
  async read(signal: AbortSignal): Promise<LeaseVersion | undefined> {
    const success = [this.#key, this.#holderKey].map((key) => ({ request_range: { key } }));
    const answer = await this.#post("/v3/kv/txn", { success }, signal);
    if (answer.status !== 200) throw refusal(this.#service, "reading the lease", answer);
    const { responses = [] } = json(this.#service, answer) as { responses?: { response_range?: Range }[] };
    const [entry, holder] = responses.map(({ response_range }) => response_range?.kvs?.[0]);
    if (entry === undefined) return undefined;
    const record = decodeRecord(fromBase64(entry.value ?? ""), this.place);
    return { version: entry.mod_revision, record, isFree: holder === undefined };
  }

  async swap(expected: string | undefined, next: LeaseRecord, signal: AbortSignal): Promise<SwapOutcome> {
    try {
      const isGivingUp = next.released === true || next.successor !== undefined;
      const lease = isGivingUp ? undefined : await this.#liveLease(signal);
      const outcome = await this.#write(expected, next, lease, signal);
      if (isGivingUp && outcome.outcome === "written") await this.#revoke(signal);
      return outcome;
    } catch (cause) {
      return { outcome: "undecided", cause };
    }
  }

  close(): Promise<void> {
    this.#service.close();
    return Promise.resolve();
  }

  /** `lease`: holds the second key; undefined: that key goes. */
  async #write(
    expected: string | undefined,
    next: LeaseRecord,
    lease: string | undefined,
    signal: AbortSignal,
  ): Promise<SwapOutcome> {
    const compare = [{ key: this.#key, target: "MOD", result: "EQUAL", mod_revision: expected ?? "0" }];
    const holder =
      lease === undefined
        ? { request_delete_range: { key: this.#holderKey } }
        : { request_put: { key: this.#holderKey, value: base64(next.life), lease } };
    const success = [{ request_put: { key: this.#key, value: base64(encodeRecord(next)) } }, holder];
    const answer = await this.#post("/v3/kv/txn", { compare, success }, signal);
    if (answer.status !== 200) {
      // The etcd lease may have ended between its renewal and this.
      if (errorCode(answer) === NOT_FOUND) this.#leaseId = undefined;
      return { outcome: "undecided", cause: refusal(this.#service, "the lease", answer) };
    }
    const { header, succeeded } = json(this.#service, answer) as { header: { revision: string }; succeeded?: boolean };
    return succeeded === true ? { outcome: "written", version: header.revision } : { outcome: "refused" };
  }

  /** The own etcd lease, renewed just now, or a new one. */
  async #liveLease(signal: AbortSignal): Promise<string> {
    if (this.#leaseId !== undefined) {
      const answer = await this.#post("/v3/lease/keepalive", { ID: this.#leaseId }, signal);
      if (answer.status !== 200) throw refusal(this.#service, "renewing the etcd lease", answer);
      const { result } = json(this.#service, answer) as { result?: { TTL?: string } };
      if (Number(result?.TTL ?? 0) > 0) return this.#leaseId;
      this.#leaseId = undefined;
    }
    const answer = await this.#post("/v3/lease/grant", { TTL: String(this.#ttlSeconds) }, signal);
    if (answer.status !== 200) throw refusal(this.#service, "granting an etcd lease", answer);
    this.#leaseId = (json(this.#service, answer) as { ID: string }).ID;
    return this.#leaseId;
  }

  /** It holds nothing any more, and would end by itself, too. */
  async #revoke(signal: AbortSignal): Promise<void> {
    const ID = this.#leaseId;
    this.#leaseId = undefined;
    if (ID !== undefined) await this.#post("/v3/lease/revoke", { ID }, signal).catch(() => undefined);
  }

  /** With a user, the first call and each one after a token's end authenticates before. */
  async #post(path: string, body: unknown, signal: AbortSignal): Promise<Answer> {
    const { user } = this.#settings;
    if (user !== undefined) this.#token ??= await this.#authenticate(user, signal);
    const headers = this.#token === undefined ? {} : { authorization: this.#token };
    const answer = await this.#service.call({ method: "POST", path, body, headers }, signal);
    if (user === undefined || (answer.status !== UNAUTHORIZED && errorCode(answer) !== UNAUTHENTICATED)) return answer;
    // A token that is not known was not let through to the keys: the call was not carried out.
    this.#token = await this.#authenticate(user, signal);
    return this.#service.call({ method: "POST", path, body, headers: { authorization: this.#token } }, signal);
  }

  async #authenticate(name: string, signal: AbortSignal): Promise<string> {
    const body = { name, password: this.#settings.password ?? "" };
    const answer = await this.#service.call({ method: "POST", path: "/v3/auth/authenticate", body }, signal);
    if (answer.status === 200) return (json(this.#service, answer) as { token: string }).token;
    const isOurs = answer.status >= 400 && answer.status < 500;
    throw refusal(this.#service, `user ${name}`, isOurs ? { ...answer, status: UNAUTHORIZED } : answer);
  }
}

function errorCode({ body }: Answer): number | undefined {
  try {
    return (JSON.parse(body) as { code?: number }).code;
  } catch {
    return undefined;
  }
}

import { createHmac, timingSafeEqual } from "node:crypto";
import type { LeaseRecord, LeaseRegister, LeaseVersion, SwapOutcome } from "./lease.ts";

/**
 * A register whose records are signed with the cluster's secret. Where nodes reach the primary stands in the record, and
 * they send it the secret and their clients' requests: who can write to the store must not be able to name a node of his
 * own. A record without the right signature is a lease as any other, which keeps others off for its ttl and runs out,
 * but of a node without a name and an address: nobody follows it, and the writer of an older release, or with an older
 * secret, is still waited for.
 */
export class SignedRegister implements LeaseRegister {
  readonly place: string;
  readonly expires: boolean;
  readonly #register: LeaseRegister;
  readonly #key: Buffer;

  /** Owns `register`. */
  constructor(register: LeaseRegister, secret: string) {
    this.place = register.place;
    this.expires = register.expires;
    this.#register = register;
    this.#key = createHmac("sha256", secret).update("sluice lease").digest();
  }

  async read(signal: AbortSignal): Promise<LeaseVersion | undefined> {
    const seen = await this.#register.read(signal);
    return seen && { ...seen, record: this.#believed(seen.record) };
  }

  swap(expected: string | undefined, next: LeaseRecord, signal: AbortSignal): Promise<SwapOutcome> {
    return this.#register.swap(expected, { ...next, mac: this.#mac(next) }, signal);
  }

  close(): Promise<void> {
    return this.#register.close();
  }

  #believed(record: LeaseRecord): LeaseRecord {
    const given = Buffer.from(record.mac ?? "");
    const right = Buffer.from(this.#mac(record));
    if (given.length === right.length && timingSafeEqual(given, right)) return record;
    const { proxy: _proxy, ...rest } = record;
    return { ...rest, nodeName: "", advertise: "" };
  }

  /** `machine` is the register's own to add. */
  #mac({
    nodeId,
    life,
    nodeName,
    advertise,
    proxy,
    generation,
    counter,
    ttlMs,
    successor,
    released,
  }: LeaseRecord): string {
    const owner = [nodeId, life, nodeName, advertise, proxy ?? null];
    const text = JSON.stringify([owner, generation, counter, ttlMs, successor ?? null, released ?? false]);
    return createHmac("sha256", this.#key).update(text).digest("base64url");
  }
}

import type { LeaseRecord, LeaseRegister, LeaseVersion, SwapOutcome } from "./lease.ts";

/**
 * A lease of type `static`: the node that advertises the configured address is the primary for ever. Nothing is sent
 * and nothing expires; the record lives in this process. A primary may release it (it stops) and take it again.
 */
export class StaticLease implements LeaseRegister {
  readonly place: string;
  readonly expires = false;
  readonly #isSelf: boolean;
  #current: LeaseVersion | undefined;

  /** `primary` and `self`: addresses that nodes advertise. */
  constructor(primary: string, self: string | undefined) {
    this.place = `the configuration (primary ${primary})`;
    this.#isSelf = self !== undefined && sameAddress(primary, self);
    if (!this.#isSelf) this.#current = { version: "0", record: ofAnother(primary), isFree: false };
  }

  read(): Promise<LeaseVersion | undefined> {
    return Promise.resolve(this.#current);
  }

  swap(expected: string | undefined, next: LeaseRecord): Promise<SwapOutcome> {
    if (!this.#isSelf || expected !== this.#current?.version) return Promise.resolve({ outcome: "refused" });
    const version = String(next.counter);
    this.#current = { version, record: next, isFree: false };
    return Promise.resolve({ outcome: "written", version });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** `http://a:1` and `http://a:1/` are one address. */
function sameAddress(a: string, b: string): boolean {
  return URL.canParse(a) && URL.canParse(b) ? new URL(a).href === new URL(b).href : a === b;
}

/** Its node id is not known here. */
function ofAnother(advertise: string): LeaseRecord {
  const nobody = { nodeId: "", life: "", nodeName: "" };
  return { ...nobody, advertise, generation: 1, counter: 0, ttlMs: Number.POSITIVE_INFINITY };
}

import type { LeaseRecord, LeaseVersion } from "./lease.ts";
import type { Observation } from "./keeper-types.ts";

/** The times of a lease follow from its ttl; requests an hour in docs/leases.md follow from these. */
const RENEWALS_PER_TTL = 3;
const LOOKS_PER_TTL = 20;
const MARGIN_MAX_MS = 2_000;

export function defaultMarginMs(ttlMs: number): number {
  return Math.min(MARGIN_MAX_MS, ttlMs / 5);
}

/** From one renewal's first sending to the next one's. */
export function renewEveryMs(ttlMs: number): number {
  return ttlMs / RENEWALS_PER_TTL;
}

/** How long one request may take before the record is asked instead. */
export function requestTimeoutMs(ttlMs: number): number {
  return ttlMs / 4;
}

/** Between a request without an answer and the next one. */
export function retryAfterMs(ttlMs: number): number {
  return ttlMs / LOOKS_PER_TTL / 2;
}

/**
 * Until an observer reads the record again. Renewals come evenly, so one read soon after each is enough: after a read
 * that showed a new record the next one is due slightly earlier in the period than this one was; after one that showed
 * the old record, the next follows soon. So a renewal is seen within a twentieth of the ttl, at a cost of about 1.3
 * reads a renewal.
 */
export function nextLookMs(
  record: LeaseRecord | undefined,
  isNew: boolean,
  ownTtlMs: number,
  unchangedMs: number,
): number {
  const ttlMs = Math.min(record?.ttlMs ?? ownTtlMs, ownTtlMs);
  if (!Number.isFinite(ttlMs)) return Number.POSITIVE_INFINITY;
  const often = ttlMs / LOOKS_PER_TTL;
  if (record === undefined || record.released) return renewEveryMs(ttlMs);
  if (isNew) return renewEveryMs(ttlMs) - often / 4;
  return unchangedMs > 2 * ttlMs ? renewEveryMs(ttlMs) : often;
}

/** Who asks whether it may take the lease. */
export interface Asker {
  readonly id: string;
  readonly life: string;
  readonly isOnlyLife: boolean;
}

/**
 * From when on this node may try to take the lease, by its boot clock: a record keeps others off for its ttl, counted
 * from the arrival of the read that showed it first, unless it or the backend says that its owner has given up.
 */
export function mayTakeFromMs({ seen, sinceMs }: Observation, asker: Asker): number {
  if (seen === undefined) return sinceMs;
  const { record, isFree } = seen;
  if (record.released || isNamed(seen, asker)) return sinceMs;
  const lapsesMs = sinceMs + record.ttlMs;
  if (record.successor !== undefined) return lapsesMs;
  const isOwn = record.nodeId === asker.id && (record.life === asker.life || asker.isOnlyLife);
  return isOwn || isFree ? sinceMs : lapsesMs;
}

/** Whether the record names this node as the successor; not of itself: an old life's successor may be its next one. */
export function isNamed(seen: LeaseVersion | undefined, { id, life }: Asker): boolean {
  return seen?.record.successor === id && seen.record.life !== life && !seen.record.released;
}

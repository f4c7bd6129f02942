import { Deadline } from "./deadline.ts";
import type { Door } from "./door.ts";
import type { PrimaryNode } from "./node-view.ts";
import type { Positions } from "./position-cookie.ts";
import { Refusal } from "./refusal.ts";
import { NOT_PRIMARY } from "./hop.ts";

/** Where a request is answered. */
export type Place =
  /** By this node's application; `reign` as it was decided. */
  | { readonly kind: "here"; readonly reign: number | undefined }
  /** By the primary's front door. */
  | { readonly kind: "primary"; readonly url: URL }
  /** By whom Fly.io's proxy asks next. */
  | { readonly kind: "fly"; readonly name: string };

/** What decides where a request goes. */
export interface Visit {
  /** Nothing but the primary may answer. Set by a write, a replay, and a read that waited in vain. */
  toPrimary: boolean;
  /** It holds back while a handoff is under way. */
  readonly isWrite: boolean;
  /** Another front door sent it: it is not sent on. */
  readonly isHop: boolean;
  readonly flyReplayed: boolean;
  /** What the client has seen and this node must contain. */
  positions: Positions;
  /** Databases whose position left the history. */
  readonly lost: Set<string>;
  /** Those whose position nobody here gave out; it would hide every later one. */
  readonly forged: Set<string>;
  /** When waiting for a primary ends, by performance.now(); set at the first wait. */
  deadline: number | undefined;
}

/** The place, where that is clear without waiting for anything. */
export function placeNow(door: Door, visit: Visit): Place | undefined {
  const { view, gate, config } = door;
  if (door.isStarting) visit.toPrimary = true;
  if (!visit.toPrimary) return visit.positions.size === 0 ? { kind: "here", reign: view.reign() } : undefined;
  const reign = view.reign();
  if (reign !== undefined && door.isStarting) return undefined;
  if (reign !== undefined) {
    if ((visit.isWrite && !gate.isOpen) || visit.positions.size > 0) return undefined;
    return { kind: "here", reign };
  }
  const primary = view.primary();
  if (primary === undefined) return undefined;
  if (visit.isHop) throw notPrimary();
  return elsewhere(config.forward === "fly-replay" && !visit.flyReplayed, primary);
}

/**
 * Waits until it is clear where the request goes: for the client's positions, for a primary, for the end of a handoff.
 * Throws {@link Refusal} when that takes too long; no application has seen the request then.
 */
export async function findPlace(door: Door, visit: Visit, signal: AbortSignal): Promise<Place> {
  for (;;) {
    const clear = placeNow(door, visit);
    if (clear) return clear;
    const isHeld = door.isStarting || (visit.isWrite && !door.gate.isOpen);
    if (!visit.toPrimary || (door.view.reign() !== undefined && !isHeld)) {
      const start = performance.now();
      const reached = await reach(door, visit, signal);
      door.waited("position", start);
      signal.throwIfAborted();
      if (reached) visit.positions = NOTHING;
      else if (visit.toPrimary && door.view.reign() !== undefined) throw tooFarBehind();
      else visit.toPrimary = true;
      continue;
    }
    await waitForPrimary(door, visit, signal);
  }
}

const NOTHING: Positions = new Map();

/** One wait for a change, within the visit's deadline. */
export async function waitForPrimary(
  door: Door,
  visit: Visit,
  signal: AbortSignal,
  longestMs = Infinity,
): Promise<void> {
  const start = performance.now();
  visit.deadline ??= start + door.config.primaryTimeoutMs;
  const left = visit.deadline - start;
  if (left <= 0) throw noPrimary(door.config.primaryTimeoutMs);
  await door.changes.wait(Math.min(left, longestMs), signal);
  door.waited("primary", start);
  if (door.closing.signal.aborted) throw new Refusal(503, "SLU-7013", "this node is stopping", { retryAfterS: 1 });
  signal.throwIfAborted();
}

/** Whether this node contains what the client has seen, now or within `read-timeout`. */
async function reach({ view, config, metrics }: Door, visit: Visit, signal: AbortSignal): Promise<boolean> {
  const limit = new Deadline(config.readTimeoutMs, signal);
  const waits = [...visit.positions].map(async ([db, position]) => {
    const applied = await view.waitApplied(db, position, limit.signal);
    if (applied === "lost") visit.lost.add(db);
    if (applied === "unknown") visit.forged.add(db);
  });
  try {
    await Promise.all(waits);
  } catch (error) {
    if (limit.signal.aborted) return false;
    throw error;
  } finally {
    limit.end();
  }
  if (visit.lost.size > 0) metrics.lost.inc();
  return true;
}

function elsewhere(byFly: boolean, { name, proxy }: PrimaryNode): Place | undefined {
  if (byFly) return { kind: "fly", name };
  return proxy && { kind: "primary", url: proxy };
}

function noPrimary(afterMs: number): Refusal {
  return new Refusal(503, "SLU-7002", `there was no primary for ${afterMs} ms`, { retryAfterS: 1 });
}

function notPrimary(): Refusal {
  return new Refusal(503, "SLU-7002", "this node is not the primary", { retryAfterS: 1, hop: NOT_PRIMARY });
}

function tooFarBehind(): Refusal {
  return new Refusal(503, "SLU-7011", "the primary hasn't reached the position that was asked for", { retryAfterS: 1 });
}

import { setTimeout as sleep } from "node:timers/promises";
import type { Durability } from "../config/config.ts";
import { Deadline } from "./deadline.ts";
import type { Door } from "./door.ts";
import type { DatabasePosition } from "./node-view.ts";
import { changed } from "./position-cookie.ts";
import { Refusal } from "./refusal.ts";

/** What an answer must wait for. */
export interface Release {
  readonly level: Durability;
  /** A write is released only while the node is the same primary as when it was sent to the application. */
  readonly reign: number | undefined;
  readonly isWrite: boolean;
}

/**
 * Waits until all of `positions`, and databases that were just made, are durable at the release's level, whoever
 * committed to them, and looks at the lease's deadline before it lets go. Throws a {@link Refusal}: an outcome is unknown
 * then, never denied.
 */
export async function confirm(
  door: Door,
  positions: readonly DatabasePosition[],
  release: Release,
  signal: AbortSignal,
): Promise<void> {
  const start = performance.now();
  await durable(door, release, { positions, known: positions }, signal);
  if (release.isWrite && door.view.reign() !== release.reign) await stillPrimary(door, release, start, signal);
}

interface Waited {
  readonly positions: readonly DatabasePosition[];
  /** Those and others; what else there is was made just now. */
  readonly known: readonly DatabasePosition[];
}

/** How many positions there were to wait for. */
async function durable(door: Door, release: Release, waited: Waited, signal: AbortSignal): Promise<number> {
  const { level, isWrite } = release;
  if (level === "local") return 0;
  const limit = new Deadline(door.config.durabilityTimeoutMs, signal, door.closing.signal);
  const start = performance.now();
  const wait = async (): Promise<number> => {
    const made = door.view.created(waited.known);
    const all = made === undefined ? waited.positions : [...waited.positions, ...(await within(made, limit.signal))];
    await Promise.all(all.map(({ db, position }) => door.view.waitDurable(db, position, level, limit.signal)));
    return all.length;
  };
  try {
    return await wait();
  } catch (error) {
    signal.throwIfAborted();
    throw unconfirmed(release, limit.signal.aborted ? undefined : error);
  } finally {
    limit.end();
    if (waited.positions.length > 0) door.waited(isWrite ? "durability" : "reads", start);
  }
}

const LOOK_MS = 5;

/**
 * The positions after a write: a database that it has made gets up to `read-timeout` to have one, so that its client sees
 * it on every node.
 */
export async function named(
  door: Door,
  positions: readonly DatabasePosition[],
  signal: AbortSignal,
): Promise<readonly DatabasePosition[]> {
  const made = door.view.created(positions);
  if (made === undefined && !isNew(door, positions)) return positions;
  const limit = new Deadline(door.config.readTimeoutMs, signal, door.closing.signal);
  try {
    const found = made !== undefined && (await within(made, limit.signal)).length > 0;
    if (!found && !isNew(door, positions)) return positions;
    for (;;) {
      const now = await door.view.positions();
      if (!isNew(door, now)) return now;
      await sleep(LOOK_MS, undefined, { signal: limit.signal });
    }
  } catch {
    signal.throwIfAborted();
    return door.view.positions();
  } finally {
    limit.end();
  }
}

/** Whether some of them have had no position for less than `read-timeout`; who takes longer holds nobody up. */
function isNew({ unnamed, config }: Door, positions: readonly DatabasePosition[]): boolean {
  const now = performance.now();
  let found = false;
  for (const { db, position } of positions) {
    if (position > 0n) {
      if (unnamed.size > 0) unnamed.delete(db);
      continue;
    }
    const since = unnamed.get(db) ?? now;
    unnamed.set(db, since);
    found ||= now - since < config.readTimeoutMs;
  }
  return found;
}

/** The promise's outcome, or the signal's reason, whichever comes first. */
async function within<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const late = Promise.withResolvers<never>();
  const abort = (): void => late.reject(signal.reason as Error);
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([promise, late.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

/** A lease that is late may be renewed yet; another reign never was this one. */
async function stillPrimary(door: Door, release: Release, start: number, signal: AbortSignal): Promise<void> {
  const deadline = start + door.config.durabilityTimeoutMs;
  for (;;) {
    const reign = door.view.reign();
    if (reign === release.reign) return;
    const left = deadline - performance.now();
    if (reign !== undefined || door.view.primary() !== undefined || left <= 0 || door.closing.signal.aborted)
      throw unconfirmed(release, new Error("this node is not the primary any longer"));
    await door.changes.wait(left, signal);
    signal.throwIfAborted();
  }
}

/** Waits for what was committed since `positions`, before an answer's last byte. */
export async function confirmRest(
  door: Door,
  before: readonly DatabasePosition[],
  atEnd: readonly DatabasePosition[],
  release: Release,
  signal: AbortSignal,
): Promise<void> {
  // All of it had come before its head went out.
  if (before === atEnd) return;
  const positions = [...changed(before, atEnd)].map(([db, position]) => ({ db, position }));
  const start = performance.now();
  const count = await durable(door, release, { positions, known: atEnd }, signal);
  if (count > 0 && release.isWrite && door.view.reign() !== release.reign)
    await stillPrimary(door, release, start, signal);
}

function unconfirmed({ level, isWrite }: Release, cause: unknown): Refusal {
  const why = cause instanceof Error ? cause.message : "the time for it is over";
  if (!isWrite) return new Refusal(503, "SLU-7011", `what was read is not durable yet: ${why}`, { retryAfterS: 1 });
  const what = `the application has answered; its commits are on this node and not confirmed at ${level}: ${why}`;
  return new Refusal(504, "SLU-7003", what, { unknown: true });
}

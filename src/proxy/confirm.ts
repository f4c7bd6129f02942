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
 * Waits until all of `positions` is durable at the release's level, whoever committed it, and looks at the lease's
 * deadline before it lets go. Throws a {@link Refusal}: an outcome is unknown then, never denied.
 */
export async function confirm(
  door: Door,
  positions: readonly DatabasePosition[],
  release: Release,
  signal: AbortSignal,
): Promise<void> {
  const { level } = release;
  const start = performance.now();
  if (level !== "local" && positions.length > 0) {
    const limit = new Deadline(door.config.durabilityTimeoutMs, signal, door.closing.signal);
    try {
      await Promise.all(positions.map(({ db, position }) => door.view.waitDurable(db, position, level, limit.signal)));
    } catch (error) {
      signal.throwIfAborted();
      throw unconfirmed(release, limit.signal.aborted ? undefined : error);
    } finally {
      limit.end();
      door.waited(release.isWrite ? "durability" : "reads", start);
    }
  }
  if (release.isWrite && door.view.reign() !== release.reign) await stillPrimary(door, release, start, signal);
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
  const more = [...changed(before, atEnd)].map(([db, position]) => ({ db, position }));
  if (more.length > 0) await confirm(door, more, release, signal);
}

function unconfirmed({ level, isWrite }: Release, cause: unknown): Refusal {
  const why = cause instanceof Error ? cause.message : "the time for it is over";
  if (!isWrite) return new Refusal(503, "SLU-7011", `what was read is not durable yet: ${why}`, { retryAfterS: 1 });
  const what = `the application has answered; its commits are on this node and not confirmed at ${level}: ${why}`;
  return new Refusal(504, "SLU-7003", what, { unknown: true });
}

import type { Database } from "../database/database.ts";
import type { Replica } from "../database/replica.ts";
import { SluiceError } from "../errors/error.ts";
import type { Clock } from "../log/clock.ts";
import type { LogContext } from "../log/context.ts";
import type { LogWriter } from "../log/log-writer.ts";
import { lastRecord } from "../log/place.ts";
import { NOTHING, type Position } from "../ltx/position.ts";
import type { MemberCandidate, MemberSource } from "./upstream.ts";

/** A record names at most so many. */
const MEMBERS_MAX = 3;
/** How long members may take to acknowledge before the log is asked, too. */
const PATIENCE_MS = 200;

/**
 * What is acknowledged at `replica` (protocol section 9): what every member has applied that the last confirmed record or
 * one under way names; only what is in the log (`stored`) where one of these names nobody.
 */
export function replicaDurable(
  named: readonly (readonly number[])[],
  candidates: readonly MemberCandidate[],
  stored: Position,
): Position {
  let least: Position | undefined;
  for (const members of named) {
    if (members.length === 0) return stored;
    for (const member of members) {
      const applied = candidates.find((candidate) => candidate.member === member)?.applied ?? NOTHING;
      if (least === undefined || applied < least) least = applied;
    }
  }
  return least === undefined || least < stored ? stored : least;
}

/** Whom the next record names: the candidates that are closest, without those that are behind by more than the limit. */
export function chooseMembers(candidates: readonly MemberCandidate[], lagMaxMs: number): number[] {
  return candidates
    .filter(({ applied, lagMs }) => applied !== undefined && lagMs <= lagMaxMs)
    .toSorted((a, b) => a.lagMs - b.lagMs || a.member - b.member)
    .slice(0, MEMBERS_MAX)
    .map(({ member }) => member)
    .toSorted((a, b) => a - b);
}

export interface WaitParts {
  readonly database: Database;
  readonly writer: LogWriter;
  readonly source: MemberSource;
  /** Of the database, in the cluster. */
  readonly name: string;
  readonly lagMaxMs: number;
  /** This time as primary has ended. */
  readonly isOver: () => boolean;
  /** Calls `listener` when `isOver` may have changed; returns how to stop. */
  readonly onOver: (listener: () => void) => () => void;
  readonly clock: Clock;
}

/**
 * Resolves when `position` is durable at `replica`. The first who waits makes the primary name members in its records;
 * until they are named, and when they don't answer in time, the log alone can tell. Rejects with SLU-4109 when this
 * time as primary ends, with the reason of `signal`.
 */
export async function waitReplica(parts: WaitParts, position: Position, signal: AbortSignal): Promise<void> {
  const { database, writer, source, name, lagMaxMs, isOver, onOver, clock } = parts;
  database.nameMembers(chooseMembers(source.candidates(name), lagMaxMs));
  const done = Promise.withResolvers<void>();
  const look = (): void => {
    if (isOver()) return done.reject(new SluiceError("SLU-4109", `${database.path}: not the primary's any more`));
    const stored = database.logState?.confirmed.position ?? NOTHING;
    if (replicaDurable(database.namedMembers, source.candidates(name), stored) >= position) done.resolve();
  };
  const viaLog = (): void => void writer.waitFor(position, signal).then(done.resolve, done.reject);
  const isNamed = database.namedMembers.every(({ length }) => length > 0);
  const stops = [clock.schedule(isNamed ? PATIENCE_MS : 0, viaLog), source.onAcknowledged(look), onOver(look)];
  look();
  try {
    await done.promise;
  } finally {
    for (const stop of stops) stop();
  }
}

/**
 * Takeover, step 3 (protocol section 7): where the last record names members, one of them goes first, or who wrote it in
 * the same boot of its machine. Throws SLU-8109.
 */
export async function assertEligible(
  context: LogContext,
  replica: Replica,
  options: { readonly upstream: MemberSource; readonly isForced: () => boolean },
  signal: AbortSignal,
): Promise<void> {
  const txid = replica.record?.txid ?? 0;
  const last = txid === 0 ? undefined : await lastRecord(context, txid, signal);
  if (last === undefined || last.members.length === 0 || options.isForced()) return;
  if (replica.wrote(last.writer) || last.members.some((member) => options.upstream.isOwnMember(member))) return;
  throw new SluiceError("SLU-8109", `${replica.path}: ${last.members.length} members of its last record go first`);
}

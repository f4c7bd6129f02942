import { NOTHING, type Position } from "../../ltx/position.ts";

/** What one replica has of one database. */
export interface Acknowledged {
  readonly position: Position;
  /** The last record that it has placed. */
  readonly txid: number;
}

interface Mark {
  readonly position: Position;
  readonly atMs: number;
}

/** A mark at most this often, and at most this many: so far back a lag is known. */
const MARK_EVERY_MS = 5;
const MARKS_MAX = 512;

/** Times at which positions were captured: how old is the first that somebody has not got? */
class Clock {
  readonly #marks: Mark[] = [];

  note(position: Position, nowMs: number): void {
    const last = this.#marks.at(-1);
    if (last !== undefined && (position <= last.position || nowMs - last.atMs < MARK_EVERY_MS)) return;
    this.#marks.push({ position, atMs: nowMs });
    // Every second one goes: far back, times need not be exact.
    if (this.#marks.length > MARKS_MAX) {
      const kept = this.#marks.filter((_mark, i) => i % 2 === 0 || i > MARKS_MAX / 2);
      this.#marks.splice(0, this.#marks.length, ...kept);
    }
  }

  /** Everybody has what is up to `position`; there are commits up to `newest`. */
  forget(position: Position, newest: Position, nowMs: number): void {
    const marks = this.#marks;
    let count = 0;
    while (count < marks.length && marks[count]!.position <= position) count++;
    // The last one also stands for commits right behind it.
    if (position < newest && count === marks.length) count--;
    if (count > 0) marks.splice(0, count);
    if (position < newest && marks.length === 0) marks.push({ position: newest, atMs: nowMs });
  }

  /** When the first commit after `position` was captured, as far as is known. */
  after(position: Position): number | undefined {
    let low = 0;
    let high = this.#marks.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#marks[middle]!.position <= position) low = middle + 1;
      else high = middle;
    }
    return (this.#marks[low] ?? this.#marks.at(-1))?.atMs;
  }
}

function least(all: Iterable<Acknowledged>): Position {
  let least: Position | undefined;
  for (const { position } of all) if (least === undefined || position < least) least = position;
  return least ?? NOTHING;
}

/**
 * Which connected replica has applied what: per database, by the life of the replica (protocol section 9). For
 * `replica` durability, status and lag. What a life acknowledged is forgotten when its connection ends.
 */
export class AckTable {
  readonly #databases = new Map<string, { newest: Position; clock: Clock; lives: Map<bigint, Acknowledged> }>();
  readonly #listeners = new Set<(name: string) => void>();
  readonly #now: () => number;

  /** `now`: monotonic milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** The primary has captured up to `position`. */
  captured(name: string, position: Position): void {
    const database = this.#of(name);
    if (position > database.newest) database.newest = position;
    if (database.lives.size > 0) database.clock.note(position, this.#now());
  }

  applied(name: string, life: bigint, acknowledged: Acknowledged): void {
    const { lives, clock, newest } = this.#of(name);
    lives.set(life, acknowledged);
    clock.forget(least(lives.values()), newest, this.#now());
    for (const listener of this.#listeners) listener(name);
  }

  /** A life's connection has ended, or it has left a database. */
  forget(life: bigint, name?: string): void {
    for (const [database, { lives }] of this.#databases) {
      if ((name === undefined || name === database) && lives.delete(life)) {
        for (const listener of this.#listeners) listener(database);
      }
    }
  }

  /** The database is no longer published. */
  drop(name: string): void {
    this.#databases.delete(name);
  }

  get(name: string, life: bigint): Acknowledged | undefined {
    return this.#databases.get(name)?.lives.get(life);
  }

  /** Every life that follows a database, with what it has. */
  of(name: string): ReadonlyMap<bigint, Acknowledged> {
    return this.#databases.get(name)?.lives ?? new Map<bigint, Acknowledged>();
  }

  /** The highest position of a database that at least `count` lives have applied. */
  reached(name: string, count = 1): Position {
    const positions = [...this.of(name).values()].map(({ position }) => position).sort((a, b) => (a < b ? 1 : -1));
    return positions[count - 1] ?? NOTHING;
  }

  /** For how long the oldest commit that a life has not applied has been there; 0 when it has all of them. */
  lagMs(name: string, life: bigint): number {
    const database = this.#databases.get(name);
    const position = database?.lives.get(life)?.position;
    if (database === undefined || position === undefined) return Number.POSITIVE_INFINITY;
    if (position >= database.newest) return 0;
    const sinceMs = database.clock.after(position);
    return sinceMs === undefined ? 0 : Math.max(0, this.#now() - sinceMs);
  }

  /** Calls `listener` with a database's name after each acknowledgement and each loss of one; returns how to stop. */
  onChanged(listener: (name: string) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  #of(name: string): { newest: Position; clock: Clock; lives: Map<bigint, Acknowledged> } {
    let database = this.#databases.get(name);
    if (database === undefined) {
      database = { newest: NOTHING, clock: new Clock(), lives: new Map() };
      this.#databases.set(name, database);
    }
    return database;
  }
}

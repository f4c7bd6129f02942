import { formatPosition, type Position } from "../ltx/position.ts";
import type { DatabasePosition } from "./node-view.ts";

/** Of cookie and header. */
export const POSITION = "Sluice-Position";
/** More databases than one client writes to; the oldest go first. */
const DATABASES_MAX = 24;
const BYTES_MAX = 2048;
const ITEM = /^([\w.!~*'()%-]{1,300}):([0-9a-f]{16})$/;

/** Positions by database; what was written last stands last. */
export type Positions = ReadonlyMap<string, Position>;

const NONE: Positions = new Map();

/** `NAME:POSITION`, several joined by "+"; what can't be read is left out. */
export function parsePositions(text: string): Positions {
  if (text.length > BYTES_MAX) return NONE;
  const found = new Map<string, Position>();
  for (const item of text.split("+")) {
    const [, name, hex] = ITEM.exec(item) ?? [];
    const db = name && decode(name);
    if (db && found.size < DATABASES_MAX) found.set(db, BigInt(`0x${hex}`));
  }
  return found;
}

function decode(name: string): string | undefined {
  try {
    return decodeURIComponent(name);
  } catch {
    return undefined;
  }
}

/** The same, within what a cookie holds: of too many, the last. Empty for none. */
export function formatPositions(positions: Positions): string {
  const items: string[] = [];
  let bytes = 0;
  for (const [db, position] of [...positions].toReversed()) {
    const item = `${encodeURIComponent(db)}:${formatPosition(position)}`;
    bytes += item.length + 1;
    if (items.length === DATABASES_MAX || bytes > BYTES_MAX) break;
    items.push(item);
  }
  return items.toReversed().join("+");
}

/** What a client has seen: the cookie and the header, of each database the higher. */
export function positionsOf(cookie: string | undefined, header: string | undefined): Positions {
  // Most requests have neither.
  const found =
    cookie !== undefined && cookie.includes(POSITION) ? /(?:^|;)\s*Sluice-Position="?([^;"]*)/.exec(cookie) : null;
  if (found === null && header === undefined) return NONE;
  const fromCookie = found ? parsePositions(found[1]!) : NONE;
  return header === undefined ? fromCookie : merge(fromCookie, parsePositions(header));
}

/** Of each database the higher; what `later` raises moves to the end. */
export function merge(earlier: Positions, later: Positions): Positions {
  if (earlier.size === 0) return later;
  const merged = new Map(earlier);
  for (const [db, position] of later) {
    const before = merged.get(db);
    if (before !== undefined && before >= position) continue;
    merged.delete(db);
    merged.set(db, position);
  }
  return merged;
}

/** The databases whose position is another one than before, or isn't known yet (0). */
export function changed(before: readonly DatabasePosition[], after: readonly DatabasePosition[]): Positions {
  // Nearly always the same databases in the same order.
  let found: Map<string, Position> | undefined;
  for (let i = 0; i < after.length; i++) {
    const { db, position } = after[i]!;
    const at = before[i];
    const was = at?.db === db ? at.position : before.find((each) => each.db === db)?.position;
    if (was !== position || position === 0n) (found ??= new Map()).set(db, position);
  }
  return found ?? NONE;
}

/** The value of `Set-Cookie`; an empty text ends the cookie. */
export function setCookie(text: string, secure: boolean): string {
  const life = text === "" ? "; Max-Age=0" : "";
  return `${POSITION}=${text}; Path=/; HttpOnly; SameSite=Lax${secure ? "; Secure" : ""}${life}`;
}

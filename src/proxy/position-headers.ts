import type { Incoming } from "./incoming.ts";
import { valueOf } from "./headers.ts";
import type { DatabasePosition } from "./node-view.ts";
import type { Visit } from "./place.ts";
import { changed, formatPositions, merge, POSITION, type Positions, setCookie } from "./position-cookie.ts";

/** Of so many databases a write that changed none names all: it may repeat one whose answer was lost. */
const ALL_MAX = 8;

export interface Seen {
  readonly incoming: Incoming;
  /** Positions when the application was asked, and now. */
  readonly before: readonly DatabasePosition[];
  readonly after: readonly DatabasePosition[];
  /** Only a primary's application can have committed. */
  readonly reign: number | undefined;
  readonly ryw: boolean;
}

/** Adds cookie and header with the positions that the client has seen now, where there is something new to say. */
export function positionHeaders(headers: string[], { incoming, before, after, reign, ryw }: Seen): void {
  const { seen, visit, origin, mode } = incoming;
  if (visit.lost.size > 0) headers.push("Sluice-Position-Lost", "1");
  if (!ryw) return;
  const news = reign === undefined ? NOTHING : newsOf(mode === "write", before, after);
  if (news.size === 0 && visit.lost.size === 0 && visit.forged.size === 0) return;
  // A shared cache would give one client's position to all.
  if (mode !== "write" && /(?:^|,)\s*(?:public|s-maxage)\b/i.test(valueOf(headers, "cache-control") ?? "")) return;
  const text = formatPositions(merge(without(seen, visit), news));
  if (text !== "") headers.push(POSITION, text);
  if (text !== "" || seen.size > 0) headers.push("Set-Cookie", setCookie(text, origin.proto === "https"));
}

const NOTHING: Positions = new Map();

function newsOf(isWrite: boolean, before: readonly DatabasePosition[], after: readonly DatabasePosition[]): Positions {
  const known = after.filter(({ position }) => position > 0n);
  const news = changed(before, known);
  if (news.size > 0 || !isWrite || known.length > ALL_MAX) return news;
  return new Map(known.map(({ db, position }) => [db, position]));
}

function without(positions: Positions, { lost, forged }: Visit): Positions {
  if (lost.size === 0 && forged.size === 0) return positions;
  return new Map([...positions].filter(([db]) => !lost.has(db) && !forged.has(db)));
}

import type { Durability, RouteConfig } from "../config/config.ts";

export type Mode = "pass" | "read" | "write";

/** What is to be done with a request. */
export interface Routed {
  readonly mode: Mode;
  /** What the route says about durability, for reads, too. */
  readonly durability: Durability | undefined;
}

const LEVELS: readonly Durability[] = ["local", "replica", "store"];

/** Finds the first route that fits a request. */
export class Routes {
  readonly #routes: readonly { readonly fits: (path: string) => boolean; readonly route: RouteConfig }[];

  constructor(routes: readonly RouteConfig[]) {
    this.#routes = routes.map((route) => ({ fits: glob(route.path), route }));
  }

  /** By `target` (origin-form) and `method`. GET, HEAD and OPTIONS read; a route's mode goes before that. */
  of(method: string, target: string): Routed {
    const byMethod: Mode = method === "GET" || method === "HEAD" || method === "OPTIONS" ? "read" : "write";
    if (this.#routes.length > 0) {
      const path = matchedPath(target);
      for (const { fits, route } of this.#routes)
        if (fits(path)) return { mode: route.mode ?? byMethod, durability: route.durability };
    }
    return byMethod === "read" ? READ : WRITE;
  }
}

const READ: Routed = { mode: "read", durability: undefined };
const WRITE: Routed = { mode: "write", durability: undefined };

/**
 * The path as applications understand it: without the query, percent-decoded once, without empty, "." and ".."
 * segments, so that "/static/../pay" is no static file.
 */
export function matchedPath(target: string): string {
  const end = target.search(/[?#]/);
  const raw = end === -1 ? target : target.slice(0, end);
  if (!/%|\/\.|\/\//.test(raw)) return raw;
  const segments: string[] = [];
  const parts = decode(raw).split("/");
  for (const part of parts)
    if (part === "..") segments.pop();
    else if (part !== "" && part !== ".") segments.push(part);
  const slash = segments.length > 0 && /^(?:|\.|\.\.)$/.test(parts.at(-1)!) ? "/" : "";
  return `/${segments.join("/")}${slash}`;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text.replaceAll(/%([0-7][0-9a-f])/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  }
}

/** `*` stands for any text. Two pointers instead of a regular expression: no pattern takes exponential time. */
function glob(pattern: string): (path: string) => boolean {
  return (path) => {
    let [p, i, star, mark] = [0, 0, -1, 0];
    while (i < path.length) {
      if (pattern[p] === "*") [star, mark] = [p++, i];
      else if (pattern[p] === path[i]) [p, i] = [p + 1, i + 1];
      else if (star === -1) return false;
      else [p, i] = [star + 1, ++mark];
    }
    while (pattern[p] === "*") p++;
    return p === pattern.length;
  };
}

/** The higher of two levels. */
export function higher(a: Durability, b: Durability): Durability {
  return LEVELS.indexOf(a) >= LEVELS.indexOf(b) ? a : b;
}

/** A level by its name; undefined for any other text. */
export function parseDurability(text: string | undefined): Durability | undefined {
  return LEVELS.find((level) => level === text);
}

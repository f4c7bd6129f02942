import type { IncomingMessage } from "node:http";
import type { Durability, ProxyConfig } from "../config/config.ts";
import type { Door } from "./door.ts";
import { type Origin, originOf, valueOf } from "./headers.ts";
import type { Hop } from "./hop.ts";
import type { Visit } from "./place.ts";
import { type Positions, positionsOf } from "./position-cookie.ts";
import { readHead, type RequestHead } from "./request-head.ts";
import { Refusal } from "./refusal.ts";
import { higher, type Mode, parseDurability, type Routed } from "./route.ts";
import { plainAddress } from "./trusted.ts";

/** A request that was read, checked and routed. */
export interface Incoming {
  readonly head: RequestHead;
  readonly origin: Origin;
  /** What the first front door said, when this is the second. */
  readonly hop: Hop | undefined;
  readonly mode: Mode;
  /** Durability that its answer waits for. */
  readonly level: Durability;
  /** What the client has seen, as it says. */
  readonly seen: Positions;
  readonly visit: Visit;
}

/** Reads a request's head. Throws {@link Refusal}. */
export function readIncoming(door: Door, request: IncomingMessage): Incoming {
  const { config, routes, signer } = door;
  const address = plainAddress(request.socket.remoteAddress);
  // A front door passes on what a trusted proxy told the first one; so the signature is looked at first.
  const signed = valueOf(request.rawHeaders, "sluice-hop");
  const head = readHead(request, signed !== undefined || door.trusted.has(address));
  const hop = signed === undefined ? undefined : signer.verify(signed, head.method, head.target);
  if (signed !== undefined && hop === undefined)
    throw new Refusal(403, "SLU-7007", "the signature of a forwarded request is wrong", { close: true });
  const length = head.contentLength ?? 0;
  if (length > config.bodyBytesMax) throw new Refusal(413, "SLU-7008", `the body has ${length} bytes`);
  const routed = routes.of(head.method, head.target);
  const mode = hop?.mode ?? routed.mode;
  const seen = config.readYourWrites && mode !== "pass" ? positionsOf(head.cookie, head.position) : NOTHING;
  return {
    head,
    origin: originOf(head, address, hop),
    hop,
    mode,
    level: levelOf(config, mode, routed, head.durability),
    seen,
    visit: {
      toPrimary: mode === "write" || hop !== undefined,
      isWrite: mode === "write",
      isHop: hop !== undefined,
      flyReplayed: head.flyReplayed,
      positions: seen,
      lost: new Set(),
      forged: new Set(),
      deadline: undefined,
    },
  };
}

const NOTHING: Positions = new Map();

/** The same request, which the application wants to have on the primary. */
export function asWrite(door: Door, incoming: Incoming): Incoming {
  const { head, visit } = incoming;
  const routed = door.routes.of(head.method, head.target);
  return {
    ...incoming,
    mode: "write",
    level: levelOf(door.config, "write", routed, head.durability),
    visit: { ...visit, toPrimary: true, isWrite: true },
  };
}

/** What an answer waits for: the route's level or the default, raised by the request. Reads wait only if they are told to. */
function levelOf(config: ProxyConfig, mode: Mode, routed: Routed, asked: string | undefined): Durability {
  if (mode === "pass") return "local";
  const level = routed.durability ?? (mode === "write" ? config.durability : "local");
  const wish = parseDurability(asked);
  if (asked !== undefined && wish === undefined)
    throw new Refusal(400, "SLU-7006", `there is no durability "${asked.slice(0, 40)}"`);
  const raised = wish === undefined ? level : higher(level, wish);
  if (mode === "write" || !config.holdReads) return raised;
  return higher(raised, config.durability === "local" ? "replica" : config.durability);
}

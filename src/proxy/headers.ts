import { isIP } from "node:net";
import type { Hop } from "./hop.ts";
import type { RequestHead } from "./request-head.ts";

/** Where a request comes from, in the front door's own words. */
export interface Origin {
  /** The client's address after those that trusted proxies named, as in `X-Forwarded-For`. */
  readonly client: string;
  readonly proto: "http" | "https";
  /** The host that the client asked for. */
  readonly host: string;
}

/** By the connection's address, what trusted proxies said, or the first front door. */
export function originOf(head: RequestHead, address: string, hop: Hop | undefined): Origin {
  if (hop !== undefined) return hop;
  const { forwardedFor, forwardedProto, forwardedHost, host } = head;
  const chain = forwardedFor === undefined ? [] : forwardedFor.split(",").map((each) => cleanAddress(each.trim()));
  return {
    client: [...chain, address].join(", "),
    proto: forwardedProto !== undefined && /^\s*https\s*(?:,|$)/i.test(forwardedProto) ? "https" : "http",
    host: forwardedHost?.split(",")[0]!.trim() ?? host,
  };
}

/** An address, with or without a port; anything else is "unknown". */
function cleanAddress(text: string): string {
  if (isIP(text) > 0) return text;
  const inner = /^(?:\[([^\]]+)\](?::\d+)?|([\d.]+):\d+)$/.exec(text);
  const address = inner?.[1] ?? inner?.[2] ?? "";
  return isIP(address) > 0 ? address : "unknown";
}

/** The headers for the application; `expects`: the body waits until it is wanted; `closes`: one request a connection. */
export function toApplication(head: RequestHead, origin: Origin, expects: boolean, closes: boolean): string[] {
  const headers = framed(head, closes);
  const { client, proto, host } = origin;
  headers.push("X-Forwarded-For", client, "X-Forwarded-Proto", proto);
  if (host !== "") headers.push("X-Forwarded-Host", host);
  headers.push("Forwarded", forwarded(origin));
  if (expects) headers.push("Expect", "100-continue");
  return headers;
}

/** The headers for the primary's front door; `expects`: the body waits until it is wanted. */
export function toPrimary(head: RequestHead, signed: string, expects: boolean): string[] {
  const headers = framed(head, false);
  headers.push("Sluice-Hop", signed);
  if (head.position !== undefined) headers.push("Sluice-Position", head.position);
  if (head.durability !== undefined) headers.push("Sluice-Durability", head.durability);
  if (expects) headers.push("Expect", "100-continue");
  return headers;
}

/** What both get: the client's headers, and how the body is delimited. */
function framed(head: RequestHead, closes: boolean): string[] {
  const { method, passed, host, contentLength, chunked, trailers, upgrade } = head;
  const headers = ["Host", host === "" ? "localhost" : host, ...passed];
  if (chunked) headers.push("Transfer-Encoding", "chunked");
  else if (contentLength !== undefined) headers.push("Content-Length", String(contentLength));
  else if (method !== "GET" && method !== "HEAD" && method !== "OPTIONS") headers.push("Content-Length", "0");
  const options = [upgrade !== undefined && "Upgrade", trailers && "TE", closes && "close"].filter(Boolean);
  if (trailers) headers.push("TE", "trailers");
  if (upgrade !== undefined) headers.push("Upgrade", upgrade);
  if (options.length > 0) headers.push("Connection", options.join(", "));
  return headers;
}

/** RFC 7239. */
function forwarded({ client, proto, host }: Origin): string {
  const nodes = client.split(", ").map((each) => `for=${each.includes(":") ? `"[${each}]"` : each}`);
  const quoted = /^[\w.-]+$/.test(host) ? host : `"${host.replaceAll(/["\\]/g, "")}"`;
  nodes.push(`${nodes.pop()}${host === "" ? "" : `;host=${quoted}`};proto=${proto}`);
  return nodes.join(", ");
}

const RESPONSE_HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "transfer-encoding",
  "upgrade",
  "te",
]);

/** An answer's end-to-end headers; `own`: from a front door, whose `Sluice-*` are true. */
export function fromAnswer(raw: readonly string[], own: boolean): string[] {
  const kept: string[] = [];
  let named: string[] | undefined;
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i]!.toLowerCase();
    if (name === "connection" && !/^(?:close|keep-alive|upgrade)$/i.test(raw[i + 1]!))
      named = raw[i + 1]!.toLowerCase()
        .split(",")
        .map((each) => each.trim());
    if (RESPONSE_HOP_BY_HOP.has(name) || (name.startsWith("sluice-") && !own) || name === "sluice-hop") continue;
    kept.push(raw[i]!, raw[i + 1]!);
  }
  if (named === undefined) return kept;
  const rest: string[] = [];
  for (let i = 0; i < kept.length; i += 2) {
    const name = kept[i]!.toLowerCase();
    if (name === "content-length" || !named.includes(name)) rest.push(kept[i]!, kept[i + 1]!);
  }
  return rest;
}

/** A header's first value in a flat list; `name` in lower case. */
export function valueOf(raw: readonly string[], name: string): string | undefined {
  for (let i = 0; i < raw.length; i += 2)
    if (raw[i]!.length === name.length && raw[i]!.toLowerCase() === name) return raw[i + 1];
  return undefined;
}

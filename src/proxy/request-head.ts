import type { IncomingMessage } from "node:http";
import { Refusal } from "./refusal.ts";

/**
 * What the front door reads from a request's head. `passed` are the end-to-end headers, as the client wrote them, flat
 * (name, value, name, value …): without those of one connection, without `Sluice-*`, and without what a client may
 * not say about where it comes from.
 */
export interface RequestHead {
  readonly method: string;
  /** In origin-form: "/path?query", or "*". */
  readonly target: string;
  readonly host: string;
  readonly passed: readonly string[];
  readonly contentLength: number | undefined;
  readonly chunked: boolean;
  /** The client waits for `100 Continue` before it sends its body. */
  readonly expects: boolean;
  /** The client takes trailers. */
  readonly trailers: boolean;
  /** The client wants a WebSocket. Wishes for other protocols are not passed on: `h2c` would go past every rule here. */
  readonly upgrade: "websocket" | undefined;
  readonly cookie: string | undefined;
  readonly position: string | undefined;
  readonly durability: string | undefined;
  readonly hop: string | undefined;
  /** Fly.io's proxy has replayed this request once. */
  readonly flyReplayed: boolean;
  /** What a trusted proxy said. */
  readonly forwardedFor: string | undefined;
  readonly forwardedProto: string | undefined;
  readonly forwardedHost: string | undefined;
}

/** RFC 9110 section 7.6.1, with the older names. */
const HOP_BY_HOP = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "proxy-authorization",
  "transfer-encoding",
  "upgrade",
  "te",
  "http2-settings",
]);
/** `Connection` may not take these away from a request. */
const ALWAYS_PASSED = new Set(["host", "content-length", "cookie", "authorization"]);

/**
 * Reads and checks a request's head; `trusted`: it comes from a proxy whose `X-Forwarded-*` counts. What Node.js's
 * parser refuses (two lengths, length and chunks, folded headers, bare LF) never gets here; what it lets through
 * and could be understood in two ways is refused here. Throws {@link Refusal}.
 */
export function readHead(request: IncomingMessage, trusted: boolean): RequestHead {
  const { rawHeaders, httpVersion } = request;
  const method = request.method!;
  if (httpVersion !== "1.1" && httpVersion !== "1.0") throw malformed(505, `HTTP/${httpVersion}`);
  if (method === "CONNECT" || method === "TRACE") throw malformed(405, `the method ${method}`);
  const passed: string[] = [];
  let hosts = 0;
  let named: Set<string> | undefined;
  const found: Record<string, string | undefined> = {};
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const raw = rawHeaders[i]!;
    const value = rawHeaders[i + 1]!;
    let name = raw.toLowerCase();
    switch (name) {
      case "host":
        hosts++;
        found["host"] = value;
        continue;
      case "content-length":
      case "expect":
        found[name] = value;
        continue;
      case "cookie":
        found["cookie"] = found["cookie"] === undefined ? value : `${found["cookie"]}; ${value}`;
        break;
      case "connection":
        for (const token of value.toLowerCase().split(",")) {
          const text = token.trim();
          if (text !== "close" && text !== "keep-alive" && text !== "" && !ALWAYS_PASSED.has(text))
            (named ??= new Set()).add(text);
        }
        continue;
      case "fly-replay-src":
        found[name] = value;
        break;
    }
    if (HOP_BY_HOP.has(name)) {
      found[name] = found[name] === undefined ? value : `${found[name]}, ${value}`;
      continue;
    }
    // CGI's rules make one name of X_Forwarded_For and X-Forwarded-For.
    if (name.includes("_")) name = name.replaceAll("_", "-");
    if (name.startsWith("sluice-") || name.startsWith("x-forwarded-") || name === "forwarded" || name === "x-real-ip") {
      if (name.length !== raw.length || raw.includes("_")) continue;
      if (name.startsWith("sluice-")) found[name] ??= value;
      else if (trusted) {
        found[name] = found[name] === undefined ? value : `${found[name]}, ${value}`;
        if (
          name !== "x-forwarded-for" &&
          name !== "x-forwarded-proto" &&
          name !== "x-forwarded-host" &&
          name !== "forwarded"
        )
          passed.push(raw, value);
      }
      continue;
    }
    passed.push(raw, value);
  }
  const encoding = found["transfer-encoding"]?.trim().toLowerCase();
  if (encoding !== undefined && encoding !== "chunked") throw malformed(501, `the transfer encoding ${encoding}`);
  if (encoding !== undefined && httpVersion === "1.0") throw malformed(400, "a transfer encoding in HTTP/1.0");
  if (hosts > 1) throw malformed(400, "two Host headers");
  const expect = found["expect"]?.toLowerCase();
  if (expect !== undefined && expect !== "100-continue") throw malformed(417, `the expectation ${expect}`);
  const { target, host } = originForm(request.url!, found["host"] ?? "");
  const length = found["content-length"];
  return {
    method,
    target,
    host,
    passed: named === undefined ? passed : without(passed, named),
    contentLength: length === undefined ? undefined : Number(length),
    chunked: encoding !== undefined,
    expects: expect !== undefined,
    trailers: /(?:^|,)\s*trailers\b/i.test(found["te"] ?? ""),
    upgrade: named?.has("upgrade") && found["upgrade"]?.toLowerCase() === "websocket" ? "websocket" : undefined,
    cookie: found["cookie"],
    position: found["sluice-position"],
    durability: found["sluice-durability"],
    hop: found["sluice-hop"],
    flyReplayed: found["fly-replay-src"] !== undefined,
    forwardedFor: found["x-forwarded-for"],
    forwardedProto: found["x-forwarded-proto"],
    forwardedHost: found["x-forwarded-host"],
  };
}

function without(headers: readonly string[], named: ReadonlySet<string>): string[] {
  const kept: string[] = [];
  for (let i = 0; i < headers.length; i += 2)
    if (!named.has(headers[i]!.toLowerCase())) kept.push(headers[i]!, headers[i + 1]!);
  return kept;
}

/** The absolute form names its own host, which counts (RFC 9112 section 3.2.2). */
function originForm(url: string, host: string): { readonly target: string; readonly host: string } {
  if (url.startsWith("/")) {
    if (url.includes("#")) throw malformed(400, "a fragment in the target");
    return { target: url, host };
  }
  if (url === "*") return { target: url, host };
  const match = /^https?:\/\/([^/?#@]+)(\/[^#]*|\?[^#]*)?$/i.exec(url);
  if (!match) throw malformed(400, "the request's target");
  const rest = match[2] ?? "/";
  return { target: rest.startsWith("/") ? rest : `/${rest}`, host: match[1]! };
}

function malformed(status: number, what: string): Refusal {
  return new Refusal(status, "SLU-7006", `can't be passed on: ${what}`, { close: true });
}

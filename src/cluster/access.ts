import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { isLoopback } from "../config/resolve.ts";

/** Whether a request carries the secret as its bearer token. Takes as long for a wrong one, however long it is. */
export function hasSecret(request: IncomingMessage, secret: string | undefined): boolean {
  const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? "")?.[1] ?? "";
  return secret !== undefined && timingSafeEqual(digest(given), digest(secret));
}

/**
 * Whether a request without a secret may be a program's on this machine, and not a web page's in a browser on it: pages
 * reach the loopback, too. A browser says `Origin` (on each WebSocket, on each POST to elsewhere) or `Sec-Fetch-Site`; a
 * page whose own name has come to mean 127.0.0.1 says that name as `Host`, and names that others can own have a dot.
 */
export function isOwnProgram({ headers }: IncomingMessage): boolean {
  const { origin, host = "" } = headers;
  const site = headers["sec-fetch-site"] ?? "none";
  if (origin !== undefined || site !== "none") return false;
  const name = host.replace(/:\d*$/, "").replace(/^\[(.*)\]$/, "$1");
  return isIP(name) > 0 ? isLoopback(name) : !name.includes(".") || name.endsWith(".localhost");
}

/** Equal lengths for the comparison in constant time. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

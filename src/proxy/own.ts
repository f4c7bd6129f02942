import type { IncomingMessage } from "node:http";
import type { Door } from "./door.ts";

/** Paths below this are the front door's own. */
const PREFIX = "/.sluice/";

export interface OwnAnswer {
  readonly status: number;
  readonly body: string;
}

/**
 * `GET /.sluice/health`: 200 when this node can serve, 503 with the reason. `GET /.sluice/ready`: the same, and there
 * is somewhere for writes to go. Undefined for every other path.
 */
export function ownAnswer(door: Door, request: IncomingMessage): OwnAnswer | undefined {
  const url = request.url!;
  if (!url.startsWith(PREFIX)) return undefined;
  const path = url.split("?", 1)[0]!.slice(PREFIX.length);
  const isRead = request.method === "GET" || request.method === "HEAD";
  if (!isRead || (path !== "health" && path !== "ready")) return json(404, { error: "there is no such page" });
  const reason = whyUnhealthy(door) ?? (path === "ready" ? whyUnready(door) : undefined);
  if (reason !== undefined) return json(503, { ok: false, reason });
  const role = door.view.reign() === undefined ? "replica" : "primary";
  return json(200, { ok: true, role, lagMs: door.view.lagMs() ?? null });
}

function whyUnhealthy({ isStarting, isDraining, view, config }: Door): string | undefined {
  if (isStarting) return "this node is starting";
  if (isDraining) return "this node is stopping";
  const trouble = view.trouble();
  if (trouble !== undefined) return trouble;
  const { maxLagMs } = config;
  if (maxLagMs === 0 || view.reign() !== undefined) return undefined;
  const lag = view.lagMs();
  if (lag === undefined) return "it is not known how far this replica is behind";
  return lag > maxLagMs ? `this replica is ${Math.round(lag)} ms behind, more than ${maxLagMs} ms` : undefined;
}

function whyUnready({ view }: Door): string | undefined {
  return view.reign() === undefined && view.primary()?.proxy === undefined ? "there is no primary" : undefined;
}

function json(status: number, value: unknown): OwnAnswer {
  return { status, body: `${JSON.stringify(value)}\n` };
}

import { untilAnswered, type LogContext } from "./context.ts";
import { formatTxid, type LogLayout } from "./layout.ts";
import type { LogFile } from "./listing.ts";
import { Reachable } from "./plan.ts";

/** After this, by the store's clock, nobody is waited for any more. */
const KEPT_MS = 30 * 24 * 60 * 60_000;

/** `<txid>-<name>`: a node's quarantine entry, whose name is unique. */
const NAME = /^([0-9a-f]{16})-[^/]+$/;

/**
 * States of a log that some node's quarantine builds on (protocol section 9): a small object each, `kept/<txid>-<entry>`,
 * so that who runs retention knows of the quarantines of nodes that it never meets.
 */
function keyOf(layout: LogLayout, txid: number, entry: string): string {
  return `${layout.keptPrefix}${formatTxid(txid)}-${entry}`;
}

/** Asks whoever runs retention to keep the state after slot `txid`, for 30 days; again is the same. Tried until `signal`. */
export async function keepState(context: LogContext, txid: number, entry: string, signal: AbortSignal): Promise<void> {
  const body = Buffer.from(`${JSON.stringify({ txid, entry })}\n`);
  const key = keyOf(context.layout, txid, entry);
  await untilAnswered(context, `write ${key}`, signal, () =>
    context.store.put(key, body, { condition: "absent", signal }),
  );
}

/** The entry is gone: what it builds on is kept for it no longer. Rejects as the store's `delete` does. */
export async function releaseState(context: LogContext, txid: number, entry: string): Promise<void> {
  await context.store.delete([keyOf(context.layout, txid, entry)]);
}

/** The states that are to be kept. Rejects as the store's `list` does. */
export async function keptStates(context: LogContext, signal: AbortSignal): Promise<number[]> {
  const { keptPrefix } = context.layout;
  const txids = new Set<number>();
  for await (const { key, modifiedMs } of context.store.list(keptPrefix, { signal })) {
    const name = NAME.exec(key.slice(keptPrefix.length));
    const txid = Number.parseInt(name?.[1] ?? "", 16);
    if (Number.isSafeInteger(txid) && context.clock.now() - modifiedMs < KEPT_MS) txids.add(txid);
  }
  return [...txids];
}

/** Keys of the files that make these states, as far as there are files for them. */
export function filesOfStates(files: readonly LogFile[], txids: readonly number[]): ReadonlySet<string> {
  if (txids.length === 0) return new Set();
  const reachable = new Reachable(files);
  return new Set(txids.flatMap((txid) => reachable.plan(txid)?.files.map(({ key }) => key) ?? []));
}

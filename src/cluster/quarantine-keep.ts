import { quarantined, type Quarantined } from "../database/quarantined.ts";
import type { LogContext } from "../log/context.ts";
import { keepState } from "../log/kept-states.ts";

/** The slot after which an entry's pages go on; undefined where that is no state of a log. */
export function baseOf({ files }: Quarantined): number | undefined {
  const txid = (files[0]?.header.minTxid ?? 1) - 1;
  return txid > 0 ? txid : undefined;
}

/**
 * Has the log keep what the entries of this database's quarantine build on; `known` are those for which that was done.
 * Tried until `signal`.
 */
export async function keepBases(
  context: LogContext,
  stateDir: string,
  known: Set<string>,
  signal: AbortSignal,
): Promise<void> {
  for (const entry of quarantined(stateDir)) {
    const txid = baseOf(entry);
    if (known.has(entry.id) || txid === undefined) continue;
    known.add(entry.id);
    await keepState(context, txid, entry.id, signal);
  }
}

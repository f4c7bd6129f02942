import type { LogState } from "../database/contract.ts";
import { SluiceError } from "../errors/error.ts";
import { formatPosition } from "../ltx/position.ts";
import { NO_LOG_ID, type LogIdentity } from "./identity.ts";
import { formatTxid } from "./layout.ts";

/** What a node finds when it starts: its own state and what lies in the store. */
export interface Found {
  readonly url: string;
  /** The database's path, for messages. */
  readonly path: string;
  readonly state: LogState | undefined;
  readonly identity: LogIdentity | undefined;
  /** The last slot of the log; 0 for an empty one. */
  readonly head: number;
  /** Whether the record that the state has confirmed is in the log as the state says, as far as it can be seen. */
  readonly holdsConfirmed: boolean;
  readonly acceptRollback: boolean;
}

/**
 * - `start`: an empty log; this database may begin it.
 * - `identify`: this log, but its identity isn't there (any more): create it, then go on.
 * - `go on`: this database's log.
 */
export type Standing =
  | { readonly step: "start" }
  | { readonly step: "identify"; readonly logId: string | undefined; readonly base: number }
  | { readonly step: "go on" };

/**
 * Protocol section 10, Rejoin, as far as the identity and the length of the log decide it: may this node write to
 * this log at all? Whether the records past its own are somebody else's is for the takeover to find out.
 * Throws SLU-4101, 4102, 4104, 4105 or 4106 for every no.
 */
export function rejoin(found: Found): Standing {
  const { state, identity, head, url } = found;
  if (identity?.ended !== undefined) {
    throw new SluiceError("SLU-4106", `${url}: the log was ended on ${identity.ended}`);
  }
  if (state === undefined) {
    if (head === 0) return { step: "start" };
    throw new SluiceError("SLU-4104", `${found.path} has no state, and ${url} ends at TXID ${formatTxid(head)}`);
  }
  if (state.logId === NO_LOG_ID) return continueForeign(found, state);
  if (identity === undefined) return withoutIdentity(found, state);
  if (identity.logId !== state.logId) {
    if (head === 0) return { step: "start" };
    throw anotherLog(`${found.path} belongs to log ${state.logId}, ${url} is log ${identity.logId}`);
  }
  assertNotRolledBack(found, state);
  return { step: "go on" };
}

/** A database that was restored from Litestream's log. */
function continueForeign(found: Found, state: LogState): Standing {
  const { identity, head, url } = found;
  const { txid } = state.confirmed;
  if (identity !== undefined && identity.base !== txid) {
    throw anotherLog(`${found.path} was restored from Litestream's log, and ${url} has become Sluice's since`);
  }
  assertNotRolledBack(found, state);
  if (head > txid) throw passed(found, state, `went on to TXID ${formatTxid(head)} since it was restored`);
  return { step: "identify", logId: identity?.logId, base: txid };
}

/** `sluice.json` is missing where the state remembers one. */
function withoutIdentity(found: Found, state: LogState): Standing {
  const { head, url } = found;
  assertNotRolledBack(found, state);
  const unwritten = head === 0 && state.confirmed.txid === 0;
  if (unwritten || found.holdsConfirmed || found.acceptRollback) {
    return { step: "identify", logId: state.logId, base: 0 };
  }
  throw anotherLog(`${url} has no sluice.json, and not the records that ${found.path} has confirmed`);
}

function assertNotRolledBack(found: Found, state: LogState): void {
  const { head, url, acceptRollback } = found;
  const { txid } = state.confirmed;
  if (head >= txid || acceptRollback) return;
  const end = head === 0 ? "is empty" : `ends at TXID ${formatTxid(head)}`;
  throw new SluiceError("SLU-4102", `${url} ${end}; ${found.path} had ${formatTxid(txid)} confirmed`);
}

function anotherLog(message: string): SluiceError {
  return new SluiceError("SLU-4105", message);
}

/** The log has records past this node's that it did not write. */
export function passed(found: Pick<Found, "url" | "path">, state: LogState, how: string): SluiceError {
  const { txid, position } = state.confirmed;
  return new SluiceError(
    "SLU-4101",
    `${found.url} ${how}; ${found.path} stands at TXID ${formatTxid(txid)}, position ${formatPosition(position)}`,
  );
}

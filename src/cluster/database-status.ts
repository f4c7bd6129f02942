import { statSync } from "node:fs";
import type { Database } from "../database/database.ts";
import type { Replica } from "../database/replica.ts";
import { isSluiceError } from "../errors/error.ts";
import type { LogWriter } from "../log/log-writer.ts";
import { formatPosition } from "../ltx/position.ts";
import type { DatabaseStatus } from "./status.ts";

/** What `sluice status` says of a database, from what of it is open here. */
export function databaseStatus(
  about: Pick<DatabaseStatus, "path" | "name" | "store" | "role" | "state"> & {
    readonly error: Error | undefined;
    readonly successor: DatabaseStatus["successor"] | undefined;
  },
  database: Database | undefined,
  replica: Replica | undefined,
  writer: LogWriter | undefined,
  quarantined: DatabaseStatus["quarantined"],
): DatabaseStatus {
  const { path, name, store, role, state, error, successor } = about;
  const open = database ?? replica;
  const shipped = writer?.status;
  const confirmed = open?.logState?.confirmed;
  const position = open?.position;
  return {
    path,
    name,
    store,
    role,
    state,
    error: error === undefined ? undefined : describe(error),
    position: position === undefined ? undefined : formatPosition(position),
    sizeBytes: statSync(path, { throwIfNoEntry: false })?.size,
    walBytes: open?.walBytes,
    confirmed: confirmed && {
      txid: confirmed.txid,
      position: formatPosition(confirmed.position),
      at: new Date(confirmed.timestampMs).toISOString(),
    },
    storeLagMs: shipped && (shipped.behindSinceMs === undefined ? 0 : Date.now() - shipped.behindSinceMs),
    ...(successor && { successor }),
    frozen: database?.frozen.length,
    quarantined,
  };
}

function describe(error: Error): NonNullable<DatabaseStatus["error"]> {
  if (isSluiceError(error)) return { code: error.code, message: error.message, hint: error.hint };
  return { code: undefined, message: error.message, hint: "" };
}

import { mkdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { stateDirOf } from "../database/database.ts";

const VERIFIED = "verified.json";

/** Notes a restore drill that went well, for `sluice_last_verified_restore_age_seconds`. */
export function noteVerified(db: string, drill: { readonly txid: number; readonly position: string }): void {
  const dir = stateDirOf(db);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const file = path.join(dir, VERIFIED);
  writeFileSync(`${file}.tmp`, JSON.stringify({ ...drill, at: new Date().toISOString() }), { mode: 0o600 });
  renameSync(`${file}.tmp`, file);
}

/** When the last restore drill of a database went well, ms since 1970. */
export function verifiedAtMs(db: string): number | undefined {
  return statSync(path.join(stateDirOf(db), VERIFIED), { throwIfNoEntry: false })?.mtimeMs;
}

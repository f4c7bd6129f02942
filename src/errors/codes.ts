import { configCodes } from "./codes/config.ts";
import { databaseCodes } from "./codes/database.ts";
import { leaseCodes } from "./codes/lease.ts";
import { logCodes } from "./codes/log.ts";
import { ltxCodes } from "./codes/ltx.ts";
import { proxyCodes } from "./codes/proxy.ts";
import { roleCodes } from "./codes/cluster-roles.ts";
import { storeCodes } from "./codes/store.ts";
import { streamCodes } from "./codes/stream.ts";
import { superviseCodes } from "./codes/supervise.ts";

/** What the catalogue says about one error code; the page `docs/errors.md` is made from it. */
export interface CodeEntry {
  /** A few words: the heading. */
  readonly title: string;
  /** What happened, and what Sluice did about it. */
  readonly meaning: string;
  /** When this is nothing to worry about, or "Never." */
  readonly normal: string;
  /** What to do now; the default hint of the error. */
  readonly remedy: string;
}

/** Every error a user can meet. The thousands say which room it comes from. */
export const codes = {
  ...configCodes,
  ...ltxCodes,
  ...databaseCodes,
  ...storeCodes,
  ...logCodes,
  ...superviseCodes,
  ...leaseCodes,
  ...proxyCodes,
  ...streamCodes,
  ...roleCodes,
} as const satisfies Record<string, CodeEntry>;

export type ErrorCode = keyof typeof codes;

/** Whether what another program says is a code of the catalogue. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(codes, text);
}

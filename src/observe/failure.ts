import { isSluiceError } from "../errors/error.ts";
import type { Logger } from "./log.ts";

const logged = new WeakSet<object>();

/**
 * Logs a failure: its message, with the code and the hint of a SluiceError, or the stack of another one. Several may
 * hear of the same one, such as of a database that can't be opened when the start waits for it: the first logs it.
 */
export function logFailure(log: Logger, error: unknown): void {
  if (typeof error === "object" && error !== null) {
    if (logged.has(error)) return;
    logged.add(error);
  }
  const fields = isSluiceError(error) ? { code: error.code, hint: error.hint } : { err: error };
  log.error(fields, error instanceof Error ? error.message : String(error));
}

import { SluiceError } from "../errors/error.ts";

/**
 * Aborted by SIGINT or SIGTERM until it's disposed of, so that a command can tidy up; a second one ends it as it would
 * without.
 */
export function stopSignal(): Disposable & { readonly signal: AbortSignal } {
  const stop = new AbortController();
  const abort = (): void => stop.abort(new SluiceError("SLU-1008", "stopped by a signal"));
  for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, abort);
  return {
    signal: stop.signal,
    [Symbol.dispose]() {
      for (const name of ["SIGINT", "SIGTERM"] as const) process.removeListener(name, abort);
    },
  };
}

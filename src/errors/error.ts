import { codes, type ErrorCode } from "./codes.ts";

export interface SluiceErrorOptions {
  /** The next step for the user, more exact than the catalogue's when the place knows more. */
  readonly hint?: string;
  readonly cause?: unknown;
}

/**
 * An error with a code of the catalogue. Its message names the database, file or URL it is about, and never holds a
 * secret. Everything that reaches a user is one of these; any other error is a bug and is shown with its stack.
 */
export class SluiceError extends Error {
  override readonly name = "SluiceError";
  readonly code: ErrorCode;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, options: SluiceErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint ?? codes[code].remedy;
  }
}

/** Whether `error` is a SluiceError, of `code` where one is given. */
export function isSluiceError(error: unknown, code?: ErrorCode): error is SluiceError {
  return error instanceof SluiceError && (code === undefined || error.code === code);
}

/** The `errno` name of a system error ("ENOSPC"), or undefined for any other value. */
export function systemErrorCode(error: unknown): string | undefined {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  return typeof code === "string" ? code : undefined;
}

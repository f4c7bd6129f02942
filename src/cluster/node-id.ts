import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { isSluiceError, SluiceError, systemErrorCode } from "../errors/error.ts";

/**
 * The id of the node whose files are in `dir`: 16 hex digits, drawn at the first start. A directory that was copied to
 * another node brings the id along, and is found by it. Throws SLU-2008 to SLU-2010.
 */
export function nodeIdIn(dir: string): string {
  const file = path.join(dir, "node");
  try {
    const known = /^[0-9a-f]{16}$/.exec(readFileSync(file, "utf8").trim())?.[0];
    if (known !== undefined) return known;
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT") throw unreadable(file, error);
  }
  const id = randomBytes(8).toString("hex");
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    writeFileSync(`${file}.tmp`, `${id}\n`, { mode: 0o600, flush: true });
    renameSync(`${file}.tmp`, file);
  } catch (error) {
    throw unreadable(file, error);
  }
  return id;
}

function unreadable(file: string, error: unknown): Error {
  if (isSluiceError(error)) return error;
  const code = systemErrorCode(error) === "ENOSPC" ? "SLU-2008" : "SLU-2010";
  return new SluiceError(code, `${file}: ${(error as Error).message}`, { cause: error });
}

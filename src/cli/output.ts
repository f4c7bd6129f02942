import type { ErrorCode } from "../errors/codes.ts";
import { isSluiceError } from "../errors/error.ts";

/** Errors of the command line and the configuration, for which the exit status is 2. */
const WRONG_USAGE: ReadonlySet<ErrorCode> = new Set([
  "SLU-1000",
  "SLU-1001",
  "SLU-1002",
  "SLU-1003",
  "SLU-1010",
  "SLU-1015",
  "SLU-3001",
  "SLU-3002",
  "SLU-6003",
]);

/** Prints an error as people or, with `json`, as programs read it; returns the exit status. */
export function fail(error: unknown, json: boolean): 1 | 2 {
  const known = isSluiceError(error);
  const message = error instanceof Error ? error.message : String(error);
  if (json) {
    const shown = known ? { code: error.code, error: message, hint: error.hint } : { error: message };
    console.log(JSON.stringify(shown));
  } else if (known) {
    console.error(`${error.code} ${message}`);
    if (error.hint !== "") console.error(`  → ${error.hint}`);
  } else {
    // Not one of the catalogue: a bug, whose place matters.
    console.error(error);
  }
  return known && WRONG_USAGE.has(error.code) ? 2 : 1;
}

/** Columns of text under a header, as wide as they need to be. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]?.length ?? 0)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join("  ")
      .trimEnd();
  return [header, ...rows].map(line).join("\n");
}

/** "12.3 MB", for people. */
export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = "";
  for (const next of units) {
    if (value < 1000) break;
    value /= 1000;
    unit = next;
  }
  return `${value.toFixed(value < 10 ? 1 : 0)} ${unit}`;
}

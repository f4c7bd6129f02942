import { isSecret, maskUrl } from "./explain.ts";

export type Map = Record<string, unknown>;

/** A sluice.yml, and what has no counterpart in it. */
export interface Converted {
  readonly config: Map;
  readonly remarks: readonly string[];
}

/** A key and its value for a comment, without secrets. */
export function shown(key: string, value: unknown): string {
  const name = key.split(".").at(-1)!;
  const text = JSON.stringify(value, (inner, part: unknown) => (isSecret(inner) ? "***" : part)) ?? "";
  return `${key}: ${isSecret(name) ? "***" : maskUrl(text)}`;
}

export function isMap(value: unknown): value is Map {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

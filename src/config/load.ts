import { existsSync, readFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { type Document, isMap, isNode, isScalar, LineCounter, type Node, parseDocument, visit } from "yaml";
import type { z } from "zod";
import { SluiceError } from "../errors/error.ts";
import type { Config } from "./config.ts";
import { expandDocument, type Environment, maskVariables, nodeAt, restore } from "./expand.ts";
import { resolveConfig, type ResolveProblem } from "./resolve.ts";
import { configSchema, type ConfigFile } from "./schema.ts";
import { nearest } from "./nearest.ts";

/** One thing that is wrong in a configuration file. */
export interface Problem {
  /** 1-based. */
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

/** Where the configuration is: as given, `SLUICE_CONFIG`, ./sluice.yml, /etc/sluice.yml. Throws SLU-1001 for none. */
export function findConfig(given: string | undefined, env: Environment): string {
  const named = given ?? env["SLUICE_CONFIG"];
  if (named !== undefined) {
    if (existsSync(named)) return path.resolve(named);
    throw new SluiceError("SLU-1001", `${named} doesn't exist`);
  }
  const found = ["sluice.yml", "/etc/sluice.yml"].find((file) => existsSync(file));
  if (found !== undefined) return path.resolve(found);
  throw new SluiceError("SLU-1001", "there is neither ./sluice.yml nor /etc/sluice.yml");
}

/** Reads and resolves a configuration file. Throws SLU-1002 with every problem and its line. */
export function loadConfig(file: string, env: Environment): Config {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new SluiceError("SLU-1001", `${file} can't be read: ${(cause as Error).message}`, { cause });
  }
  const { value, problems } = parseConfig(text, env);
  if (value === undefined) throw invalid(file, problems);
  const resolved = resolveConfig(value, file, env);
  if (Array.isArray(resolved)) {
    const found = resolved as readonly ResolveProblem[];
    throw invalid(
      file,
      found.map((problem) => ({ ...problem, ...atLine(text, problem.path) })),
    );
  }
  return resolved as Config;
}

function atLine(text: string, at: readonly PropertyKey[]): { line: number; column: number } {
  const lines = new LineCounter();
  return lineOf(parseDocument(maskVariables(text).text, { lineCounter: lines }), lines, at);
}

function invalid(file: string, problems: readonly Problem[]): SluiceError {
  const list = problems.map(({ line, column, message }) => `${file}:${line}:${column}: ${message}`);
  return new SluiceError("SLU-1002", list.join("\n"));
}

/** Parses and validates the text of a configuration file; `value` is undefined when there are problems. */
export function parseConfig(
  text: string,
  env: Environment,
): { readonly value: ConfigFile | undefined; readonly problems: readonly Problem[] } {
  const lines = new LineCounter();
  const masked = maskVariables(text);
  const document = parseDocument(masked.text, { lineCounter: lines, logLevel: "error" });
  const syntax = document.errors[0];
  if (syntax) {
    // What comes after the first is mostly its consequence.
    const { line, col } = lines.linePos(syntax.pos[0]);
    const message = restore(syntax.message.split("\n")[0]!.replace(/ at line \d+, column \d+:?$/, ""), masked);
    return { value: undefined, problems: [{ line, column: col, message }] };
  }
  const odd = oddKey(document);
  if (odd !== undefined) {
    const { line, col } = lines.linePos(odd.range?.[0] ?? 0);
    return { value: undefined, problems: [{ line, column: col, message: "a key that is no text: {{ is not {" }] };
  }
  const problems: Problem[] = [];
  // As LiteFS does: shells know HOSTNAME, but few export it.
  expandDocument(document, masked, { HOSTNAME: os.hostname(), ...env }, (node, message) => {
    const { line, col } = lines.linePos(node.range?.[0] ?? 0);
    problems.push({ line, column: col, message });
  });
  const plain = plainValue(document);
  if (plain instanceof Error) return { value: undefined, problems: [{ line: 1, column: 1, message: plain.message }] };
  const parsed = configSchema.safeParse(plain ?? {});
  if (!parsed.success) for (const issue of parsed.error.issues) problems.push(...describe(issue, document, lines));
  return { value: problems.length === 0 ? parsed.data : undefined, problems };
}

/**
 * A key that is a map or a list: `{{ a: b }}` has one. It must go before variables are expanded, because what is unknown
 * is named, and a secret may be in it.
 */
function oddKey(document: Document): Node | undefined {
  let found: Node | undefined;
  visit(document, {
    Pair(_, { key }) {
      if (!isScalar(key) && isNode(key)) found ??= key;
      return found && visit.BREAK;
    },
  });
  return found;
}

/** The document's value; the error for aliases (`*name`) that would make more of it than anybody writes. */
export function plainValue(document: Document): unknown {
  try {
    return document.toJS() as unknown;
  } catch (error) {
    return error;
  }
}

function describe(issue: z.core.$ZodIssue, document: Document, lines: LineCounter): Problem[] {
  if (issue.code === "unrecognized_keys")
    return issue.keys.map((key) => ({
      ...lineOfKey(document, lines, issue.path, key),
      message: `unknown key "${key}"${suggestion(key)}`,
    }));
  if (issue.code === "invalid_union") {
    // The most exact branch: the one that got furthest into the value.
    const branches = issue.errors.filter((errors) => errors.length > 0);
    const best = branches.toSorted((a, b) => depth(b) - depth(a))[0];
    if (best && depth(best) > 0)
      return best.flatMap((inner) => describe({ ...inner, path: [...issue.path, ...inner.path] }, document, lines));
    const unknown = best?.find((inner) => inner.code === "unrecognized_keys");
    const object = branches.flat().find((inner) => inner.code === "unrecognized_keys") ?? unknown;
    if (object) return describe({ ...object, path: [...issue.path, ...object.path] }, document, lines);
  }
  const where = issue.path.length > 0 ? `${issue.path.join(".")}: ` : "";
  return [{ ...lineOf(document, lines, issue.path), message: `${where}${issue.message}` }];
}

function depth(issues: readonly z.core.$ZodIssue[]): number {
  return Math.max(...issues.map((issue) => issue.path.length));
}

function lineOf(document: Document, lines: LineCounter, at: readonly PropertyKey[]): { line: number; column: number } {
  const { line, col } = lines.linePos(nodeAt(document, at)?.range?.[0] ?? 0);
  return { line, column: col };
}

function lineOfKey(
  document: Document,
  lines: LineCounter,
  at: readonly PropertyKey[],
  key: string,
): { line: number; column: number } {
  const parent = document.getIn(at, true);
  const pair = isMap(parent) ? parent.items.find((item) => String(item.key) === key) : undefined;
  const range = (pair?.key as { range?: readonly number[] } | undefined)?.range;
  if (range === undefined) return lineOf(document, lines, at);
  const { line, col } = lines.linePos(range[0]!);
  return { line, column: col };
}

function suggestion(key: string): string {
  if (Object.hasOwn(configSchema.shape, key)) return ": it belongs at the top of the file";
  const known = nearest(key, KNOWN);
  if (known === key) return " here; it belongs in another place";
  return known === undefined ? "" : `; did you mean "${known}"?`;
}

/** Every key that stands anywhere in the schema. */
const KNOWN: readonly string[] = keysOf(configSchema);

function keysOf(schema: z.core.$ZodType): string[] {
  const def = schema._zod.def as unknown as {
    shape?: Record<string, z.core.$ZodType>;
    innerType?: z.core.$ZodType;
    element?: z.core.$ZodType;
    in?: z.core.$ZodType;
    options?: readonly z.core.$ZodType[];
  };
  const below = [def.innerType, def.element, def.in, ...(def.options ?? []), ...Object.values(def.shape ?? {})];
  return [...Object.keys(def.shape ?? {}), ...below.flatMap((inner) => (inner ? keysOf(inner) : []))];
}

import { type Document, isScalar, type Scalar, visit } from "yaml";

export type Environment = Readonly<Record<string, string | undefined>>;

/** Private-use characters: one says which variable, the others keep the length, and with it every column. */
const FIRST = 0xe000;
const LAST = 0xf7ff;
const FILLER = "\uf8ff";
const MASK = /([\ue000-\uf7ff])\uf8ff*/g;

/**
 * A configuration's text with each `${…}` replaced by as many characters that mean nothing in YAML, where braces and
 * quotes would: `{ secret: ${SECRET} }` is a map with one text in it. `restore` puts the expressions back.
 */
export interface MaskedText {
  readonly text: string;
  readonly expressions: readonly string[];
}

export function maskVariables(text: string): MaskedText {
  const expressions: string[] = [];
  const masked = text.replaceAll(/\$\{[^}\n]*\}/g, (expression) => {
    if (FIRST + expressions.length > LAST) return expression;
    const name = String.fromCharCode(FIRST + expressions.length);
    expressions.push(expression);
    return name + FILLER.repeat(expression.length - 1);
  });
  return { text: masked, expressions };
}

export function restore(text: string, { expressions }: MaskedText): string {
  return replaceMasks(text, expressions, (expression) => expression);
}

function replaceMasks(text: string, expressions: readonly string[], value: (expression: string) => string): string {
  return text.replaceAll(MASK, (all, name: string) => {
    const expression = expressions[name.charCodeAt(0) - FIRST];
    return expression === undefined ? all : value(expression);
  });
}

/**
 * Expands `${VAR}`, `${VAR:-default}` and LiteFS's `${ A == "x" }`, `${ A != "x" }` in the values of a document that
 * was parsed from a masked text. A value that is one comparison becomes a boolean; all others stay texts, whatever is
 * in the variable: a secret of digits is no number, and nothing in a variable can add keys. A variable that isn't set
 * is reported, unless it has a default.
 */
export function expandDocument(
  document: Document,
  { expressions }: MaskedText,
  env: Environment,
  report: (node: Scalar, message: string) => void,
): void {
  visit(document, {
    Scalar(key, node) {
      if (typeof node.value !== "string") return;
      const text = replaceMasks(node.value, expressions, (expression) => expression);
      if (text === node.value) return;
      const comparison = key !== "key" && /^\$\{[^}]*\}$/.test(text) ? compare(inside(text), env) : undefined;
      const expanded = (expression: string): string =>
        expand(inside(expression), env, (message) => report(node, message));
      node.value = key === "key" ? text : (comparison ?? replaceMasks(node.value, expressions, expanded));
    },
  });
}

/** What stands between the braces; in a double-quoted text its quotes are escaped, in a single-quoted one doubled. */
function inside(expression: string): string {
  return expression.slice(2, -1).replaceAll('\\"', '"').trim();
}

function compare(inner: string, env: Environment): boolean | undefined {
  const comparison = /^(\w+)\s*(==|!=)\s*(?:"([^"]*)"|''([^']*)''|'([^']*)'|(\w+))$/.exec(inner);
  if (!comparison) return undefined;
  const [, name, operator, double, doubled, single, other] = comparison;
  const right = double ?? doubled ?? single ?? env[other ?? ""] ?? "";
  return ((env[name!] ?? "") === right) === (operator === "==");
}

function expand(inner: string, env: Environment, report: (message: string) => void): string {
  const comparison = compare(inner, env);
  if (comparison !== undefined) return String(comparison);
  const variable = /^(\w+)(?::-(.*))?$/s.exec(inner);
  if (!variable) {
    report(`\${${inner}} is neither a variable nor a comparison`);
    return "";
  }
  const [, name, fallback] = variable;
  const value = env[name!];
  if (fallback !== undefined) return value === undefined || value === "" ? fallback : value;
  if (value === undefined) report(`the environment variable ${name} is not set; \${${name}:-default} gives a default`);
  return value ?? "";
}

/** The scalar at a path of keys, or the deepest node that is there, for a line number. */
export function nodeAt(
  document: Document,
  path: readonly PropertyKey[],
): { range?: readonly number[] | null } | undefined {
  for (let length = path.length; length >= 0; length--) {
    const node = document.getIn(path.slice(0, length), true);
    if (node !== undefined && node !== null && typeof node === "object") return node;
  }
  return isScalar(document.contents) ? document.contents : undefined;
}

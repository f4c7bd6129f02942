import { type Document, isScalar, parse, type Scalar, visit } from "yaml";

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Expands `${VAR}`, `${VAR:-default}` and LiteFS's `${ A == "x" }`, `${ A != "x" }` in the values of a parsed document.
 * A plain (unquoted) value is read again afterwards, so that `${N}` can be a number and a comparison a boolean. A
 * variable that isn't set is reported, unless it has a default.
 */
export function expandDocument(
  document: Document,
  env: Environment,
  report: (node: Scalar, message: string) => void,
): void {
  visit(document, {
    Scalar(key, node) {
      if (key === "key" || typeof node.value !== "string" || !node.value.includes("${")) return;
      const text = node.value.replaceAll(/\$\{([^}]*)\}/g, (_all, inner: string) =>
        expand(inner.trim(), env, (message) => report(node, message)),
      );
      node.value = node.type === "PLAIN" ? (parse(text, { uniqueKeys: false }) as unknown) : text;
      if (node.value === null || typeof node.value === "object") node.value = text;
    },
  });
}

function expand(inner: string, env: Environment, report: (message: string) => void): string {
  const comparison = /^(\w+)\s*(==|!=)\s*(?:"([^"]*)"|'([^']*)'|(\w+))$/.exec(inner);
  if (comparison) {
    const [, name, operator, double, single, other] = comparison;
    const right = double ?? single ?? env[other ?? ""] ?? "";
    return String(((env[name!] ?? "") === right) === (operator === "=="));
  }
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

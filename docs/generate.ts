/**
 * The reference pages that are made from the program itself: `npm run docs` writes them, and a test checks that the
 * committed ones are current.
 */
import { writeFileSync } from "node:fs";
import path from "node:path";
import { z } from "zod";
import { parseConfig } from "../src/config/load.ts";
import { configSchema } from "../src/config/schema.ts";
import { formatDuration } from "../src/config/duration.ts";
import { codes, type CodeEntry } from "../src/errors/codes.ts";
import { Metrics } from "../src/observe/metrics.ts";

/** What is used of JSON Schema. */
interface Schema {
  readonly description?: string;
  readonly type?: string | readonly string[];
  readonly format?: string;
  readonly enum?: readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly anyOf?: readonly Schema[];
}

const GENERATED = "<!-- Written by `npm run docs`; change the program, not this page. -->";

/** Every page by its name. */
export async function pages(): Promise<Readonly<Record<string, string>>> {
  return {
    "errors.md": errorsPage(),
    "configuration.md": configurationPage(),
    "metrics.md": await metricsPage(),
    "sluice.schema.json": jsonText(jsonSchema()),
  };
}

const ROOMS: readonly [digit: string, title: string][] = [
  ["1", "Command line and configuration"],
  ["2", "Databases"],
  ["3", "Stores"],
  ["4", "The log, restore"],
  ["5", "LTX files"],
  ["6", "The application's processes"],
  ["7", "The front door"],
  ["8", "Leases"],
];

function errorsPage(): string {
  const lines = [
    "# Error codes",
    "",
    GENERATED,
    "",
    "Every error that Sluice reports has a code, here with what it means, when it is normal, and what to do.",
    "",
  ];
  const all = Object.entries<CodeEntry>(codes).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [digit, title] of ROOMS) {
    lines.push(`## ${title}`, "");
    for (const [code, { title: name, meaning, normal, remedy }] of all) {
      if (!code.startsWith(`SLU-${digit}`)) continue;
      lines.push(`### ${code}`, "", `**${name}.** ${meaning}`, "");
      lines.push(`- When it is normal: ${normal}`, `- What to do: ${remedy}`, "");
    }
  }
  return `${lines.join("\n").trimEnd()}\n`;
}

function jsonSchema(): Schema & { readonly title?: string } {
  const schema = z.toJSONSchema(configSchema, { io: "input" }) as Schema;
  return { ...schema, title: "sluice.yml" };
}

const INTRODUCTION = `Sluice reads \`--config PATH\`, or the file that \`SLUICE_CONFIG\` names, or \`./sluice.yml\`, or \`/etc/sluice.yml\`. Everything has a
default but \`dbs\`. An unknown key is an error, with its line and the key that was probably meant: \`sluice config check\`
says so without starting anything, \`sluice config explain\` prints what Sluice understood, and
\`sluice config convert\` makes a \`sluice.yml\` of a \`litestream.yml\` or a \`litefs.yml\`.

\`\`\`yaml
dbs:
  - path: /data/app.db
    store: s3://bucket/app # or file:///backup/app
  - dir: /data/tenants # every database in a directory, also those that appear later
    pattern: "*.db"
    store: s3://bucket/tenants

exec:
  - cmd: python manage.py migrate
    wait: true
  - cmd: gunicorn mysite.wsgi --bind 127.0.0.1:8000
\`\`\`

Values may hold \`\${VAR}\`, \`\${VAR:-default}\` and comparisons such as \`\${ REGION == "ams" }\`, which are true or false.
Relative paths start at the file's directory. A duration is written as \`500ms\`, \`10s\`, \`5m\`, \`1h30m\` or \`7d\`, a size as
\`10MB\` or \`64MiB\`. Editors that know JSON Schema can use [sluice.schema.json](sluice.schema.json).`;

function configurationPage(): string {
  const root = jsonSchema();
  const defaults = parseConfig("dbs: [{ path: a, store: b }]\nexec: [{ cmd: a }]\nlease: {}", {}).value;
  const settings = new Set(Object.keys(storeOf(root).properties ?? {}));
  const top = Object.entries(root.properties ?? {}).filter(([name]) => !settings.has(name));
  const lines = ["# Configuration", "", GENERATED, "", INTRODUCTION, "", "## Keys", ""];
  lines.push(...table(top, defaults), "");
  for (const [name, schema] of top) {
    const inner = objectOf(schema);
    if (inner?.properties === undefined || Object.keys(inner.properties).length === 0) continue;
    const isList = inner !== schema;
    const at = (defaults as Record<string, unknown>)[name];
    lines.push(`### ${name}${isList ? "[]" : ""}`, "");
    lines.push(...table(Object.entries(inner.properties), Array.isArray(at) ? (at[0] as unknown) : at), "");
  }
  lines.push("### store", "", "A URL, or an object with these keys, which are Litestream's. Those of S3 may also");
  lines.push("stand at the top of the file, as defaults for all stores.", "");
  lines.push(...table(Object.entries(storeOf(root).properties ?? {}), {}), "");
  return `${lines.join("\n").trimEnd()}\n`;
}

/** The object that a schema describes, itself or as the elements of a list. */
function objectOf(schema: Schema): Schema | undefined {
  if (schema.properties !== undefined) return schema;
  if (schema.items !== undefined) return objectOf(schema.items);
  return schema.anyOf?.map(objectOf).find((inner) => inner !== undefined);
}

function storeOf(root: Schema): Schema {
  const store = root.properties?.["dbs"]?.items?.properties?.["store"];
  return (store && objectOf(store)) ?? {};
}

function table(properties: readonly (readonly [string, Schema])[], defaults: unknown): string[] {
  const rows = properties.map(([name, schema]) => {
    const value = (defaults as Readonly<Record<string, string | number | boolean | undefined>> | undefined)?.[name];
    const hidden =
      objectOf(schema) !== undefined || value === undefined || name === "path" || name === "cmd" || name === "store";
    const shown = hidden ? "" : code(schema.format === "duration" ? formatDuration(Number(value)) : String(value));
    return [code(name), typeOf(schema), shown, schema.description ?? ""];
  });
  return markdownTable(["key", "value", "default", "meaning"], rows);
}

function typeOf(schema: Schema): string {
  if (schema.format === "duration" || schema.format === "size" || schema.format === "boolean") return schema.format;
  if (schema.enum) return schema.enum.map(code).join(", ");
  if (schema.type === "array") return `list of ${typeOf(schema.items ?? {})}`;
  if (schema.anyOf?.some(({ type }) => type === "integer")) return "number";
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].join(" or ");
  if (schema.properties) return "object";
  return typeof schema.type === "string" ? schema.type.replace("string", "text") : "text";
}

async function metricsPage(): Promise<string> {
  const { registry } = new Metrics();
  const rows = (await registry.getMetricsAsJSON()).map(({ name, help, type }) => {
    const { labelNames } = registry.getSingleMetric(name) as unknown as { labelNames: readonly string[] };
    return [code(name), String(type), labelNames.map(code).join(", "), help];
  });
  const lines = [
    "# Metrics",
    "",
    GENERATED,
    "",
    "`GET /metrics` at `node.listen`, and at `addr`, answers in the text format of Prometheus. The label `db` is the",
    "database's path.",
    "",
    ...markdownTable(["name", "type", "labels", "meaning"], rows),
  ];
  return `${lines.join("\n")}\n`;
}

/** As the formatter has it: short lists of texts on one line. */
function jsonText(value: unknown): string {
  const text = JSON.stringify(value, undefined, 2);
  const joined = text.replaceAll(/\[\s+("[^"]*"(?:,\s+"[^"]*")*)\s+\]/g, (list, items: string, at: number) => {
    const line = `[${items.replaceAll(/,\s+/g, ", ")}]`;
    return at - text.lastIndexOf("\n", at) + line.length <= 120 ? line : list;
  });
  return `${joined}\n`;
}

function code(text: string): string {
  return `\`${text}\``;
}

function markdownTable(header: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const escaped = rows.map((row) => row.map((cell) => cell.replaceAll("|", "\\|")));
  const widths = header.map((name, i) => Math.max(name.length, ...escaped.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |`;
  return [line(header), line(widths.map((width) => "-".repeat(width))), ...escaped.map(line)];
}

if (import.meta.main) {
  for (const [name, text] of Object.entries(await pages())) writeFileSync(path.join(import.meta.dirname, name), text);
}

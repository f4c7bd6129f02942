import { isReached, type Measure, type Row, SECTIONS, type Section, valueOf } from "./report.ts";
import type { Result, Results } from "./results.ts";

/**
 * The page with its tables made anew from what was measured: what stands between `<!-- table: SECTION -->` and
 * `<!-- end -->`. Everything else is written by hand.
 */
export function withTables(page: string, results: Results): string {
  return SECTIONS.reduce((text, section) => withTable(text, section, results), page);
}

function withTable(page: string, section: Section, results: Results): string {
  const begin = `<!-- table: ${section} -->`;
  const [head, rest] = page.split(begin);
  const end = rest?.indexOf("<!-- end -->") ?? -1;
  if (head === undefined || rest === undefined || end < 0) throw new Error(`the page has no ${begin}`);
  const made = Object.entries(results).filter(([, result]) => result.section === section);
  return [`${head}${begin}`, "", ...table(made), ...images(made), rest.slice(end)].join("\n");
}

function table(results: readonly (readonly [string, Result])[]): string[] {
  const lines = results.flatMap(([name, result]) => result.rows.map((row) => line(name, row, result)));
  if (lines.length === 0) return [];
  const { machine, versions } = results.at(-1)![1];
  return [
    `${machine}; ${versions}.`,
    "",
    "| figure | must reach | measured: median (range) | reached | how |",
    "|---|---|---|---|---|",
    ...lines,
    "",
  ];
}

function images(results: readonly (readonly [string, Result])[]): string[] {
  const plots = results.flatMap(([, { plots = [] }]) => plots);
  return plots.flatMap(({ name, title }) => [`![${title}](benchmarks/${name}.svg)`, ""]);
}

function line(name: string, row: Row, { rounds, load, date }: Result): string {
  const loads = [...new Set([Math.min(...load), Math.max(...load)].map((value) => value.toFixed(1)))].join(" to ");
  const made = `\`npm run bench -- "${name}"\`, ${rounds} ${rounds === 1 ? "run" : "runs"}, load before ${loads}, ${date}`;
  const note = row.note === undefined ? made : `${row.note}. ${made}`;
  const cells = [row.figure, joined(row, goal) || "–", joined(row, measured), mark(isReached(row)), note];
  return `| ${cells.join(" | ")} |`;
}

function joined(row: Row, cell: (measure: Measure) => string): string {
  return row.measures
    .map(cell)
    .filter((text) => text !== "")
    .join("; ");
}

function goal(measure: Measure): string {
  const { atLeast, atMost, unit, label } = measure;
  const limit = atLeast ?? atMost;
  if (limit === undefined) return "";
  const sign = limit === 0 ? "" : atLeast === undefined ? "≤ " : "≥ ";
  return words(label, `${sign}${limit.toLocaleString("en")}`, unit);
}

function measured(measure: Measure): string {
  const { values, label, unit, digits = 0 } = measure;
  const text = (value: number): string =>
    value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const [least, most] = [text(Math.min(...values)), text(Math.max(...values))];
  const range = least === most ? "" : ` (${least} to ${most})`;
  return words(label, text(valueOf(measure)), unit) + range;
}

function words(...parts: readonly (string | undefined)[]): string {
  return parts.filter((part) => part !== undefined).join(" ");
}

function mark(reached: boolean | undefined): string {
  if (reached === undefined) return "–";
  return reached ? "yes" : "**no**";
}

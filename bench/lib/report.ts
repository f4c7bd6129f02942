import { readFileSync } from "node:fs";
import os from "node:os";

/** One line of the page: what was measured, what it must reach, and what came out. */
export interface Row {
  readonly figure: string;
  readonly goal: string;
  readonly measured: string;
  readonly reached: boolean | undefined;
  /** How it was measured, and why it falls short where it does. */
  readonly note?: string;
}

export interface Figure {
  readonly name: string;
  /** About how long it takes, for the progress line. */
  readonly seconds: number;
  run(scratch: string): Promise<readonly Row[]>;
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

export function quantile(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))];
  if (value === undefined) throw new Error("no values were measured");
  return value;
}

function machine(): string {
  const cpu = os.cpus()[0]?.model.trim() ?? "unknown processor";
  return `${os.cpus().length} × ${cpu}, ${Math.round(os.totalmem() / 2 ** 30)} GiB, Linux ${os.release()}, Node.js ${process.version}`;
}

const BEGIN = "<!-- figures: begin -->";
const END = "<!-- figures: end -->";

/** Puts the table between the markers of the page; everything else on the page is written by hand. */
export function intoPage(page: string, rows: readonly Row[], command: string, date: string): string {
  const text = readFileSync(page, "utf8");
  const [head, rest] = text.split(BEGIN);
  const tail = rest?.split(END)[1];
  if (head === undefined || tail === undefined) throw new Error(`${page} has lost its markers`);
  const lines = rows.map(
    (row) => `| ${row.figure} | ${row.goal} | ${row.measured} | ${mark(row.reached)} | ${row.note ?? ""} |`,
  );
  return [
    `${head}${BEGIN}`,
    "",
    `Machine: ${machine()}. Command: \`${command}\`. Date: ${date}.`,
    "",
    "| figure | must reach | measured | reached | how, and remarks |",
    "|---|---|---|---|---|",
    ...lines,
    "",
    `${END}${tail}`,
  ].join("\n");
}

function mark(reached: boolean | undefined): string {
  if (reached === undefined) return "–";
  return reached ? "yes" : "**no**";
}

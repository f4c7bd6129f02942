import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { Measure, Measured, Plot, Point, Row, Section } from "./report.ts";

/** What was measured of one figure, all rounds of one run together. */
export interface Result extends Measured {
  readonly section: Section;
  readonly date: string;
  readonly rounds: number;
  /** The load average of the last minute, before each round: what else the machine did. */
  readonly load: readonly number[];
  readonly machine: string;
  readonly versions: string;
}

/** By the figure's name. */
export type Results = Readonly<Record<string, Result>>;

export function readResults(file: string): Results {
  return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Results) : {};
}

export function writeResults(file: string, results: Results): void {
  writeFileSync(file, `${JSON.stringify(results, undefined, 1)}\n`);
}

/** The rounds of a figure, one after the other, as one. What a row says of itself is the last round's. */
export function together(rounds: readonly Measured[]): Measured {
  const last = rounds.at(-1);
  if (last === undefined) throw new Error("no round was run");
  const rows = last.rows.map((row) => ({ ...row, measures: row.measures.map((_, i) => measure(rounds, row, i)) }));
  const plots = last.plots?.map((plot) => ({ ...plot, points: plot.points.map((point) => at(rounds, plot, point)) }));
  return { rows, ...(plots && { plots }) };
}

function measure(rounds: readonly Measured[], { figure }: Row, index: number): Measure {
  const found = rounds.flatMap(({ rows }) => {
    const one = rows.find((row) => row.figure === figure)?.measures[index];
    return one === undefined ? [] : [one];
  });
  return { ...found.at(-1)!, values: found.flatMap(({ values }) => values.map(rounded)) };
}

function at(rounds: readonly Measured[], { name }: Plot, { series, x }: Point): Point {
  const points = rounds.flatMap(({ plots }) => plots?.find((plot) => plot.name === name)?.points ?? []);
  return { series, x, y: points.filter((p) => p.series === series && p.x === x).flatMap(({ y }) => y.map(rounded)) };
}

/** Five digits are more than any of them is worth. */
function rounded(value: number): number {
  return Number(value.toPrecision(5));
}

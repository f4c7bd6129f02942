import os from "node:os";

/** A number that was measured, once a round, and what it must be. */
export interface Measure {
  /** What it is, where a row has several. */
  readonly label?: string;
  readonly unit?: string;
  /** Digits behind the point; 0 by default. */
  readonly digits?: number;
  /** One a round. */
  readonly values: readonly number[];
  readonly atLeast?: number;
  readonly atMost?: number;
  /** The worst round counts instead of the median: for what must never happen. */
  readonly worst?: true;
}

/** One line of a table. */
export interface Row {
  readonly figure: string;
  readonly measures: readonly Measure[];
  /** How it was measured. */
  readonly note?: string;
}

/** What depends on something else: a line chart of the medians, with the range of the rounds. */
export interface Plot {
  /** Name of its file. */
  readonly name: string;
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly points: readonly Point[];
}

export interface Axis {
  /** With its unit. */
  readonly title: string;
  readonly log?: true;
}

export interface Point {
  readonly series: string;
  readonly x: number;
  /** One a round. */
  readonly y: readonly number[];
}

export interface Measured {
  readonly rows: readonly Row[];
  readonly plots?: readonly Plot[];
}

/** The tables of the page. */
export const SECTIONS = ["one node", "replicas", "clusters", "front door", "growth"] as const;
export type Section = (typeof SECTIONS)[number];

export interface Figure {
  readonly name: string;
  readonly section: Section;
  /** About how long a round takes, for the progress line. */
  readonly seconds: number;
  /** One round. Comparisons are made within it. */
  run(scratch: string): Promise<Measured>;
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

/** The value that stands for all rounds. */
export function valueOf({ values, worst, atLeast }: Measure): number {
  if (worst !== true) return median(values);
  return atLeast === undefined ? Math.max(...values) : Math.min(...values);
}

/** Undefined where nothing was asked for. */
export function isReached(row: Row): boolean | undefined {
  const asked = row.measures.filter(({ atLeast, atMost }) => atLeast !== undefined || atMost !== undefined);
  if (asked.length === 0) return undefined;
  return asked.every((measure) => {
    const value = valueOf(measure);
    return value >= (measure.atLeast ?? -Infinity) && value <= (measure.atMost ?? Infinity);
  });
}

export function machine(): string {
  const cpu = os.cpus()[0]?.model.trim() ?? "unknown processor";
  return `${os.cpus().length} × ${cpu}, ${Math.round(os.totalmem() / 2 ** 30)} GiB, Linux ${os.release()}`;
}

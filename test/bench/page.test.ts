import { expect, test } from "vitest";
import { withTables } from "../../bench/lib/page.ts";
import { svgOf } from "../../bench/lib/plots.ts";
import type { Measured } from "../../bench/lib/report.ts";
import { type Result, together } from "../../bench/lib/results.ts";

function round(ms: number, lost: number): Measured {
  const points = [
    { series: "p50", x: 1, y: [ms] },
    { series: "p50", x: 10, y: [2 * ms] },
  ];
  const plot = { name: "lag", title: "Lag", x: { title: "replicas", log: true }, y: { title: "ms" }, points } as const;
  const measures = [
    { label: "p50", unit: "ms", digits: 1, values: [ms], atMost: 3 },
    { label: "lost", values: [lost], atMost: 0, worst: true },
  ] as const;
  return { rows: [{ figure: "lag", measures, note: "of 10" }], plots: [plot] };
}

function result(...rounds: readonly Measured[]): Result {
  const about = { section: "replicas", date: "2026-01-02", machine: "M", versions: "V" } as const;
  return { ...about, rounds: rounds.length, load: [1, 2.04], ...together(rounds) };
}

const page = ["one node", "replicas", "clusters", "front door", "growth"]
  .map((section) => `before\n<!-- table: ${section} -->\nold\n<!-- end -->\nafter ${section}`)
  .join("\n");

test("a table has medians, ranges, what was asked for and what was reached, and keeps what is written by hand", () => {
  const made = withTables(page, { "replicas: lag": result(round(1, 0), round(4, 0), round(2, 0)) });
  expect(made).toContain("| lag | p50 ≤ 3 ms; lost 0 | p50 2.0 ms (1.0 to 4.0); lost 0 | yes |");
  expect(made).toContain('`npm run bench -- "replicas: lag"`, 3 runs, load before 1.0 to 2.0, 2026-01-02');
  expect(made).toContain("![Lag](benchmarks/lag.svg)");
  expect(made).not.toContain("old");
  expect(made.match(/before|after/g)).toHaveLength(11);
  expect(withTables(made, {})).not.toContain("2.0 ms");
});

test("a median above its limit isn't reached, nor is one loss in one round", () => {
  const table = (...rounds: readonly Measured[]): string => withTables(page, { lag: result(...rounds) });
  expect(table(round(4, 0), round(5, 0), round(1, 0))).toContain("| **no** |");
  expect(table(round(1, 0), round(1, 1), round(1, 0))).toContain("lost 1 (0 to 1) | **no** |");
});

test("a plot is an SVG with its titles, its series and a point for each value", async () => {
  const svg = await svgOf(together([round(1, 0), round(3, 0)]).plots![0]!);
  expect(svg).toMatch(/^<svg /);
  for (const text of ["Lag", "replicas", "ms"]) expect(svg).toContain(`>${text}</text>`);
  expect(svg.match(/aria-label="[^"]*replicas: 10?;[^"]*"/g)?.length).toBeGreaterThanOrEqual(2);
});

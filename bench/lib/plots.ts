import * as vega from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { median, type Axis, type Plot } from "./report.ts";

/** A plot as SVG: the medians as lines, the rounds' ranges as bars. White behind it, to be read on a dark page, too. */
export async function svgOf(plot: Plot): Promise<string> {
  const view = new vega.View(vega.parse(compile(specOf(plot)).spec), { renderer: "none" });
  try {
    return `${await view.toSVG()}\n`;
  } finally {
    view.finalize();
  }
}

function specOf({ title, x, y, points }: Plot): TopLevelSpec {
  const values = points.map((point) => ({
    series: point.series,
    x: point.x,
    y: median(point.y),
    least: Math.min(...point.y),
    most: Math.max(...point.y),
  }));
  const several = new Set(points.map(({ series }) => series)).size > 1;
  return {
    title,
    width: 480,
    height: 260,
    background: "white",
    padding: 12,
    data: { values },
    encoding: {
      x: { field: "x", type: "quantitative", title: x.title, scale: scaleOf(x) },
      color: { field: "series", type: "nominal", title: null, legend: several ? { orient: "bottom" } : null },
    },
    layer: [
      {
        mark: { type: "rule", opacity: 0.5 },
        encoding: {
          y: { field: "least", type: "quantitative", title: y.title, scale: scaleOf(y) },
          y2: { field: "most" },
        },
      },
      {
        mark: { type: "line", point: true },
        encoding: { y: { field: "y", type: "quantitative", title: y.title, scale: scaleOf(y) } },
      },
    ],
  };
}

function scaleOf({ log }: Axis): { type: "log" | "linear"; nice: boolean; zero?: boolean } {
  return log === true ? { type: "log", nice: false } : { type: "linear", nice: true, zero: true };
}

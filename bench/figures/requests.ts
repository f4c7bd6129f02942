import { writeFileSync } from "node:fs";
import path from "node:path";
import { S3Proxy, type Seen } from "../../test/faults/s3-proxy.ts";
import { Background, sluice, writer } from "../lib/processes.ts";
import type { Figure, Point } from "../lib/report.ts";
import { s3Server } from "../lib/s3.ts";
import { folder } from "../lib/sluice.ts";

/** Dollars for a request on S3 Standard in us-east-1: a PUT or a LIST, a GET. */
const WRITE = 0.005 / 1000;
const READ = 0.0004 / 1000;
const MONTH_HOURS = 730;
const INTERVALS_SECONDS = [0.5, 1, 2, 5, 10];
const COUNTED_SECONDS = 60;
const RATE = 50;

function kindOf({ method, path: place }: Seen): string {
  if (method !== "GET") return method;
  return place.includes("list-type") ? "LIST" : "GET";
}

/** How many requests of each kind an hour would have, and their list price in dollars a month; deletions are free. */
export function perMonth(
  seen: readonly Seen[],
  countedSeconds: number,
): { readonly perHour: ReadonlyMap<string, number>; readonly dollars: number } {
  const perHour = new Map<string, number>();
  for (const one of seen) perHour.set(kindOf(one), (perHour.get(kindOf(one)) ?? 0) + 3600 / countedSeconds);
  const price = (kind: string): number => (kind === "DELETE" ? 0 : kind === "GET" || kind === "HEAD" ? READ : WRITE);
  const hourly = [...perHour].reduce((sum, [kind, count]) => sum + count * price(kind), 0);
  // In the same order each time: rounds are put together by it.
  return { perHour: new Map([...perHour].sort(([a], [b]) => a.localeCompare(b))), dollars: hourly * MONTH_HOURS };
}

/** One database that is written to all the time: the requests of capture, compactions and all. */
export function requestPrices(): Figure {
  return {
    name: "growth: requests",
    section: "growth",
    seconds: INTERVALS_SECONDS.length * (COUNTED_SECONDS + 10),
    async run(scratch) {
      await using server = await s3Server(scratch);
      if (server === undefined) return { rows: [] };
      const proxy = await S3Proxy.start(Number(new URL(server.endpoint).port));
      const points: Point[] = [];
      try {
        for (const interval of INTERVALS_SECONDS) {
          const dir = folder(scratch, "requests");
          const db = path.join(dir, "app.db");
          await writer("init", db, 4);
          const config = path.join(dir, "sluice.yml");
          const store = server.url(`requests-${interval}`).replace(new URL(server.endpoint).port, String(proxy.port));
          writeFileSync(config, JSON.stringify({ dbs: [{ path: db, store, "sync-interval": `${interval}s` }] }));
          await using process = new Background(sluice, ["replicate", "--config", config], {
            LOG_LEVEL: "info",
            ...server.env,
          });
          await process.printed(/protected/);
          const writing = writer("run", db, COUNTED_SECONDS + 6, RATE, "normal");
          await new Promise((done) => setTimeout(done, 4000));
          proxy.take();
          await new Promise((done) => setTimeout(done, COUNTED_SECONDS * 1000));
          const { dollars } = perMonth(proxy.take(), COUNTED_SECONDS);
          points.push({ series: "one database, written to all the time", x: interval, y: [dollars] });
          await writing;
        }
      } finally {
        await proxy.stop();
      }
      const plot = {
        name: "requests",
        title: "Requests to S3, list price",
        x: { title: "sync-interval, s", log: true },
        y: { title: "$ a month" },
        points,
      } as const;
      const one = points.find(({ x }) => x === 1)!;
      const note = `${RATE} commits/s for ${COUNTED_SECONDS} s before SeaweedFS, compactions included; list price of S3 Standard in us-east-1: 0.005 $ for 1,000 PUT or LIST, 0.0004 $ for 1,000 GET`;
      const figure =
        "requests to S3 for one database that is written to all the time, `sync-interval` 1 s: price a month";
      return { rows: [{ figure, measures: [{ unit: "$", digits: 2, values: one.y }], note }], plots: [plot] };
    },
  };
}

import fc from "fast-check";
import { expect, test } from "vitest";
import { intake, planLevel, windowEnd } from "../../src/log/levels.ts";
import { LogListing, type LogFile } from "../../src/log/listing.ts";

function file(level: number, minTxid: number, maxTxid = minTxid): LogFile {
  return { key: `${level}/${minTxid}-${maxTxid}`, level, minTxid, maxTxid, sizeBytes: 1, modifiedMs: 0 };
}

function sources(listing: LogListing, level: number): string[] | string {
  const found = intake(listing, level);
  return found.kind === "hole" ? `hole after ${found.afterTxid}` : found.sources.map((source) => source.key);
}

test("a level takes in what the one below has above its end", () => {
  const listing = new LogListing([file(0, 3), file(0, 4), file(0, 5), file(0, 6), file(1, 1, 4)]);
  expect(sources(listing, 1)).toEqual(["0/5-5", "0/6-6"]);
  expect(sources(listing, 2)).toEqual(["1/1-4"]);
});

test("a file that begins before the end of the level and reaches past it is a source", () => {
  const listing = new LogListing([file(1, 1, 3), file(1, 2, 6), file(1, 7, 8), file(2, 1, 4)]);
  expect(sources(listing, 2)).toEqual(["1/2-6", "1/7-8"]);
});

test("an empty level begins behind the newest snapshot, or else with the whole log", () => {
  expect(sources(new LogListing([file(0, 1), file(0, 2), file(9, 1, 1)]), 1)).toEqual(["0/2-2"]);
  expect(sources(new LogListing([file(0, 1), file(0, 2)]), 1)).toEqual(["0/1-1", "0/2-2"]);
});

test("where files are missing a level goes on behind a snapshot, or says that it can't", () => {
  const missing = [file(0, 7), file(0, 8), file(1, 1, 4)];
  expect(sources(new LogListing(missing), 1)).toBe("hole after 4");
  expect(sources(new LogListing([...missing, file(9, 1, 6)]), 1)).toEqual(["0/7-7", "0/8-8"]);
  expect(sources(new LogListing([...missing, file(9, 1, 5)]), 1)).toBe("hole after 5");
  expect(sources(new LogListing([...missing, file(9, 1, 8)]), 1)).toEqual([]);
});

test("a longer file covers a shorter one whose own predecessor is gone", () => {
  expect(sources(new LogListing([file(1, 1, 2), file(1, 5, 6), file(1, 3, 7), file(2, 1, 2)]), 2)).toEqual(["1/3-7"]);
});

test("windows are wall-clock multiples of the interval, and open ones wait", () => {
  const times = new Map([1_000, 29_999, 30_000, 45_000, 61_000].map((ms, i) => [i + 1, ms]));
  const files = [...times.keys()].map((txid) => file(0, txid));
  const plan = (nowMs: number): string[] =>
    planLevel(1, 30_000, files, (source) => times.get(source.maxTxid)!, nowMs).map((p) => `${p.minTxid}-${p.maxTxid}`);
  expect(plan(29_999)).toEqual([]);
  expect(plan(30_000)).toEqual(["1-2"]);
  expect(plan(89_999)).toEqual(["1-2", "3-4"]);
  expect(plan(90_000)).toEqual(["1-2", "3-4", "5-5"]);
  expect(windowEnd(30_000, 30_000)).toBe(60_000);
});

test("whoever compacts, and whenever, makes the same files", () => {
  const steps = fc.array(fc.integer({ min: 0, max: 20_000 }), { minLength: 1, maxLength: 30 });
  const looks = fc.array(fc.integer({ min: 0, max: 600_000 }), { maxLength: 10 });
  fc.assert(
    fc.property(steps, looks, (gaps, nows) => {
      let ms = 0;
      const times = new Map(gaps.map((gap, i) => [i + 1, (ms += gap)]));
      const made = (moments: readonly number[]): string[] => {
        const listing = new LogListing([...times.keys()].map((txid) => file(0, txid)));
        const names: string[] = [];
        for (const nowMs of moments) {
          const found = intake(listing, 1);
          if (found.kind === "hole") throw new Error("hole");
          const seen = found.sources.filter((source) => times.get(source.maxTxid)! <= nowMs);
          for (const plan of planLevel(1, 30_000, seen, (source) => times.get(source.maxTxid)!, nowMs)) {
            listing.add(file(1, plan.minTxid, plan.maxTxid));
            names.push(`${plan.minTxid}-${plan.maxTxid}`);
          }
        }
        return names;
      };
      expect(made([...nows.toSorted((a, b) => a - b), 1_000_000])).toEqual(made([1_000_000]));
    }),
  );
});

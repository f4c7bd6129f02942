import fc from "fast-check";
import { expect, test } from "vitest";
import { nearest } from "../../src/config/nearest.ts";
import { formatDuration, parseDuration, parseSize } from "../../src/config/duration.ts";

test.each([
  ["250ms", 250],
  ["1s", 1000],
  ["1.5s", 1500],
  ["1h30m", 5_400_000],
  ["7d", 604_800_000],
  ["0", 0],
  ["24", undefined],
  ["24x", undefined],
  ["-1s", undefined],
  ["", undefined],
  ["1s ", undefined],
])("the duration %j is %s ms", (text, ms) => {
  expect(parseDuration(text)).toBe(ms);
});

test("a duration is read back as it was written", () => {
  fc.assert(
    fc.property(fc.nat(), (ms) => {
      expect(parseDuration(formatDuration(ms))).toBe(ms);
    }),
  );
});

test.each([
  ["1000", 1000],
  ["10MB", 10_000_000],
  ["64MiB", 67_108_864],
  ["5 GiB", 5 * 1024 ** 3],
  ["1.5k", 1500],
  ["10XB", undefined],
  ["", undefined],
  ["-1", undefined],
])("the size %j is %s bytes", (text, bytes) => {
  expect(parseSize(text)).toBe(bytes);
});

test.each([
  ["stroe", "store"],
  ["snapshoot", "snapshot"],
  ["PATH", "path"],
  ["xyzzy", undefined],
])("the word nearest to %s is %s", (word, expected) => {
  expect(nearest(word, ["path", "store", "snapshot"])).toBe(expected);
});

import fc from "fast-check";
import { expect, test } from "vitest";
import { LogListing, type LogFile } from "../../src/log/listing.ts";
import { planRetention, type RecordFate } from "../../src/log/retention.ts";

const LIMITS = { l0RetentionMs: 300_000, snapshotRetentionMs: 86_400_000 };
const HOUR = 3_600_000;
const NOW = 100 * HOUR;

function file(level: number, minTxid: number, maxTxid: number, ageMs: number): LogFile {
  return { key: `${level}/${minTxid}-${maxTxid}`, level, minTxid, maxTxid, sizeBytes: 1, modifiedMs: NOW - ageMs };
}

function plan(files: LogFile[], takeovers: number[] = [], unread: number[] = []): { gone: string[]; unread: string[] } {
  const fateOf = (f: LogFile): RecordFate | undefined =>
    unread.includes(f.maxTxid) ? undefined : { isTakeover: f.level === 0 && takeovers.includes(f.maxTxid) };
  const result = planRetention(new LogListing(files), fateOf, LIMITS, NOW);
  return { gone: result.deletable.map((f) => f.key), unread: result.unread.map((f) => f.key) };
}

const l0 = (txid: number, ageMs = HOUR): LogFile => file(0, txid, txid, ageMs);

test("a record goes when it's old and a higher level covers it; the newest stays", () => {
  const files = [l0(1), l0(2), l0(3, 299_999), l0(4), l0(5), file(1, 1, 3, HOUR), file(2, 5, 5, HOUR)];
  expect(plan(files).gone).toEqual(["0/1-1", "0/2-2"]);
});

test("takeover records stay for ever, but the first", () => {
  const files = [l0(1), l0(2), l0(3), l0(4), file(9, 1, 4, HOUR)];
  expect(plan(files, [1, 2]).gone).toEqual(["0/1-1", "0/3-3"]);
});

test("a record whose header nobody has read stays, and is named, newest first", () => {
  const files = [l0(1), l0(2), l0(3), l0(4), file(1, 1, 4, HOUR)];
  expect(plan(files, [], [1, 3])).toEqual({ gone: ["0/2-2"], unread: ["0/3-3", "0/1-1"] });
});

test("a cover that was made this moment justifies nothing yet", () => {
  expect(plan([l0(1), l0(2), file(1, 1, 2, 9_999)]).gone).toEqual([]);
  expect(plan([l0(1), l0(2), file(1, 1, 2, 10_000)]).gone).toEqual(["0/1-1"]);
});

test("snapshots stay until a newer one is older than the retention", () => {
  const snapshots = [
    file(9, 1, 10, 72 * HOUR),
    file(9, 1, 20, 48 * HOUR),
    file(9, 1, 30, 25 * HOUR),
    file(9, 1, 40, HOUR),
  ];
  expect(plan(snapshots).gone).toEqual(["9/1-10", "9/1-20"]);
  expect(plan(snapshots.slice(0, 1)).gone).toEqual([]);
});

test("compacted files go when they end before the oldest snapshot that is kept; each level keeps its newest", () => {
  const files = [
    file(1, 1, 9, 50 * HOUR),
    file(1, 10, 29, 40 * HOUR),
    file(1, 30, 35, 20 * HOUR),
    file(2, 1, 9, 50 * HOUR),
    file(2, 10, 19, 40 * HOUR),
    file(9, 1, 20, 30 * HOUR),
    file(9, 1, 30, 25 * HOUR),
    file(9, 1, 40, HOUR),
  ];
  expect(plan(files).gone).toEqual(["9/1-20", "1/1-9", "1/10-29", "2/1-9"]);
  expect(plan(files.filter((f) => f.level < 9 || f.modifiedMs > NOW - 2 * HOUR)).gone).toEqual([]);
});

/** Files that cover all slots from 1 to the head, and many more. */
const anyLog = fc
  .record({
    head: fc.integer({ min: 1, max: 12 }),
    extra: fc.array(
      fc.record({
        level: fc.integer({ min: 1, max: 9 }),
        min: fc.integer({ min: 1, max: 12 }),
        length: fc.integer({ min: 0, max: 11 }),
        ageMs: fc.integer({ min: 0, max: 80 * HOUR }),
      }),
      { maxLength: 14 },
    ),
    takeovers: fc.array(fc.integer({ min: 1, max: 12 })),
  })
  .map(({ head, extra, takeovers }) => {
    const records = Array.from({ length: head }, (_, i) => l0(i + 1, 90 * HOUR));
    const others = extra.map(({ level, min, length, ageMs }) => {
      const start = level === 9 ? 1 : Math.min(min, head);
      return file(level, start, Math.min(start + length, head), ageMs);
    });
    return { files: [...new Map([...records, ...others].map((f) => [f.key, f])).values()], takeovers };
  });

test("nothing that is deleted leaves a slot without a file, again and again, also by two who know half each", () => {
  fc.assert(
    fc.property(anyLog, fc.infiniteStream(fc.boolean()), ({ files, takeovers }, coin) => {
      const fateOf = (f: LogFile): RecordFate => ({ isTakeover: f.level === 0 && takeovers.includes(f.maxTxid) });
      const store = new Map(files.map((f) => [f.key, f]));
      // Each deleter knows all records, and of the other files only some.
      const known = [0, 1].map(() => files.filter((f) => f.level === 0 || coin.next().value === true));
      const plans = known.map((some) => planRetention(new LogListing(some), fateOf, LIMITS, NOW).deletable);
      for (const f of plans.flat()) store.delete(f.key);
      expect(new LogListing(store.values()).firstGap()).toBeUndefined();
      const fences = files.filter((f) => fateOf(f).isTakeover && f.maxTxid !== 1);
      expect(fences.filter((f) => !store.has(f.key))).toEqual([]);
    }),
    { numRuns: 500 },
  );
});

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import type { LogFile } from "../../src/log/listing.ts";
import { planNewest, planOnward, planTimestamp, planTxid, Reachable, withoutStrays } from "../../src/log/plan.ts";

const URL = "file:///bucket/app";

function file(level: number, minTxid: number, maxTxid: number, sizeBytes = 1000, modifiedMs = 0): LogFile {
  return { key: `${level}/${minTxid}-${maxTxid}`, level, minTxid, maxTxid, sizeBytes, modifiedMs };
}

const keys = (plan: { files: readonly LogFile[] } | undefined) => plan?.files.map((f) => f.key);

function failure(run: () => unknown): { code: string; hint: string; message: string } {
  try {
    run();
  } catch (error) {
    if (isSluiceError(error)) return error;
    throw error;
  }
  throw new Error("did not throw");
}

async function failureOf(promise: Promise<unknown>): Promise<{ code: string; hint: string }> {
  const error: unknown = await promise.then(
    () => new Error("did not reject"),
    (cause: unknown) => cause,
  );
  if (isSluiceError(error)) return error;
  throw error;
}

/** All reachable states and their cheapest costs, found the slow way. */
function bruteForce(files: readonly LogFile[], base = 0): Map<number, number> {
  const cost = new Map<number, number>([[base, 0]]);
  for (let changed = true; changed;) {
    changed = false;
    for (const f of files) {
      for (const [from, c] of Array.from(cost)) {
        if (from < f.minTxid - 1 || from >= f.maxTxid) continue;
        const total = c + f.sizeBytes + 64 * 1024;
        if (total < (cost.get(f.maxTxid) ?? Infinity)) {
          cost.set(f.maxTxid, total);
          changed = true;
        }
      }
    }
  }
  cost.delete(base);
  return cost;
}

const anyFile = fc
  .record({
    level: fc.integer({ min: 0, max: 9 }),
    min: fc.integer({ min: 1, max: 30 }),
    length: fc.integer({ min: 0, max: 12 }),
    sizeBytes: fc.integer({ min: 100, max: 500_000 }),
  })
  .map(({ level, min, length, sizeBytes }) =>
    level === 0 ? file(0, min, min, sizeBytes) : file(level, level === 9 ? 1 : min, min + length, sizeBytes),
  );

describe("the planner", () => {
  test("finds a contiguous and cheapest plan whenever one exists", () => {
    fc.assert(
      fc.property(fc.array(anyFile, { maxLength: 40 }), fc.oneof(fc.constant(0), fc.nat(20)), (files, from) => {
        const expected = bruteForce(files, from);
        const reachable = new Reachable(files, from);
        expect(reachable.txids).toEqual([...expected.keys()].toSorted((a, b) => a - b));
        for (const [txid, cost] of expected) {
          const plan = reachable.plan(txid)!;
          let state = from;
          for (const f of plan.files) {
            expect(f.minTxid - 1).toBeLessThanOrEqual(state);
            expect(f.maxTxid).toBeGreaterThan(state);
            state = f.maxTxid;
          }
          expect(state).toBe(txid);
          const bytes = plan.files.reduce((sum, f) => sum + f.sizeBytes, 0);
          expect(plan.sizeBytes).toBe(bytes);
          expect(bytes + plan.files.length * 64 * 1024).toBe(cost);
        }
        for (let txid = 1; txid < 45; txid++) {
          if (!expected.has(txid)) expect(reachable.plan(txid)).toBeUndefined();
        }
      }),
      { numRuns: 500 },
    );
  });

  test("does not depend on the order of the listing", () => {
    fc.assert(
      fc.property(fc.array(anyFile, { maxLength: 30 }), fc.infiniteStream(fc.nat()), (files, random) => {
        const shuffled = files
          .map((f) => [random.next().value as number, f] as const)
          .toSorted((a, b) => a[0] - b[0])
          .map(([, f]) => f);
        expect(new Reachable(shuffled).txids).toEqual(new Reachable(files).txids);
      }),
    );
  });

  test("takes the newest snapshot and what follows it", () => {
    const files = [
      file(9, 1, 5, 980_000),
      file(9, 1, 10, 1_000_000),
      file(1, 6, 8),
      file(1, 9, 12),
      file(0, 11, 11),
      file(0, 12, 12),
      file(0, 13, 13),
    ];
    expect(keys(planNewest(files, URL))).toEqual(["9/1-10", "1/9-12", "0/13-13"]);
  });

  test("goes around a hole on one level over another", () => {
    const files = [file(0, 1, 1), file(0, 2, 2), file(0, 4, 4), file(1, 1, 2), file(2, 2, 3)];
    expect(keys(planNewest(files, URL))).toEqual(["1/1-2", "2/2-3", "0/4-4"]);
  });

  test("prefers few bytes to few files", () => {
    const files = [file(9, 1, 10, 1000), file(3, 1, 11, 50_000_000), file(0, 11, 11, 1000)];
    expect(keys(planNewest(files, URL))).toEqual(["9/1-10", "0/11-11"]);
  });

  test("handles a hundred thousand files at once", () => {
    const files = [file(9, 1, 1)];
    for (let txid = 2; txid <= 100_000; txid++) files.push(file(0, txid, txid));
    expect(planNewest(files, URL).files).toHaveLength(100_000);
  });

  test("refuses the newest state behind a gap, and says what is left", () => {
    const error = failure(() => planNewest([file(9, 1, 5), file(0, 6, 6), file(0, 8, 8)], URL));
    expect(error.code).toBe("SLU-4504");
    expect(error.message).toContain("0000000000000008");
    expect(error.hint).toContain("--txid 0000000000000006");
    expect(failure(() => planNewest([file(0, 3, 3)], URL)).code).toBe("SLU-4504");
    expect(failure(() => planNewest([], URL)).code).toBe("SLU-4501");
  });

  test("restores a state before a gap when it's asked for", () => {
    const files = [file(9, 1, 5), file(0, 6, 6), file(0, 8, 8)];
    expect(planTxid(files, 6, URL).txid).toBe(6);
  });

  test("leads a copy onward from where it is, through higher levels over a gap", () => {
    const files = [file(9, 1, 5, 9_000_000), file(1, 6, 9), file(0, 9, 9), file(0, 10, 10)];
    expect(keys(planOnward(files, 9, URL))).toEqual(["0/10-10"]);
    expect(keys(planOnward(files, 7, URL))).toEqual(["1/6-9", "0/10-10"]);
    expect(keys(planOnward(files, 3, URL))).toEqual(["9/1-5", "1/6-9", "0/10-10"]);
    expect(planOnward(files, 10, URL)).toBeUndefined();
    expect(failure(() => planOnward(files, 11, URL)).code).toBe("SLU-4513");
    expect(failure(() => planOnward(files.slice(1), 3, URL)).code).toBe("SLU-4513");
  });

  test("names the nearest states where a TXID is not there", () => {
    const files = [file(9, 1, 10), file(1, 11, 20), file(1, 21, 30)];
    const error = failure(() => planTxid(files, 15, URL));
    expect(error.code).toBe("SLU-4502");
    expect(error.hint).toContain("000000000000000a and 0000000000000014");
    expect(failure(() => planTxid(files, 31, URL)).hint).toContain("000000000000001e");
  });
});

describe("a restore to a time", () => {
  const files = [file(9, 1, 10), ...[11, 12, 13, 14].map((txid) => file(0, txid, txid)), file(1, 13, 14)];
  const times = new Map([10, 11, 12, 13, 14].map((txid) => [txid, txid * 1000]));
  const timeOf = (f: LogFile) => Promise.resolve(f.level === 9 ? 99_000_000 : times.get(f.maxTxid)!);

  test("takes the newest state at or before it", async () => {
    const exact = (ms: number) => planTimestamp(files.slice(1).concat(file(1, 1, 10)), ms, timeOf, URL);
    expect((await exact(12_000)).txid).toBe(12);
    expect((await exact(12_999)).txid).toBe(12);
    expect((await exact(13_000)).txid).toBe(13);
    expect((await exact(1e9)).txid).toBe(14);
    expect((await exact(10_000)).txid).toBe(10);
  });

  test("believes the record, not the snapshot that ends at it", async () => {
    const both = [...files, file(0, 10, 10)];
    expect((await planTimestamp(both, 10_500, timeOf, URL)).txid).toBe(10);
  });

  test("asks for few times only", async () => {
    const many = [file(9, 1, 1)];
    for (let txid = 2; txid <= 4096; txid++) many.push(file(0, txid, txid));
    let asked = 0;
    const plan = await planTimestamp(many, 2000, (f) => (asked++, Promise.resolve(f.maxTxid)), URL);
    expect(plan.txid).toBe(2000);
    expect(asked).toBeLessThan(20);
  });

  test("names the range of times when the log does not reach back", async () => {
    const error = await failureOf(planTimestamp(files, 500, (f) => Promise.resolve(f.maxTxid * 1000), URL));
    expect(error.code).toBe("SLU-4503");
    expect(error.hint).toContain("1970-01-01T00:00:10.000Z to 1970-01-01T00:00:14.000Z");
  });

  test("does not pass off the state before a gap for a later one", async () => {
    const gap = [file(9, 1, 10), file(0, 12, 12)];
    const at = (f: LogFile) => Promise.resolve(f.maxTxid * 1000);
    expect((await failureOf(planTimestamp(gap, 12_500, at, URL))).code).toBe("SLU-4504");
    expect((await planTimestamp(gap, 11_500, at, URL)).txid).toBe(10);
  });
});

describe("strays", () => {
  test("a record younger than what covers it is left out", () => {
    const stray = file(0, 5, 5, 100, 2000);
    const files = [file(1, 4, 6, 100, 1000), stray, file(0, 6, 6, 100, 900), file(0, 7, 7, 100, 3000)];
    expect(withoutStrays(files)).toEqual(files.filter((f) => f !== stray));
  });

  test("are found among overlapping levels as by looking at every pair", () => {
    const timed = fc.tuple(anyFile, fc.integer({ min: 0, max: 10 })).map(([f, ms]) => ({ ...f, modifiedMs: ms }));
    fc.assert(
      fc.property(fc.array(timed, { maxLength: 40 }), (files) => {
        const expected = files.filter(
          (r) =>
            r.level > 0 ||
            !files.some(
              (c) => c.level > 0 && c.minTxid <= r.minTxid && c.maxTxid >= r.maxTxid && c.modifiedMs < r.modifiedMs,
            ),
        );
        expect(withoutStrays(files)).toEqual(expected);
      }),
    );
  });
});

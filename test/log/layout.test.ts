import fc from "fast-check";
import { expect, test } from "vitest";
import { LogLayout } from "../../src/log/layout.ts";
import { LogListing, type LogFile } from "../../src/log/listing.ts";

const families = ["ltx-prefix", "level-prefix"] as const;

test("keys are Litestream's, in both families", () => {
  const files = new LogLayout("ltx-prefix", "app");
  expect(files.key(9, 1, 255)).toBe("app/ltx/9/0000000000000001-00000000000000ff.ltx");
  expect(files.slotKey(10)).toBe("app/ltx/0/000000000000000a-000000000000000a.ltx");
  expect(files.identityKey).toBe("app/sluice.json");
  const s3 = new LogLayout("level-prefix", "app");
  expect(s3.key(9, 1, 255)).toBe("app/0009/0000000000000001-00000000000000ff.ltx");
  expect(new LogLayout("level-prefix").key(0, 1, 1)).toBe("0000/0000000000000001-0000000000000001.ltx");
});

test.for(families)("%s: what key makes, parse reads, and the order of keys is that of levels and TXIDs", (family) => {
  const txid = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
  const name = fc.record({ level: fc.integer({ min: 0, max: 9 }), a: txid, b: txid });
  fc.assert(
    fc.property(fc.constantFrom("", "app", "tenants/a.db"), name, name, (prefix, one, other) => {
      const layout = new LogLayout(family, prefix);
      const [x, y] = [one, other].map(({ level, a, b }) => ({
        level,
        minTxid: Math.min(a, b),
        maxTxid: Math.max(a, b),
      }));
      const keys = [x!, y!].map(({ level, minTxid, maxTxid }) => layout.key(level, minTxid, maxTxid));
      expect(layout.parse(keys[0]!)).toEqual(x);
      expect(keys[0]!.startsWith(layout.filesPrefix)).toBe(true);
      const order = x!.level - y!.level || x!.minTxid - y!.minTxid || x!.maxTxid - y!.maxTxid;
      expect(Math.sign(order)).toBe(keys[0] === keys[1] ? 0 : keys[0]! < keys[1]! ? -1 : 1);
    }),
  );
});

test.for([
  "ltx/0/0000000000000001-0000000000000001.ltx.tmp",
  "ltx/0/0000000000000001.ltx",
  "ltx/0/000000000000000A-000000000000000A.ltx",
  "ltx/10/0000000000000001-0000000000000001.ltx",
  "ltx/x/0000000000000001-0000000000000001.ltx",
  "ltx/0/a/0000000000000001-0000000000000001.ltx",
  "ltx/0/0000000000000000-0000000000000001.ltx",
  "ltx/0/0000000000000002-0000000000000001.ltx",
  "ltx/0/0000000000000001-ffffffffffffffff.ltx",
  "other/0/0000000000000001-0000000000000001.ltx",
  "ltx/0",
  "sluice.json",
])("%s is no file of the log", (key) => {
  expect(new LogLayout("ltx-prefix").parse(key)).toBeUndefined();
});

function file(level: number, minTxid: number, maxTxid: number, modifiedMs = 0): LogFile {
  return { key: `${level}/${minTxid}-${maxTxid}`, level, minTxid, maxTxid, sizeBytes: 1, modifiedMs };
}

test("a listing knows its head, its gaps and what covers a slot", () => {
  const listing = new LogListing([file(0, 1, 1), file(1, 2, 5, 70), file(9, 1, 4, 50), file(0, 6, 6), file(0, 9, 9)]);
  expect(listing.head).toBe(9);
  expect(listing.maxTxid(1)).toBe(5);
  expect(listing.firstGap()).toBe(7);
  expect(listing.cover(3, 3, 0)?.key).toBe("9/1-4");
  expect(listing.cover(5, 5, 0)?.key).toBe("1/2-5");
  expect(listing.cover(3, 3, 9)).toBeUndefined();
  expect(listing.cover(6, 6, 0)).toBeUndefined();
  listing.add(file(1, 6, 9));
  expect(listing.firstGap()).toBeUndefined();
  listing.remove(file(9, 1, 4));
  listing.remove(file(0, 1, 1));
  expect(listing.firstGap()).toBe(1);
});

test("adding files in any order makes the same listing as having them from the start", () => {
  const files = fc.array(fc.tuple(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 0, max: 5 })), { maxLength: 12 });
  fc.assert(
    fc.property(files, (spans) => {
      const all = spans.map(([min, length]) => file(1, min, min + length));
      const distinct = [...new Map(all.map((entry) => [entry.key, entry])).values()];
      const added = new LogListing();
      for (const entry of all) added.add(entry);
      expect(added.level(1)).toEqual(new LogListing(distinct).level(1));
    }),
  );
});

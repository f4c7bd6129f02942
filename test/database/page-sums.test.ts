import { readFileSync, writeFileSync } from "node:fs";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { PageSums } from "../../src/database/page-sums.ts";
import { loadSums, saveSums } from "../../src/database/sums-file.ts";
import { scratch } from "./apps.ts";

let dir: ReturnType<typeof scratch>;
beforeEach(() => {
  dir = scratch("sums");
});
afterEach(() => dir.remove());

const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
const step = fc.oneof(
  fc.record({ resize: fc.nat({ max: 200 }) }),
  fc.record({ page: fc.nat({ max: 200 }), lo: word, hi: word }),
);

function checksum(pages: readonly bigint[]): bigint {
  return pages.reduce((sum, page) => sum ^ page, 0n);
}

function toU64(lo: number, hi: number): bigint {
  return (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
}

test("is a list of sums and their XOR, whatever grows, shrinks and changes", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const sums = new PageSums();
      const model: bigint[] = [];
      for (const one of steps) {
        if ("resize" in one) {
          sums.resize(one.resize);
          while (model.length < one.resize) model.push(0n);
          model.length = one.resize;
        } else if (one.page >= 1 && one.page <= model.length) {
          sums.set(one.page, one.lo, one.hi);
          model[one.page - 1] = toU64(one.lo, one.hi);
        } else {
          expect(() => sums.set(one.page, one.lo, one.hi)).toThrow(RangeError);
        }
        expect(sums.checksum).toBe(checksum(model));
      }
      expect(sums.count).toBe(model.length);
      expect(model.map((_, i) => toU64(sums.lo(i + 1), sums.hi(i + 1)))).toEqual(model);
      expect(new PageSums(sums.words, sums.count).checksum).toBe(sums.checksum);
    }),
  );
});

function random(count: number): PageSums {
  const words = new Int32Array(2 * count);
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + 1, 0x9e3779b1) ^ (i << 7);
  return new PageSums(words, count);
}

test("a table of many slices is loaded as it was when it was saved, though it changes meanwhile", async () => {
  const sums = random(200_000);
  const { checksum: before } = sums;
  const saved = saveSums(dir.path(""), 2 ** 40, sums);
  sums.set(150_000, 1, 2);
  sums.resize(100_000);
  await saved;
  const loaded = await loadSums(dir.path(""));
  expect(loaded?.txid).toBe(2 ** 40);
  expect(loaded?.sums.count).toBe(200_000);
  expect(loaded?.sums.checksum).toBe(before);
});

test("a file that is cut or damaged at any byte counts as none", async () => {
  await saveSums(dir.path(""), 9, random(5));
  const file = dir.path("pages");
  const whole = readFileSync(file);
  for (let i = 0; i < whole.length; i++) {
    writeFileSync(file, whole.subarray(0, i));
    expect(await loadSums(dir.path(""))).toBe(undefined);
    const damaged = Buffer.from(whole);
    damaged[i]! ^= 4;
    writeFileSync(file, damaged);
    expect(await loadSums(dir.path(""))).toBe(undefined);
  }
  writeFileSync(file, whole);
  expect((await loadSums(dir.path("")))?.txid).toBe(9);
});

test("without a directory nothing is saved, and the error says what was not written", async () => {
  await expect(saveSums(dir.path("gone"), 1, random(1))).rejects.toMatchObject({ code: "SLU-2006" });
  expect(await loadSums(dir.path("gone"))).toBe(undefined);
});

import fc from "fast-check";
import { expect, test } from "vitest";
import { Crc64, CrcShift } from "../../src/ltx/crc64.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { lockPage, type LtxHeader } from "../../src/ltx/header.ts";
import { PageSum, sumValue } from "../../src/ltx/page-sum.ts";
import { recordFields, recordHeader } from "../../src/ltx/record.ts";

const fields = {
  position: (7n << 32n) | 12n,
  checksum: 0xfeed_beef_0102_0304n,
  epoch: 7,
  writer: 0x1234_5678_9abc_def0n,
  members: [3, 65535],
};

function header(pageSize: number, pageCount: number, txid: number): LtxHeader {
  return recordHeader({ pageSize, pageCount, minTxid: txid, maxTxid: txid, timestampMs: 1_700_000_000_123 }, fields);
}

function encode(head: LtxHeader, pages: ReadonlyMap<number, Uint8Array>): Uint8Array {
  const chunks: Uint8Array[] = [];
  const encoder = new LtxEncoder(head, (chunk) => chunks.push(chunk.slice()));
  for (const [pgno, page] of pages) encoder.page(pgno, page);
  const summary = encoder.finish();
  const file = new Uint8Array(Buffer.concat(chunks));
  expect(summary.sizeBytes).toBe(file.length);
  return file;
}

function decode(file: Uint8Array, chunkBytes = file.length): { head: LtxHeader; pages: Map<number, Uint8Array> } {
  const pages = new Map<number, Uint8Array>();
  const decoder = new LtxDecoder("test", { page: (pgno, content) => void pages.set(pgno, Uint8Array.from(content)) });
  for (let at = 0; at < file.length; at += chunkBytes) decoder.push(file.slice(at, at + chunkBytes));
  return { head: decoder.end(), pages };
}

test("CRC-64/GO-ISO has its check value", () => {
  expect(new Crc64().update(Buffer.from("123456789")).value()).toBe(0xb90956c775a41001n);
  expect(new Crc64().value()).toBe(0n);
});

test("a CRC can be continued over bytes of which only the CRC is known", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.uint8Array({ maxLength: 3000 }), (a, b) => {
      const first = new Crc64().update(a);
      const second = new Crc64().update(b);
      const shifted = new CrcShift(b.length).shift(first.lo, first.hi);
      const joined = new Crc64().set(shifted.lo ^ second.lo, shifted.hi ^ second.hi);
      expect(joined.value()).toBe(new Crc64().update(a).update(b).value());
    }),
  );
});

test("page sums are CRC-64 of number and content, then fmix64", () => {
  const mask = (1n << 64n) - 1n;
  const mix = (x: bigint): bigint => {
    let y = ((x ^ (x >> 33n)) * 0xff51afd7ed558ccdn) & mask;
    y = ((y ^ (y >> 33n)) * 0xc4ceb9fe1a85ec53n) & mask;
    return y ^ (y >> 33n);
  };
  const sum = new PageSum(512);
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 0xffffffff }),
      fc.uint8Array({ minLength: 512, maxLength: 512 }),
      (pgno, page) => {
        sum.of(pgno, page, 0, 512);
        const number = Buffer.alloc(4);
        number.writeUInt32BE(pgno);
        expect(sumValue(sum.lo, sum.hi)).toBe(mix(new Crc64().update(number).update(page).value()));
      },
    ),
  );
});

test("the same change on two pages does not cancel out in a database's checksum", () => {
  const sum = new PageSum(512);
  const of = (pgno: number, page: Uint8Array): bigint => {
    sum.of(pgno, page, 0, 512);
    return sumValue(sum.lo, sum.hi);
  };
  const page = new Uint8Array(512).fill(7);
  const changed = page.slice();
  changed[100] = 8;
  const checksum = (third: Uint8Array, seventh: Uint8Array): bigint => of(3, third) ^ of(7, seventh);
  const states = [checksum(page, page), checksum(changed, page), checksum(page, changed), checksum(changed, changed)];
  expect(new Set(states).size).toBe(4);
});

const sizes = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];

test("what was encoded is decoded, in chunks of any size", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...sizes),
      fc.uniqueArray(fc.integer({ min: 1, max: 5000 }), { maxLength: 12 }),
      fc.integer({ min: 1, max: 70_000 }),
      fc.integer(),
      (pageSize, numbers, chunkBytes, seed) => {
        const pages = new Map(numbers.sort((a, b) => a - b).map((pgno) => [pgno, content(pageSize, pgno ^ seed)]));
        const head = header(pageSize, 5000, 9);
        const back = decode(encode(head, pages), chunkBytes);
        expect(back.pages).toEqual(pages);
        expect(back.head).toEqual(head);
        expect(recordFields(back.head)).toEqual(fields);
      },
    ),
    { numRuns: 60 },
  );
});

function content(pageSize: number, seed: number): Uint8Array {
  let state = seed | 1;
  // Half noise, half repetition.
  return new Uint8Array(pageSize).map((_, i) => {
    state = Math.imul(state, 1664525) + 1013904223;
    return i % 64 < 32 ? state >>> 24 : i % 7;
  });
}

test("the lock page is never in a file", () => {
  const pgno = lockPage(65536);
  expect(pgno).toBe(16385);
  const encoder = new LtxEncoder(header(65536, 20_000, 2), () => undefined);
  expect(() => encoder.page(pgno, new Uint8Array(65536))).toThrow(/page 16385/);
});

test("every truncation and every flipped bit is an error; a flip that LZ4 decodes to the same bytes is harmless", () => {
  const pages = new Map([1, 2, 3].map((pgno) => [pgno, content(512, pgno)]));
  for (const txid of [1, 5]) {
    const file = encode(header(512, 3, txid), pages);
    let errors = 0;
    for (let length = 0; length < file.length; length++) expect(() => decode(file.slice(0, length))).toThrow();
    for (let bit = 0; bit < file.length * 8; bit++) {
      const damaged = file.slice();
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      let back: ReturnType<typeof decode>;
      try {
        back = decode(damaged);
      } catch {
        errors += 1;
        continue;
      }
      // Only compressed bytes can be other ones and say the same, e.g. the distance of a match in a repetition.
      expect(back, `bit ${bit}`).toEqual(decode(file.slice()));
    }
    expect(errors).toBeGreaterThan(file.length * 8 * 0.9);
  }
});

test("a file cannot be longer than it says", () => {
  const file = encode(header(512, 3, 5), new Map([[2, content(512, 2)]]));
  expect(() => decode(new Uint8Array([...file, 0]))).toThrow(/damaged end/);
});

test("a snapshot must have all its pages", () => {
  const encoder = new LtxEncoder(header(512, 3, 1), () => undefined);
  encoder.page(1, content(512, 1));
  expect(() => encoder.page(3, content(512, 3))).toThrow(/page 3 after 1/);
  expect(() => encoder.finish()).toThrow(/ends at page 1/);
});

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Crc64, CrcShift } from "../../src/ltx/crc64.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { FLAG_NO_CHECKSUM, lockPage } from "../../src/ltx/header.ts";
import { PageSum, sumValue } from "../../src/ltx/page-sum.ts";
import { recordFields, recordHeader } from "../../src/ltx/record.ts";
import { content, decode, encode, fields, header } from "./files.ts";

test("CRC-64/GO-ISO has its check value", () => {
  expect(new Crc64().update(Buffer.from("123456789")).value()).toBe(0xb90956c775a41001n);
  expect(new Crc64().value()).toBe(0n);
});

test("CRC-64 by tables is CRC-64 bit by bit, wherever the bytes begin", () => {
  const bitwise = (bytes: Uint8Array): bigint => {
    let crc = (1n << 64n) - 1n;
    for (const byte of bytes) {
      crc ^= BigInt(byte);
      for (let bit = 0; bit < 8; bit++) crc = (crc & 1n) === 1n ? (crc >> 1n) ^ 0xd800000000000000n : crc >> 1n;
    }
    return crc ^ ((1n << 64n) - 1n);
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(20), (bytes, start) => {
      const from = Math.min(start, bytes.length);
      expect(new Crc64().update(bytes, from).value()).toBe(bitwise(bytes.subarray(from)));
    }),
  );
});

test("the kernel for long runs goes on where the tables stopped, and the other way round", () => {
  const noise = content(200_000, 11);
  fc.assert(
    fc.property(fc.nat(150_000), fc.nat(50_000), fc.nat(300), (start, length, before) => {
      const from = Math.min(start, before);
      const whole = new Crc64().update(noise, start - from, start).update(noise, start, start + length);
      const pieces = new Crc64();
      for (let at = start - from; at < start + length; at += 100) {
        pieces.update(noise, at, Math.min(at + 100, start + length));
      }
      expect(whole.value()).toBe(pieces.value());
    }),
    { numRuns: 40 },
  );
  // More than the kernel's window at once.
  const pieces = new Crc64();
  for (let at = 0; at < noise.length; at += 200) pieces.update(noise, at, at + 200);
  expect(new Crc64().update(noise).value()).toBe(pieces.value());
});

test("where WebAssembly gets no memory, the CRC is the same", async () => {
  const file = new URL("../../src/ltx/crc64.ts", import.meta.url).href;
  const program = `
    const { Crc64 } = await import(${JSON.stringify(file)});
    WebAssembly.Instance = class { constructor() { throw new RangeError("out of memory"); } };
    process.stdout.write(String(new Crc64().update(new Uint8Array(5000).fill(7)).value()));
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program]);
  expect(BigInt(stdout)).toBe(new Crc64().update(new Uint8Array(5000).fill(7)).value());
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

test("the lock page is never in a file", () => {
  const pgno = lockPage(65536);
  expect(pgno).toBe(16385);
  const encoder = new LtxEncoder(header(65536, 20_000, 2), () => undefined);
  expect(() => encoder.page(pgno, new Uint8Array(65536))).toThrow(/page 16385/);
});

test("a snapshot beyond 1 GiB goes around the lock page", () => {
  const pageSize = 65536;
  const lock = lockPage(pageSize);
  const last = lock + 1;
  const page = new Uint8Array(pageSize);
  let count = 0;
  let sum = 0;
  const decoder = new LtxDecoder("snapshot", {
    page: (pgno) => {
      count += 1;
      sum += pgno;
    },
  });
  const encoder = new LtxEncoder(header(pageSize, last, 1), (chunk) => decoder.push(chunk));
  for (let pgno = 1; pgno <= last; pgno++) if (pgno !== lock) encoder.page(pgno, page);
  encoder.finish();
  decoder.end();
  expect({ count, sum }).toEqual({ count: last - 1, sum: (last * (last + 1)) / 2 - lock });
});

test("pages on both sides of the lock page are read, the lock page is refused", () => {
  const pages = new Map([16384, 16386].map((pgno) => [pgno, content(65536, pgno)]));
  const file = encode(header(65536, 20_000, 2), pages);
  expect(decode(file).pages).toEqual(pages);
  const frame = Buffer.alloc(4);
  frame.writeUInt32BE(16386);
  const at = Buffer.from(file).indexOf(frame, 200);
  file[at + 3] = 16385 & 255;
  expect(() => decode(file)).toThrow(/has page 16385/);
});

test("a header is 100 bytes, each field at its place", () => {
  const about = { pageSize: 65536, pageCount: 0x01020304, minTxid: 5, maxTxid: 2 ** 53 - 1, timestampMs: 1 };
  const bytes = encode(recordHeader(about, fields), new Map()).subarray(0, 100);
  const expected = [
    "4c545831 00000002 00010000 01020304",
    "0000000000000005 001fffffffffffff 0000000000000001",
    "0000000000000000 0000000000000020 0000000000000000",
    "12345678 9abcdef0 000000070000000c",
    "feedbeef01020304 0003ffff0000 0000 00000007",
  ];
  expect(Buffer.from(bytes).toString("hex")).toBe(expected.join("").replaceAll(" ", ""));
});

test("a header that no reader of LTX would accept is refused, written or read", () => {
  const good = header(4096, 9, 3);
  const bytes = encode(good, new Map());
  const set = (at: number, value: number): (() => unknown) => {
    const damaged = Buffer.from(bytes);
    damaged[at] = value;
    return () => decode(damaged);
  };
  const wrong = [
    { bad: { ...good, pageSize: 256 }, read: set(10, 1) },
    { bad: { ...good, pageSize: 5000 }, read: set(11, 1) },
    { bad: { ...good, flags: 4 | FLAG_NO_CHECKSUM }, read: set(7, 6) },
    { bad: { ...good, minTxid: 0 }, read: set(23, 0) },
    { bad: { ...good, minTxid: 4 }, read: set(23, 4) },
    { bad: { ...good, maxTxid: 2 ** 53 }, read: set(25, 0x20) },
    { bad: { ...good, pageCount: 0 }, read: set(15, 0) },
    { bad: { ...good, timestampMs: 2 ** 54 }, read: set(32, 1) },
    { bad: { ...good, preApplyChecksum: 1n << 63n }, read: set(40, 0x80) },
    { bad: { ...good, flags: 0 }, read: set(7, 0) },
    { bad: { ...good, walOffset: -1n }, read: set(48, 0x80) },
    { bad: { ...good, walOffset: 0n }, read: set(55, 0) },
  ];
  for (const { bad, read } of wrong) {
    expect(() => encode(bad, new Map())).toThrow(expect.objectContaining({ code: "SLU-5000" }));
    expect(read).toThrow(expect.objectContaining({ code: "SLU-5001" }));
  }
});

test("a file of Litestream has no fields of Sluice's", () => {
  const good = header(4096, 9, 3);
  expect(recordFields({ ...good, reserved: new Uint8Array(20) })).toBeUndefined();
  expect(recordFields({ ...good, nodeId: 0n })).toBeUndefined();
  expect(recordFields({ ...good, walSalt1: 0, walSalt2: 0 })).toBeUndefined();
  expect(recordFields({ ...good, walOffset: 4152n })).toBeUndefined();
  expect(() => recordHeader(good, { ...fields, writer: 0n })).toThrow(/needs a writer/);
  expect(() => recordHeader(good, { ...fields, members: [1, 2, 3, 4] })).toThrow(/three members/);
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

import { randomBytes } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Crc64 } from "../../src/ltx/crc64.ts";
import { compressBlock, decompressByLibrary, LENGTH_BYTES } from "../../src/ltx/lz4.ts";
import {
  blockBytesMax,
  FOLD_BYTES,
  FREE_AT,
  type PageKernel,
  pageKernel,
  SLACK_BYTES,
} from "../../src/ltx/page-kernel.ts";
import { PageRun } from "../../src/ltx/page-run.ts";

const MEMORY_BYTES = 512 * 1024;
const TO = FREE_AT + 256 * 1024;

function kernel(): PageKernel {
  const made = pageKernel(MEMORY_BYTES);
  if (made === undefined) throw new Error("this Node.js has no WebAssembly with vectors");
  return made;
}

/** The definition, bit by bit. */
function crcByBits(bytes: Uint8Array, start: bigint): bigint {
  let crc = start;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = (crc >> 1n) ^ (crc & 1n ? 0xd800000000000000n : 0n);
  }
  return crc;
}

test("the kernel's CRC is that of the definition, from any value on", () => {
  const { memory, state, crc } = kernel();
  const property = fc.property(
    fc.integer({ min: 1, max: 20 }),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
    fc.infiniteStream(fc.nat(255)),
    (blocks, start, stream) => {
      const bytes = Uint8Array.from({ length: blocks * FOLD_BYTES }, () => stream.next().value as number);
      memory.set(bytes, FREE_AT);
      new BigUint64Array(state.buffer, state.byteOffset, 1)[0] = start;
      crc(FREE_AT, FREE_AT + bytes.length);
      expect(new BigUint64Array(state.buffer, state.byteOffset, 1)[0]).toBe(crcByBits(bytes, start));
    },
  );
  fc.assert(property, { numRuns: 100 });
});

test("a CRC of any length, in any parts, is the same with and without the kernel", () => {
  const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) >>> 7);
  const whole = crcByBits(bytes, 2n ** 64n - 1n) ^ (2n ** 64n - 1n);
  for (const step of [100, 255, 1000, 70_001, 300_000]) {
    const crc = new Crc64();
    for (let at = 0; at < bytes.length; at += step) crc.update(bytes, at, Math.min(bytes.length, at + step));
    expect(crc.value()).toBe(whole);
  }
});

/** Runs of repetitions at every small distance, and noise between them: what makes an LZ4 block interesting. */
const content = fc
  .array(
    fc.record({
      distance: fc.integer({ min: 1, max: 40 }),
      length: fc.nat(300),
      noise: fc.uint8Array({ maxLength: 40 }),
    }),
    {
      minLength: 1,
      maxLength: 20,
    },
  )
  .map((parts) => {
    const bytes: number[] = [];
    for (const { distance, length, noise } of parts) {
      bytes.push(...noise);
      for (let i = 0; i < length; i++) bytes.push(bytes.at(-distance) ?? 7);
    }
    return Uint8Array.from([...bytes, 1, 2, 3]);
  });

function byLibrary(block: Uint8Array, size: number): Uint8Array | undefined {
  const bytes = Buffer.concat([Buffer.alloc(LENGTH_BYTES), block]);
  try {
    return decompressByLibrary(bytes, LENGTH_BYTES, bytes.length, size);
  } catch {
    return undefined;
  }
}

test("blocks of the LZ4 library come back, and damaged ones do no harm", () => {
  const { memory, decompress } = kernel();
  const property = fc.property(
    content,
    fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }),
    (bytes, damage) => {
      const block = Uint8Array.from(compressBlock(bytes));
      for (const [at, value] of damage) block[at % block.length] = value;
      const size = bytes.length;
      memory.fill(0xa5, FREE_AT);
      memory.set(block, FREE_AT);
      const done = decompress(FREE_AT, FREE_AT + block.length, TO, TO + size);
      const expected = byLibrary(block, size);
      // The library also insists on how a block ends; what it accepts must be accepted, and be the same.
      if (expected !== undefined)
        expect([done, memory.slice(TO, TO + size)]).toEqual([true, Uint8Array.from(expected)]);
      if (damage.length === 0) expect(done).toBe(true);
      expect(memory.subarray(FREE_AT, FREE_AT + block.length)).toEqual(block);
      const before = memory.subarray(FREE_AT + block.length, TO);
      const after = memory.subarray(TO + size + SLACK_BYTES);
      for (const untouched of [before, after]) expect(untouched.every((byte) => byte === 0xa5)).toBe(true);
    },
  );
  fc.assert(property, { numRuns: 300 });
});

test("what the kernel compresses, the library decompresses, and nothing else of the memory changes", () => {
  const { memory, compress } = kernel();
  let smaller = 0;
  const property = fc.property(content, fc.uint8Array({ maxLength: 3000 }), (repeating, noise) => {
    const bytes = Uint8Array.from([...repeating, ...noise, ...repeating]);
    memory.fill(0xa5, FREE_AT);
    memory.set(bytes, FREE_AT);
    const end = compress(FREE_AT, FREE_AT + bytes.length, TO);
    expect(end - TO).toBeLessThanOrEqual(blockBytesMax(bytes.length));
    if (end - TO < bytes.length) smaller++;
    expect(byLibrary(memory.slice(TO, end), bytes.length)).toEqual(Buffer.from(bytes));
    expect(memory.subarray(FREE_AT, FREE_AT + bytes.length)).toEqual(bytes);
    const before = memory.subarray(FREE_AT + bytes.length, TO);
    const after = memory.subarray(end + SLACK_BYTES);
    for (const untouched of [before, after]) expect(untouched.every((byte) => byte === 0xa5)).toBe(true);
  });
  fc.assert(property, { numRuns: 200 });
  expect(smaller).toBeGreaterThan(100);
});

test.each([512, 4096, 65536])(
  "pages of %i bytes compress about as well as the library's, noise grows within the bound",
  (size) => {
    const { memory, compress } = kernel();
    const rows = Buffer.from(Array.from({ length: size }, (_, i) => (i % 97 < 40 ? (i * i) >>> 5 : i % 97)));
    const noise = randomBytes(size);
    for (const page of [rows, noise, Buffer.alloc(size)]) {
      memory.set(page, FREE_AT);
      const sizeBytes = compress(FREE_AT, FREE_AT + size, TO) - TO;
      expect(sizeBytes).toBeLessThanOrEqual(Math.min(blockBytesMax(size), compressBlock(page).length * 1.1 + 8));
      expect(byLibrary(memory.slice(TO, TO + sizeBytes), size)).toEqual(page);
    }
  },
);

test("a block that is cut off, too long, too short, or points before its beginning is refused", () => {
  const { memory, decompress } = kernel();
  const run = (block: readonly number[], size: number): boolean => {
    memory.set(block, FREE_AT);
    return decompress(FREE_AT, FREE_AT + block.length, TO, TO + size);
  };
  const good = [0x41, 1, 2, 3, 4, 4, 0, 0x50, 1, 2, 3, 4, 5];
  expect(run(good, 14)).toBe(true);
  expect([...memory.subarray(TO, TO + 14)]).toEqual([1, 2, 3, 4, 1, 2, 3, 4, 1, 1, 2, 3, 4, 5]);
  for (let length = 0; length < good.length; length++) expect(run(good.slice(0, length), 14)).toBe(false);
  for (const size of [0, 4, 9, 13, 15, 4096]) expect(run(good, size)).toBe(false);
  for (const distance of [0, 5, 255]) expect(run(good.with(5, distance), 14)).toBe(false);
  expect(run([0xf0, ...Array.from({ length: 1000 }, () => 255)], 65536)).toBe(false);
  expect(run([0x1f, 1, 1, 0, ...Array.from({ length: 1000 }, () => 255), 0, 0], 4096)).toBe(false);
});

test("a run of pages refuses a block that no page can have", () => {
  const run = new PageRun(65536, 0);
  expect(() => run.add(new Uint8Array(80_000), 0, 80_000, 1, 0, 65536)).toThrow(/SLU-5002|damaged/);
});

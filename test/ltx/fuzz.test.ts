import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import { lockPage } from "../../src/ltx/header.ts";
import { decompressLz4 } from "../../src/ltx/lz4-stream.ts";
import { decompressFrame } from "../../src/ltx/lz4.ts";
import { mergeFiles } from "../../src/ltx/merge.ts";
import { parseIndex } from "../../src/ltx/page-index.ts";
import { blockBytesMax, FREE_AT, pageKernel, SLACK_BYTES } from "../../src/ltx/page-kernel.ts";
import { fuzz, mutated } from "../fuzz/fuzz.ts";
import { assembleFile, content, decode, type Frame, header, lz4, lz4Block, lz4Frame } from "./files.ts";

let dir: string;

beforeAll(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-fuzz-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

/** Undefined for what was refused with a code of LTX files; whatever else is thrown fails. */
function accepted<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (!isSluiceError(error) || !error.code.startsWith("SLU-5")) throw error;
    return undefined;
  }
}

const PAGE = 512;
const page = (pgno: number): Uint8Array => content(PAGE, pgno);
const pages = [1, 2, 3, 4].map((pgno) => lz4Block(pgno, page(pgno)));
const originals = [
  assembleFile(header(PAGE, 4, 1), pages),
  assembleFile(header(PAGE, 9, 4), [lz4Frame(2, page(2)), lz4Block(7, page(7)), lz4Frame(9, page(9))]),
];

fuzz("a changed LTX file is refused, or says what the original says", 600, () =>
  fc.asyncProperty(mutated(...originals), fc.integer({ min: 1, max: 3_000 }), async (bytes, chunk) => {
    const back = accepted(() => decode(bytes, chunk));
    if (back !== undefined) expect(originals.map((original) => decode(original).pages)).toContainEqual(back.pages);
  }),
);

const numbers = fc.oneof(fc.integer({ min: 0, max: 12 }), fc.constantFrom(lockPage(PAGE), 0xffffffff));
const payloads = mutated(pages[0]!.payload, lz4Frame(1, page(1)).payload);
const frame: fc.Arbitrary<Frame> = fc.oneof(
  numbers.map((pgno) => lz4Block(pgno, page(pgno))),
  fc.record({ pgno: numbers, page: fc.constant(page(1)), payload: payloads, sized: fc.boolean() }),
);

fuzz("a file whose checksums are right gives pages in order, of their size, within the database", 600, () =>
  fc.asyncProperty(
    fc.integer({ min: 1, max: 9 }),
    fc.integer({ min: 1, max: 3 }),
    fc.array(frame),
    async (count, txid, all) => {
      const back = accepted(() => decode(assembleFile(header(PAGE, count, txid), all)));
      let last = 0;
      for (const [pgno, bytes] of back?.pages ?? []) {
        expect(pgno).toBeGreaterThan(last);
        expect(pgno).toBeLessThanOrEqual(count);
        expect(bytes.length).toBe(PAGE);
        last = pgno;
      }
      if (back !== undefined && txid === 1) expect(back.pages.size).toBe(count);
    },
  ),
);

const blocks = [
  content(4096, 1),
  new Uint8Array(4096),
  content(65536, 3),
  Uint8Array.from({ length: 4096 }, (_, i) => (i * i) >> 5),
];
const SIZES = [512, 4096, 65536];
const kernel = pageKernel(4 * blockBytesMax(65536))!;
const FROM = FREE_AT + 4096;
/** What nobody may touch. */
const canary = new Uint8Array(kernel.memory.length - FREE_AT).fill(0xa5);
const isUntouched = (from: number, to: number): boolean =>
  Buffer.compare(kernel.memory.subarray(from, to), canary.subarray(0, to - from)) === 0;
const TO = FROM + blockBytesMax(65536) + 4096;

fuzz("a block that is decompressed is what the library makes of it, and nothing beside it is touched", 500, () => {
  const block = mutated(...blocks.map((bytes) => Uint8Array.from(lz4.compressSync(bytes).subarray(4))));
  return fc.asyncProperty(block, fc.constantFrom(...SIZES), async (bytes, size) => {
    const input = bytes.subarray(0, blockBytesMax(65536));
    kernel.memory.set(canary, FREE_AT);
    kernel.memory.set(input, FROM);
    const isWhole = kernel.decompress(FROM, FROM + input.length, TO, TO + size);
    expect(isUntouched(FREE_AT, FROM)).toBe(true);
    expect(isUntouched(TO - 2048, TO)).toBe(true);
    expect(isUntouched(TO + size + SLACK_BYTES, kernel.memory.length)).toBe(true);
    expect(Buffer.compare(kernel.memory.subarray(FROM, FROM + input.length), input)).toBe(0);
    if (!isWhole) return;
    const sized = Buffer.alloc(4 + input.length);
    sized.writeUInt32LE(size);
    sized.set(input, 4);
    const theirs = (lz4 as unknown as { uncompressSync(bytes: Uint8Array): Buffer }).uncompressSync(sized);
    expect(Buffer.compare(kernel.memory.subarray(TO, TO + size), theirs)).toBe(0);
  });
});

fuzz("a changed frame of LZ4 is refused, or is a page", 1_000, () =>
  fc.asyncProperty(
    mutated(lz4Frame(1, page(1)).payload, lz4.compressFrameSync(new Uint8Array(PAGE))),
    async (bytes) => {
      const back = accepted(() => decompressFrame(bytes, PAGE));
      if (back !== undefined) expect(back.length).toBe(PAGE);
    },
  ),
);

fuzz("a changed stream of LZ4 is refused with its code", 60, () => {
  const whole = lz4.compressFrameSync(content(200_000, 5), { contentChecksum: true });
  return fc.asyncProperty(mutated(whole), fc.integer({ min: 1, max: 50_000 }), async (bytes, chunk) => {
    const body = async function* (): AsyncGenerator<Uint8Array> {
      for (let at = 0; at < bytes.length; at += chunk) yield bytes.slice(at, at + chunk);
    };
    let size = 0;
    try {
      for await (const part of decompressLz4("fuzzed", body())) size += part.length;
    } catch (error) {
      if (!isSluiceError(error, "SLU-5002")) throw error;
    }
    expect(size).toBeLessThan(64 * 1024 * 1024);
  });
});

fuzz("a page index is read or refused", 1_000, () => {
  const index = originals[0]!.slice(-60);
  return fc.asyncProperty(fc.oneof(mutated(index), fc.uint8Array({ maxLength: 200 })), async (bytes) => {
    const { count, pgno } = accepted(() => parseIndex(Uint8Array.from(bytes))) ?? { count: 0, pgno: [] };
    for (let i = 1; i < count; i++) expect(pgno[i]).toBeGreaterThan(pgno[i - 1]!);
  });
});

fuzz("a merge of changed files is a whole file or nothing at all", 150, () =>
  fc.asyncProperty(
    mutated(originals[0]!),
    fc.oneof(fc.constant(originals[0]!), mutated(originals[1]!)),
    async (one, two) => {
      const inputs = [one, two].map((bytes, i) => {
        writeFileSync(path.join(dir, `in${i}`), bytes);
        return path.join(dir, `in${i}`);
      });
      const output = path.join(dir, "out");
      const merged = accepted(() => [...mergeFiles(inputs, output)]);
      expect(readdirSync(dir).toSorted()).toEqual(merged === undefined ? ["in0", "in1"] : ["in0", "in1", "out"]);
      if (merged === undefined) return;
      decode(new Uint8Array(readFileSync(output)));
      rmSync(output);
    },
  ),
);

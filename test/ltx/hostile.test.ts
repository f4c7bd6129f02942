import fc from "fast-check";
import { expect, test } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { decompressLz4, Xxh32 } from "../../src/ltx/lz4-stream.ts";
import { decompressFrame } from "../../src/ltx/lz4.ts";
import { IndexBuilder, parseIndex } from "../../src/ltx/page-index.ts";
import { PagePress } from "../../src/ltx/page-press.ts";
import { assembleFile, content, decode, encode, type Frame, header, lz4, lz4Block, lz4Frame } from "./files.ts";

/** What decoding came to: the pages, or the code of the error; anything but a SluiceError fails the test. */
function outcome<T>(work: () => T): T | "refused" {
  try {
    return work();
  } catch (error) {
    if (!isSluiceError(error)) throw error;
    expect(error.code).toMatch(/^SLU-500[12]$/);
    return "refused";
  }
}

const pages = new Map([2, 3, 9].map((pgno) => [pgno, content(512, pgno)]));
const frames = (of: (pgno: number, page: Uint8Array) => Frame): Frame[] =>
  [...pages].map(([pgno, page]) => of(pgno, page));

test("files of both page encodings, and of both at once, say the same", () => {
  const head = header(512, 9, 4);
  const mixed = (pgno: number, page: Uint8Array): Frame => (pgno === 3 ? lz4Frame : lz4Block)(pgno, page);
  for (const of of [lz4Frame, lz4Block, mixed]) {
    const file = assembleFile(head, frames(of));
    for (const chunkBytes of [1, 7, 512, file.length]) expect(decode(file, chunkBytes)).toEqual({ head, pages });
  }
});

test("the encoder writes what one makes of the format's description", () => {
  const head = header(512, 9, 4);
  const press = new PagePress();
  const block = (pgno: number, page: Uint8Array): Frame => {
    return { pgno, page, sized: true, payload: press.block(page, 0, page.length).slice() };
  };
  expect(encode(head, pages)).toEqual(assembleFile(head, frames(block)));
});

test("frames with sums of their blocks are read, too", () => {
  const options = { contentChecksum: true, blockChecksums: true };
  const of = (pgno: number, page: Uint8Array): Frame => ({
    pgno,
    page,
    sized: false,
    payload: lz4.compressFrameSync(page, options),
  });
  expect(decode(assembleFile(header(512, 9, 4), frames(of))).pages).toEqual(pages);
});

test("no truncation and no flipped bit of a file with frames gives a wrong page", () => {
  const file = assembleFile(header(512, 9, 4), frames(lz4Frame));
  const whole = decode(file);
  let refused = 0;
  for (let length = 0; length < file.length; length++) {
    expect(outcome(() => decode(file.slice(0, length)))).toBe("refused");
  }
  for (let bit = 0; bit < file.length * 8; bit++) {
    const damaged = file.slice();
    damaged[bit >> 3]! ^= 1 << (bit & 7);
    const back = outcome(() => decode(damaged));
    if (back === "refused") refused += 1;
    else expect(back, `bit ${bit}`).toEqual(whole);
  }
  expect(refused).toBeGreaterThan(file.length * 8 * 0.95);
});

test("no damage of any kind gives a wrong page or another error", () => {
  const originals = [lz4Block, lz4Frame].map((of) => assembleFile(header(512, 9, 4), frames(of)));
  const whole = decode(originals[0]!);
  const change = fc.tuple(fc.nat(3000), fc.integer({ min: 0, max: 255 }));
  const changes = fc.array(change, { minLength: 1, maxLength: 6 });
  let refused = 0;
  fc.assert(
    fc.property(fc.constantFrom(...originals), changes, fc.integer({ min: 1, max: 4000 }), (original, all, chunk) => {
      const damaged = original.slice();
      for (const [at, value] of all) damaged[at % damaged.length] = value;
      const back = outcome(() => decode(damaged, chunk));
      if (back === "refused") refused += 1;
      else expect(back).toEqual(whole);
    }),
    { numRuns: 1500 },
  );
  expect(refused).toBeGreaterThan(1000);
});

test("a page that decompresses to another size is refused, whatever the checksums say", () => {
  const head = header(512, 9, 4);
  for (const bytes of [0, 511, 513, 65536]) {
    const page = content(bytes, 5);
    for (const of of [lz4Block, lz4Frame]) {
      expect(outcome(() => decode(assembleFile(head, [of(3, page)])))).toBe("refused");
    }
  }
});

test("pages in no order, twice, past the end, or with flags of the future are refused", () => {
  const page = content(512, 1);
  const of = (...numbers: number[]): Uint8Array =>
    assembleFile(
      header(512, 9, 4),
      numbers.map((pgno) => lz4Block(pgno, page)),
    );
  expect(() => decode(of(3, 2))).toThrow(/has page 2 .* after page 3/);
  expect(() => decode(of(3, 3))).toThrow(/has page 3 .* after page 3/);
  expect(() => decode(of(10))).toThrow(/has page 10/);
  const future = of(3);
  future[105] = 2;
  expect(() => decode(future)).toThrow(/flags 2/);
});

test("a page that claims more than a page can take is refused before it is collected", () => {
  const block = assembleFile(header(512, 9, 4), [lz4Block(3, content(512, 1))]);
  block.set([0x7f, 0xff, 0xff, 0xff], 106);
  expect(() => decode(block.slice(0, 110))).toThrow(/page 3 of 2147483647 compressed bytes/);

  const zeros = lz4.compressFrameSync(Buffer.alloc(10_000_000));
  expect(() => decompressFrame(zeros, 512)).toThrow(/compressed page has/);
  const bomb: Frame = { pgno: 3, page: content(512, 1), sized: false, payload: zeros };
  const decoder = new LtxDecoder("bomb", { page: () => expect.unreachable() });
  const file = assembleFile(header(512, 9, 4), [bomb]);
  // The end of the frame is not in sight when it's too long already.
  expect(() => decoder.push(file.subarray(0, 4096))).toThrow(/page 3 that is too long/);
});

test("a file that goes on behind its pages is refused at once", () => {
  const decoder = new LtxDecoder("endless", { page: () => undefined });
  const file = encode(header(512, 9, 4), pages);
  decoder.push(file);
  expect(() => decoder.push(new Uint8Array(1))).toThrow(/damaged end/);
});

test("a page index says what was added, and is nothing but that", () => {
  const entry = fc.tuple(fc.integer({ min: 1, max: 1000 }), fc.nat(2 ** 45), fc.nat(0xffffffff));
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 300 }), (entries) => {
      const index = new IndexBuilder();
      let page = 0;
      const added = entries.map(([step, offset, size]) => ({ pgno: (page += step), offset, size }));
      for (const { pgno, offset, size } of added) index.add(pgno, offset, size);
      const bytes = index.finish();
      expect(Buffer.from(bytes.slice(0, 6))).toEqual(Buffer.alloc(6));
      expect(Buffer.from(bytes).readBigUInt64BE(bytes.length - 8)).toBe(BigInt(bytes.length - 14));
      const { count, pgno, offset, size } = parseIndex(bytes.slice(6, -8));
      expect(count).toBe(added.length);
      expect(added).toEqual([...pgno].map((_, i) => ({ pgno: pgno[i], offset: offset[i], size: size[i] })));
      expect(outcome(() => parseIndex(bytes.slice(6, -9)))).toBe("refused");
    }),
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => void outcome(() => parseIndex(bytes))));
});

test("XXH32 has its known values, in pieces too", () => {
  const of = (...parts: string[]): string => {
    const sum = new Xxh32();
    for (const part of parts) sum.update(Buffer.from(part));
    return sum.value().toString(16).padStart(8, "0");
  };
  expect([of(""), of("a"), of("abc")]).toEqual(["02cc5d05", "550d7456", "32d153ff"]);
  const text = "Nobody inspects the spammish repetition";
  expect(of(text)).toBe("e2293b2f");
  for (let cut = 0; cut < text.length; cut++) expect(of(text.slice(0, cut), text.slice(cut))).toBe("e2293b2f");
});

async function* inChunks(bytes: Uint8Array, chunkBytes: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
}

async function decompressed(bytes: Uint8Array, chunkBytes: number): Promise<Buffer | "refused"> {
  const blocks: Buffer[] = [];
  try {
    for await (const block of decompressLz4("stream", inChunks(bytes, chunkBytes))) blocks.push(block);
  } catch (error) {
    if (!isSluiceError(error, "SLU-5002")) throw error;
    return "refused";
  }
  return Buffer.concat(blocks);
}

test("a stream of LZ4 comes back whole in chunks of any size, with and without sums", async () => {
  const long = Buffer.from(content(300_000, 3));
  for (const contentChecksum of [true, false]) {
    for (const blockChecksums of [true, false]) {
      const bytes = lz4.compressFrameSync(long, { contentChecksum, blockChecksums });
      for (const chunkBytes of [1009, 65536, bytes.length]) {
        const back = await decompressed(bytes, chunkBytes);
        expect(back !== "refused" && back.equals(long)).toBe(true);
      }
    }
  }
});

test("no truncation and no flipped bit of a stream gives wrong bytes", async () => {
  const original = Buffer.from(content(400, 3));
  for (const blockChecksums of [true, false]) {
    const bytes = lz4.compressFrameSync(original, { contentChecksum: true, blockChecksums });
    for (let length = 0; length < bytes.length; length++) {
      expect(await decompressed(bytes.subarray(0, length), 64)).toBe("refused");
    }
    expect(await decompressed(Buffer.concat([bytes, Buffer.alloc(1)]), 64)).toBe("refused");
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const damaged = Buffer.from(bytes);
      damaged[bit >> 3]! ^= 1 << (bit & 7);
      const back = await decompressed(damaged, bytes.length);
      // What is before the first block, and the blocks where they have sums, may not be other bytes at all.
      if (blockChecksums || bit < 56) expect(back, `bit ${bit}`).toBe("refused");
      if (back !== "refused") expect(back.equals(original), `bit ${bit}`).toBe(true);
    }
  }
});

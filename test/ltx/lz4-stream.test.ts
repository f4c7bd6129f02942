import { randomBytes } from "node:crypto";
import { expect, test } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import { decompressLz4, Xxh32 } from "../../src/ltx/lz4-stream.ts";
import { compressBlock } from "../../src/ltx/lz4.ts";

const BLOCK_MAX = 4 * 1024 * 1024;

/** A frame as Litestream 0.3 writes it: independent blocks of 4 MiB, checksum of the content. */
function frame(content: Buffer): Buffer {
  const parts: Buffer[] = [Buffer.from("04224d186470b9", "hex")];
  for (let at = 0; at < content.length; at += BLOCK_MAX) {
    const raw = content.subarray(at, at + BLOCK_MAX);
    const block = compressBlock(raw);
    const head = Buffer.alloc(4);
    const stored = block.length >= raw.length;
    head.writeUInt32LE(stored ? raw.length + 0x80000000 : block.length);
    parts.push(head, stored ? raw : Buffer.from(block));
  }
  const end = Buffer.alloc(8);
  const sum = new Xxh32();
  sum.update(content);
  end.writeUInt32LE(sum.value(), 4);
  return Buffer.concat([...parts, end]);
}

async function decompress(bytes: Buffer, chunkBytes: number): Promise<Buffer> {
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (let at = 0; at < bytes.length; at += chunkBytes) yield bytes.subarray(at, at + chunkBytes);
  }
  const blocks: Buffer[] = [];
  for await (const block of decompressLz4("test", chunks())) blocks.push(block);
  return Buffer.concat(blocks);
}

test("XXH32 gives the values of its specification, however the input is cut", () => {
  const sum = (text: string, cut: number) => {
    const bytes = Buffer.from(text);
    const xxh = new Xxh32();
    xxh.update(bytes.subarray(0, cut));
    xxh.update(bytes.subarray(cut));
    return xxh.value();
  };
  const text = "Nobody inspects the spammish repetition";
  for (let cut = 0; cut <= text.length; cut++) expect(sum(text, cut)).toBe(0xe2293b2f);
  expect(sum("", 0)).toBe(0x02cc5d05);
  expect(sum("abc", 1)).toBe(0x32d153ff);
});

test("a frame of several blocks comes back, however it arrives", async () => {
  const content = Buffer.concat([randomBytes(3_000_000), Buffer.alloc(4_000_000, "sluice"), randomBytes(2_500_001)]);
  for (const chunkBytes of [1_000_003, 64 * 1024, 100_000_000]) {
    expect((await decompress(frame(content), chunkBytes)).equals(content)).toBe(true);
  }
  expect(await decompress(frame(Buffer.alloc(0)), 3)).toHaveLength(0);
});

test("a damaged or cut frame, or one with something behind it, is an error", async () => {
  const whole = frame(Buffer.concat([randomBytes(300), Buffer.alloc(3000, "abc")]));
  const outcome = (bytes: Buffer) =>
    decompress(bytes, 50).then(
      () => "whole",
      (error: unknown) => (isSluiceError(error) ? error.code : error),
    );
  for (let length = 0; length < whole.length; length += 11) {
    expect(await outcome(whole.subarray(0, length))).toBe("SLU-5002");
  }
  expect(await outcome(Buffer.concat([whole, Buffer.alloc(1)]))).toBe("SLU-5002");
  for (const at of [0, 4, 5, 8, 60, whole.length - 1]) {
    const damaged = Buffer.from(whole);
    damaged[at]! ^= 0x80;
    expect(await outcome(damaged), `byte ${at}`).toBe("SLU-5002");
  }
});

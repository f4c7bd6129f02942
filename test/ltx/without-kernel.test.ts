import { afterEach, expect, test, vi } from "vitest";
import { Crc64 } from "../../src/ltx/crc64.ts";
import { content, decode, encode, header } from "./files.ts";

afterEach(() => {
  vi.unstubAllGlobals();
  vi.resetModules();
});

/** This room as it is where WebAssembly has no memory, or the processor no vectors. */
async function withoutKernel(kind: "memory" | "vectors") {
  class CompileError extends Error {}
  function Module(): never {
    throw kind === "memory" ? new RangeError("could not allocate memory") : new CompileError("no SIMD");
  }
  vi.stubGlobal("WebAssembly", { Module, CompileError });
  vi.resetModules();
  const { threadKernel } = await import("../../src/ltx/page-kernel.ts");
  expect(threadKernel()).toBe(undefined);
  const { LtxEncoder } = await import("../../src/ltx/encoder.ts");
  const { LtxDecoder } = await import("../../src/ltx/decoder.ts");
  const { PageRun } = await import("../../src/ltx/page-run.ts");
  const { compressBlock } = await import("../../src/ltx/lz4.ts");
  return { LtxEncoder, LtxDecoder, PageRun, compressBlock };
}

test.each(["memory", "vectors"] as const)(
  "files without the kernel (%s) are read with it, and the other way round",
  async (kind) => {
    const pages = new Map([2, 3, 9].map((pgno) => [pgno, content(4096, pgno)]));
    const head = header(4096, 9, 4);
    const { LtxEncoder, LtxDecoder, PageRun, compressBlock } = await withoutKernel(kind);

    const chunks: Uint8Array[] = [];
    const encoder = new LtxEncoder(head, (chunk) => chunks.push(chunk.slice()));
    for (const [pgno, page] of pages) encoder.page(pgno, page);
    encoder.finish();
    expect(decode(Buffer.concat(chunks)).pages).toEqual(pages);

    const read = new Map<number, Uint8Array>();
    const decoder = new LtxDecoder("file", { page: (pgno, page) => void read.set(pgno, Uint8Array.from(page)) });
    decoder.push(encode(head, pages));
    decoder.end();
    expect(read).toEqual(pages);

    const run = new PageRun(8192, 100);
    const block = Buffer.concat([Buffer.alloc(4), compressBlock(pages.get(3)!)]);
    run.add(block, 4, block.length, 1, 4096, 4096);
    expect(run.memory.slice(4096)).toEqual(pages.get(3));
    const { lo, hi } = new Crc64().update(pages.get(3)!);
    expect([run.contentLo, run.contentHi]).toEqual([lo, hi]);
  },
);

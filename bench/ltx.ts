/**
 * Speeds of the parts that touch every page, each on one core: `node bench/ltx.ts`. Not on the page of benchmarks,
 * which shows what users see; this is for whoever changes those parts.
 */
import { Crc64 } from "../src/ltx/crc64.ts";
import { LtxDecoder } from "../src/ltx/decoder.ts";
import { LtxEncoder } from "../src/ltx/encoder.ts";
import { compressBlock, decompressBlock, LENGTH_BYTES } from "../src/ltx/lz4.ts";
import { PageSum } from "../src/ltx/page-sum.ts";
import { recordHeader } from "../src/ltx/record.ts";
import { median } from "./lib/report.ts";

const PAGE_BYTES = 4096;
const PAGES = 16_384;
const ROUNDS = 5;
/** The LZ4 library frees what it returned in turns of the event loop. */
const TURN_PAGES = 128;

/** Half noise, half repetition: compresses to about 60 %. */
const pages = Buffer.alloc(PAGES * PAGE_BYTES);
for (let i = 0; i < pages.length; i++) pages[i] = i % 64 < 32 ? Math.random() * 256 : i % 7;

const sum = new PageSum(PAGE_BYTES);
const crc = new Crc64();
const about = { pageSize: PAGE_BYTES, pageCount: PAGES, minTxid: 1, maxTxid: 1, timestampMs: 1 };
const header = recordHeader(about, { position: 1n, checksum: 1n, epoch: 1, writer: 1n, members: [] });
const blocks = Array.from({ length: PAGES }, (_, i) => {
  const block = compressBlock(pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES));
  return Buffer.concat([Buffer.alloc(LENGTH_BYTES), block]);
});

/** Megabytes of pages a second: the median of some rounds. */
async function measure(name: string, page: (i: number) => void, end?: () => void): Promise<void> {
  const rates: number[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const start = performance.now();
    for (let i = 0; i < PAGES; i++) {
      page(i);
      if (i % TURN_PAGES === TURN_PAGES - 1) await new Promise(setImmediate);
    }
    end?.();
    rates.push(pages.length / 1000 / (performance.now() - start));
  }
  rates.shift();
  process.stdout.write(`${name.padEnd(36)} ${median(rates).toFixed(0).padStart(6)} MB/s\n`);
}

await measure("CRC-64", (i) => void crc.reset().update(pages, i * PAGE_BYTES, (i + 1) * PAGE_BYTES));
await measure("page sum and content CRC", (i) => void sum.of(i + 1, pages, i * PAGE_BYTES, (i + 1) * PAGE_BYTES));
await measure("LZ4 block, compress", (i) => void compressBlock(pages.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES)));
await measure(
  "LZ4 block, decompress",
  (i) => void decompressBlock(blocks[i]!, LENGTH_BYTES, blocks[i]!.length, PAGE_BYTES),
);

let chunks: Uint8Array[] = [];
let encoder: LtxEncoder | undefined;
await measure(
  "LTX, encode",
  (i) => {
    if (encoder === undefined) chunks = [];
    encoder ??= new LtxEncoder(header, (chunk) => chunks.push(chunk.slice()));
    encoder.page(i + 1, pages, i * PAGE_BYTES);
  },
  () => {
    encoder?.finish();
    encoder = undefined;
  },
);

const file = Buffer.concat(chunks);
let decoder: LtxDecoder | undefined;
await measure(
  "LTX, decode and verify",
  (i) => {
    decoder ??= new LtxDecoder("bench", { page: () => undefined });
    decoder.push(file.subarray(Math.floor((file.length * i) / PAGES), Math.floor((file.length * (i + 1)) / PAGES)));
  },
  () => {
    decoder?.end();
    decoder = undefined;
  },
);

import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { Worker } from "node:worker_threads";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { mergeFiles, type Merged } from "../../src/ltx/merge.ts";
import type { MergeAnswer } from "../../src/ltx/merge-worker.ts";
import { recordFields, recordHeader } from "../../src/ltx/record.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-merge-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

interface Batch {
  readonly size: number;
  readonly pages: readonly number[];
}

function page(pgno: number, version: number): Uint8Array {
  return new Uint8Array(512).fill(pgno * 31 + version * 7).fill(version, 0, 100);
}

function write(txid: number, { size, pages }: Batch): string {
  const file = path.join(dir, `${txid}.ltx`);
  const chunks: Uint8Array[] = [];
  const about = { pageSize: 512, pageCount: size, minTxid: txid, maxTxid: txid, timestampMs: 1000 + txid };
  const fields = { position: BigInt(txid), checksum: BigInt(txid), epoch: 1, writer: 5n, members: [] };
  const encoder = new LtxEncoder(recordHeader(about, fields), (chunk) => chunks.push(chunk.slice()));
  for (const pgno of pages) encoder.page(pgno, page(pgno, txid));
  encoder.finish();
  writeFileSync(file, Buffer.concat(chunks));
  return file;
}

function merge(inputs: readonly string[], inputsAtOnce?: number): Merged & { pages: Map<number, Uint8Array> } {
  const output = path.join(dir, "out.ltx");
  const work = mergeFiles(inputs, output, inputsAtOnce);
  let step = work.next();
  while (step.done !== true) step = work.next();
  const pages = new Map<number, Uint8Array>();
  const decoder = new LtxDecoder(output, { page: (pgno, content) => void pages.set(pgno, Uint8Array.from(content)) });
  const bytes = readFileSync(output);
  expect(bytes.length).toBe(step.value.sizeBytes);
  decoder.push(bytes);
  expect(decoder.end()).toEqual(step.value.header);
  return { ...step.value, pages };
}

const batch = fc
  .record({ size: fc.integer({ min: 1, max: 40 }), picks: fc.uniqueArray(fc.integer({ min: 1, max: 40 })) })
  .map(({ size, picks }) => ({ size, pages: picks.filter((pgno) => pgno <= size).sort((a, b) => a - b) }));

/** Pages by which the database grew are in the batch, as every writer of a log has it (protocol section 3). */
function withGrowth({ size, pages }: Batch, sizeBefore: number): Batch {
  const all = new Set(pages);
  for (let pgno = sizeBefore + 1; pgno <= size; pgno++) all.add(pgno);
  return { size, pages: [...all].sort((a, b) => a - b) };
}

test("a merge has the newest content of each page, and none past the end", () => {
  fc.assert(
    fc.property(fc.array(batch, { minLength: 1, maxLength: 9 }), fc.integer({ min: 2, max: 9 }), (picked, atOnce) => {
      const batches = picked.map((one, i) => withGrowth(one, picked[i - 1]?.size ?? 40));
      const files = batches.map((one, i) => write(i + 2, one));
      const last = batches.at(-1)!;
      const expected = new Map<number, Uint8Array>();
      for (const [i, one] of batches.entries()) for (const pgno of one.pages) expected.set(pgno, page(pgno, i + 2));
      for (const pgno of expected.keys()) if (pgno > last.size) expected.delete(pgno);
      const made = merge(files, atOnce);
      expect(new Map([...made.pages].sort(([a], [b]) => a - b))).toEqual(
        new Map([...expected].sort(([a], [b]) => a - b)),
      );
      expect(made.header).toMatchObject({ minTxid: 2, maxTxid: batches.length + 1, pageCount: last.size });
      expect(recordFields(made.header)?.position).toBe(BigInt(batches.length + 1));
    }),
    { numRuns: 60 },
  );
});

test("thousands of inputs are merged with few of them open, and nothing is left over", () => {
  const files = Array.from({ length: 700 }, (_, i) => write(i + 2, { size: 40, pages: [(i % 40) + 1] }));
  const output = path.join(dir, "out.ltx");
  const work = mergeFiles(files, output);
  let most = 0;
  let step = work.next();
  for (let n = 0; step.done !== true; n++) {
    if (n % 50 === 0) most = Math.max(most, readdirSync("/proc/self/fd").length);
    step = work.next();
  }
  expect(most).toBeLessThan(200);
  expect(step.value.header).toMatchObject({ minTxid: 2, maxTxid: 701 });
  const numbers: number[] = [];
  const decoder = new LtxDecoder(output, { page: (pgno, content) => numbers.push(pgno, content[0]!) });
  decoder.push(readFileSync(output));
  decoder.end();
  expect(numbers).toEqual(
    Array.from({ length: 40 }, (_, i) => [i + 1, page(i + 1, 701 - ((700 - 1 - i) % 40))[0]!]).flat(),
  );
  expect(readdirSync(dir).filter((name) => name.startsWith("out.ltx"))).toEqual(["out.ltx"]);
});

test("a merge in a thread lets go of the pages it has compressed", async () => {
  const input = path.join(dir, "large.ltx");
  const about = { pageSize: 65536, pageCount: 3000, minTxid: 2, maxTxid: 2, timestampMs: 1 };
  const fields = { position: 1n, checksum: 1n, epoch: 1, writer: 5n, members: [] };
  const fd = openSync(input, "w");
  const encoder = new LtxEncoder(recordHeader(about, fields), (chunk) => writeSync(fd, chunk));
  const noise = randomBytes(65536);
  for (let pgno = 1; pgno <= 3000; pgno++) {
    encoder.page(pgno, noise);
    if (pgno % 64 === 0) await new Promise(setImmediate);
  }
  encoder.finish();
  closeSync(fd);
  const before = process.memoryUsage.rss();
  let peak = 0;
  const timer = setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 10);
  const worker = new Worker(new URL("../../src/ltx/merge-worker.ts", import.meta.url), {
    workerData: { inputs: [input], output: path.join(dir, "out.ltx") },
  });
  try {
    const [answer] = (await once(worker, "message")) as [MergeAnswer];
    expect(answer).toMatchObject({ header: { maxTxid: 2 } });
  } finally {
    clearInterval(timer);
    await worker.terminate();
    rmSync(input);
  }
  expect(peak - before).toBeLessThan(120e6);
});

test("a merge that is broken off leaves nothing", () => {
  const files = [2, 3, 4].map((txid) => write(txid, { size: 9, pages: [1, 2, 3] }));
  rmSync(path.join(dir, "out.ltx"), { force: true });
  for (let steps = 1; steps < 14; steps++) {
    const work = mergeFiles(files, path.join(dir, "out.ltx"), 2);
    for (let n = 0; n < steps; n++) work.next();
    if (work.return(undefined as never).done !== true) expect.unreachable();
    expect(readdirSync(dir).filter((name) => name.startsWith("out.ltx"))).toEqual([]);
  }
});

test("a gap between the inputs is refused", () => {
  const files = [write(2, { size: 3, pages: [1] }), write(4, { size: 3, pages: [2] })];
  expect(() => merge(files)).toThrow(/doesn't follow TXID 2/);
});

test("a damaged input leaves no output", () => {
  const files = [write(2, { size: 3, pages: [1, 2] }), write(3, { size: 3, pages: [2] })];
  const bytes = readFileSync(files[0]!);
  bytes[bytes.length - 3]! ^= 1;
  writeFileSync(files[0]!, bytes);
  rmSync(path.join(dir, "out.ltx"), { force: true });
  expect(() => merge(files)).toThrow(/checksum/);
  expect(() => readFileSync(path.join(dir, "out.ltx"))).toThrow("ENOENT");
  expect(() => readFileSync(path.join(dir, "out.ltx.tmp"))).toThrow("ENOENT");
});

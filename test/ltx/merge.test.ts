import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { mergeFiles, type Merged } from "../../src/ltx/merge.ts";
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

function merge(inputs: readonly string[]): Merged & { pages: Map<number, Uint8Array> } {
  const output = path.join(dir, "out.ltx");
  const work = mergeFiles(inputs, output);
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

test("a merge has the newest content of each page, and none past the end", () => {
  fc.assert(
    fc.property(fc.array(batch, { minLength: 1, maxLength: 6 }), (batches) => {
      const files = batches.map((one, i) => write(i + 2, one));
      const last = batches.at(-1)!;
      const expected = new Map<number, Uint8Array>();
      for (const [i, one] of batches.entries()) for (const pgno of one.pages) expected.set(pgno, page(pgno, i + 2));
      for (const pgno of expected.keys()) if (pgno > last.size) expected.delete(pgno);
      const made = merge(files);
      expect(new Map([...made.pages].sort(([a], [b]) => a - b))).toEqual(
        new Map([...expected].sort(([a], [b]) => a - b)),
      );
      expect(made.header).toMatchObject({ minTxid: 2, maxTxid: batches.length + 1, pageCount: last.size });
      expect(recordFields(made.header)?.position).toBe(BigInt(batches.length + 1));
    }),
    { numRuns: 60 },
  );
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

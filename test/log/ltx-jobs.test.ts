import { expect, test } from "vitest";
import type { DatabaseSnapshot } from "../../src/database/contract.ts";
import { ltxJobs } from "../../src/log/ltx-jobs.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { position } from "../../src/ltx/position.ts";

const PAGE_BYTES = 4096;
const PAGES = 12_000;

/** The byte at `offset` of the picture: repeats after a prime number of bytes, so that no two pages are the same. */
const byteAt = (offset: number): number => (offset % 251 < 120 ? (offset * 2_654_435_761) >>> 24 : offset % 251);

function snapshot(): DatabaseSnapshot {
  return {
    txid: 7,
    epoch: 1,
    writer: 5n,
    position: position(1, 7),
    checksum: 1n,
    timestampMs: 1000,
    pageSize: PAGE_BYTES,
    pageCount: PAGES,
    signal: new AbortController().signal,
    read: async (first, into) => {
      for (let i = 0; i < into.length; i++) into[i] = byteAt((first - 1) * PAGE_BYTES + i);
    },
    release: () => undefined,
  };
}

test("a snapshot is encoded in parts that share one buffer: nothing is left for the collector", async () => {
  let wrong = 0;
  let next = 1;
  const decoder = new LtxDecoder("snapshot", {
    passing: true,
    page: (pgno, content) => {
      if (pgno !== next++) wrong++;
      for (let i = 0; i < PAGE_BYTES; i += 61) if (content[i] !== byteAt((pgno - 1) * PAGE_BYTES + i)) wrong++;
    },
  });
  const buffers = new Set<ArrayBufferLike>();
  let sizeBytes = 0;
  const before = process.memoryUsage().arrayBuffers;
  let most = 0;
  for await (const part of ltxJobs.encodeSnapshot(snapshot())) {
    decoder.push(part);
    buffers.add(part.buffer);
    sizeBytes += part.length;
    most = Math.max(most, process.memoryUsage().arrayBuffers - before);
  }
  expect(decoder.end()).toMatchObject({ minTxid: 1, maxTxid: 7, pageCount: PAGES });
  expect([wrong, next]).toEqual([0, PAGES + 1]);
  // The last part may have a longer one, for the index.
  expect(buffers.size).toBeLessThanOrEqual(2);
  expect(sizeBytes).toBeGreaterThan(10e6);
  expect(most).toBeLessThan(8e6);
});

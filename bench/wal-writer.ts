/**
 * Speed of the writer of a replica's WAL alone, on one core: `node bench/wal-writer.ts [DIRECTORY]`. Not on the page of
 * benchmarks, which shows what users see; this is for whoever changes it.
 */
import { randomFillSync } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import Sqlite from "better-sqlite3";
import { WalIndexHeader, WalIndexImage } from "../src/sqlite/wal-index.ts";
import { readAt } from "../src/database/io.ts";
import { openFiles } from "../src/database/opening.ts";
import { WalWriter } from "../src/database/wal-writer.ts";
import { median } from "./lib/report.ts";

const CHUNK_BYTES = 1024 * 1024;
const CHUNKS = 64;
const ROUNDS = 5;
const COMMITS = 5_000;
const directory = mkdtempSync(path.join(process.argv[2] ?? os.tmpdir(), "sluice-wal-writer-"));

for (const pageSize of [512, 4096, 65536]) {
  const file = path.join(directory, `${pageSize}.db`);
  const db = new Sqlite(file);
  db.pragma(`page_size = ${pageSize}`);
  db.exec("create table t(a)");
  db.close();
  const { files } = await openFiles(file, 1_000, "closed");
  const writer = new WalWriter(files, pageSize);
  const image = new WalIndexImage();
  const header = new WalIndexHeader();
  const begin = (pages: number, pageCount: number): void => {
    readAt(files.shm, image.bytes, image.bytes.length, 0);
    image.parse(0, header);
    writer.begin(header, pages, pageCount);
  };
  const content = randomFillSync(Buffer.alloc(CHUNK_BYTES));
  const perChunk = CHUNK_BYTES / pageSize;
  const numbers = new Uint32Array(perChunk);

  // One large change, given up each time: but for the first round, the WAL has its size.
  const rates: number[] = [];
  let longestMs = 0;
  for (let round = 0; round < ROUNDS; round++) {
    begin(CHUNKS * perChunk, CHUNKS * perChunk);
    const start = performance.now();
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      for (let i = 0; i < perChunk; i++) numbers[i] = 1 + chunk * perChunk + i;
      const since = performance.now();
      writer.append(numbers, content);
      longestMs = Math.max(longestMs, performance.now() - since);
    }
    rates.push((CHUNKS * CHUNK_BYTES) / 1e3 / (performance.now() - start));
    writer.abort();
  }
  const [first, ...others] = rates.map(Math.round);
  console.log(`pages of ${pageSize} bytes`);
  console.log(
    `  large change        ${median(others)} MB/s; ${first} MB/s while the file grows; longest append ${longestMs.toFixed(1)} ms`,
  );

  for (const pages of [1, 3, 10]) {
    const start = performance.now();
    for (let commit = 0; commit < COMMITS / pages; commit++) {
      for (let i = 0; i < pages; i++) numbers[i] = 1 + ((commit * 7 + i * 31) % 5_000);
      begin(pages, 5_000);
      writer.append(numbers.subarray(0, pages), content.subarray(0, pages * pageSize));
      writer.publish();
    }
    const us = ((performance.now() - start) * 1000) / (COMMITS / pages);
    console.log(
      `  commit of ${String(pages).padStart(2)} pages  ${us.toFixed(1)} µs, ${Math.round((pages * pageSize) / us)} MB/s`,
    );
    if (pageSize === 65536 && pages === 3) break;
  }
  files.close();
}
rmSync(directory, { recursive: true });

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { LtxDecoder } from "../../src/ltx/decoder.ts";

/** What a log of whole slots in a directory (as `sluice-process.ts` writes it) adds up to. */
export function logImage(log: string): Buffer {
  const pages: Buffer[] = [];
  const slots = readdirSync(log).filter((name) => /^\d+$/.test(name));
  let pageSize = 0;
  for (let txid = 1; txid <= slots.length; txid++) {
    const file = join(log, String(txid));
    const decoder = new LtxDecoder(file, { page: (pgno, content) => void (pages[pgno - 1] = Buffer.from(content)) });
    decoder.push(readFileSync(file));
    const header = decoder.end();
    pages.length = header.pageCount;
    pageSize = header.pageSize;
  }
  return Buffer.concat(Array.from(pages, (page) => page ?? Buffer.alloc(pageSize)));
}

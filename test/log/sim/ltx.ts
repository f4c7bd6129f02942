import { readFileSync, writeFileSync } from "node:fs";
import { LtxDecoder } from "../../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../../src/ltx/encoder.ts";
import type { LtxHeader } from "../../../src/ltx/header.ts";
import { recordHeader } from "../../../src/ltx/record.ts";
import type { DatabaseSnapshot } from "../../../src/database/contract.ts";
import type { LtxWork } from "../../../src/log/ltx-work.ts";

/** The pages of a database or of a file of the log, by number. */
export type Pages = Map<number, Uint8Array>;

export function encode(header: LtxHeader, pages: Pages): Uint8Array {
  const chunks: Uint8Array[] = [];
  const encoder = new LtxEncoder(header, (chunk) => chunks.push(chunk.slice()));
  for (const pgno of [...pages.keys()].sort((a, b) => a - b)) encoder.page(pgno, pages.get(pgno)!);
  encoder.finish();
  return Buffer.concat(chunks);
}

export function decode(name: string, bytes: Uint8Array): { readonly header: LtxHeader; readonly pages: Pages } {
  const pages: Pages = new Map();
  const decoder = new LtxDecoder(name, { page: (pgno, content) => pages.set(pgno, content.slice()) });
  decoder.push(bytes);
  return { header: decoder.end(), pages };
}

/** The heavy work, done in place: what runs in a simulation must not depend on threads. */
export const inPlace: LtxWork = {
  async merge(inputs, output) {
    let header: LtxHeader | undefined;
    const pages: Pages = new Map();
    for (const input of inputs) {
      const file = decode(input, readFileSync(input));
      for (const [pgno, page] of file.pages) pages.set(pgno, page);
      header = { ...file.header, minTxid: header?.minTxid ?? file.header.minTxid };
    }
    for (const pgno of pages.keys()) if (pgno > header!.pageCount) pages.delete(pgno);
    const bytes = encode(header!, pages);
    writeFileSync(output, bytes);
    const { minTxid, maxTxid, timestampMs } = header!;
    return { minTxid, maxTxid, timestampMs, sizeBytes: bytes.length };
  },

  async *encodeSnapshot(snapshot: DatabaseSnapshot) {
    const { pageSize, pageCount, txid, timestampMs, position, checksum, epoch, writer } = snapshot;
    const pages: Pages = new Map();
    for (let pgno = 1; pgno <= pageCount; pgno++) {
      const page = new Uint8Array(pageSize);
      await snapshot.read(pgno, page);
      pages.set(pgno, page);
    }
    const file = { pageSize, pageCount, minTxid: 1, maxTxid: txid, timestampMs };
    yield encode(recordHeader(file, { position, checksum, epoch, writer, members: [] }), pages);
  },
};

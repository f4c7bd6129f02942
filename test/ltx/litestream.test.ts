import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import Database from "better-sqlite3";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LogLayout, SNAPSHOT_LEVEL } from "../../src/log/layout.ts";
import { LtxDecoder } from "../../src/ltx/decoder.ts";
import { LtxEncoder } from "../../src/ltx/encoder.ts";
import { mergeFiles } from "../../src/ltx/merge.ts";
import { recordHeader } from "../../src/ltx/record.ts";
import { bucketOf, busySettings, churn, Litestream, litestreamRestore } from "../log/peer-litestream.ts";
import { lacks, peers } from "../peers/peers.ts";

const layout = new LogLayout("ltx-prefix");
let directory: string;
beforeAll(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), "sluice-ltx-peer-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** States of a database that grows, shrinks and grows again. */
function states(pageSize: number): Buffer[] {
  const file = path.join(directory, `states-${pageSize}.db`);
  const db = new Database(file);
  db.pragma(`page_size = ${pageSize}`);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)");
  const all: Buffer[] = [];
  for (const rows of [40, 80, 5, 60, 3, 90]) {
    db.exec("DELETE FROM t");
    for (let i = 0; i < rows; i++) db.prepare("INSERT INTO t(b) VALUES (randomblob(?))").run((i * 97) % (2 * pageSize));
    db.exec("VACUUM");
    all.push(readFileSync(file));
  }
  db.close();
  return all;
}

/** The file that makes `after` out of `before`; all pages where the database was, or is, empty. */
function batch(pageSize: number, txid: number, before: Buffer, after: Buffer): Buffer {
  const pageCount = after.length / pageSize;
  const about = { pageSize, pageCount, minTxid: txid, maxTxid: txid, timestampMs: 1_700_000_000_000 + txid * 1000 };
  const fields = { position: (1n << 32n) | BigInt(txid), checksum: 3n, epoch: 1, writer: 99n, members: [4] };
  const chunks: Uint8Array[] = [];
  const encoder = new LtxEncoder(recordHeader(about, fields), (chunk) => chunks.push(chunk.slice()));
  for (let at = 0; at < after.length; at += pageSize) {
    const same = at < before.length && after.compare(before, at, at + pageSize, at, at + pageSize) === 0;
    if (!same) encoder.page(at / pageSize + 1, after, at);
  }
  encoder.finish();
  return Buffer.concat(chunks);
}

function put(bucket: string, level: number, minTxid: number, maxTxid: number): string {
  const file = path.join(bucket, layout.key(level, minTxid, maxTxid));
  mkdirSync(path.dirname(file), { recursive: true });
  return file;
}

function merge(inputs: readonly string[], output: string, inputsAtOnce?: number): void {
  const work = mergeFiles(inputs, output, inputsAtOnce);
  while (work.next().done !== true) {
    // Each turn merges one page.
  }
}

describe("a log of Sluice's files, restored by Litestream", () => {
  test.skipIf(lacks("litestream")).each([512, 4096, 65536])(
    "pages of %i bytes: records, merged files, a snapshot",
    async (pageSize) => {
      const bucket = path.join(directory, `bucket-${pageSize}`);
      const all = states(pageSize);
      const records = all.map((state, i) => {
        const file = put(bucket, 0, i + 1, i + 1);
        writeFileSync(file, batch(pageSize, i + 1, i === 0 ? Buffer.alloc(0) : all[i - 1]!, state));
        return file;
      });
      const output = path.join(directory, `out-${pageSize}.db`);
      const url = `file://${bucket}`;
      const restored = async (...args: string[]): Promise<Buffer> => {
        expect(await litestreamRestore(peers.litestream, url, output, args)).toBe(true);
        return readFileSync(output);
      };
      for (const [i, state] of all.entries()) {
        const args = ["-txid", (i + 1).toString(16).padStart(16, "0")];
        expect((await restored(...args)).equals(state), `TXID ${i + 1}`).toBe(true);
      }
      // Litestream's newest plan needs records 1-4 from level 1, 5 and 6 from level 0.
      merge(records.slice(0, 4), put(bucket, 1, 1, 4));
      for (const record of records.slice(0, 4)) rmSync(record);
      expect((await restored()).equals(all.at(-1)!)).toBe(true);
      // … and then nothing but the snapshot.
      merge([put(bucket, 1, 1, 4), ...records.slice(4)], put(bucket, SNAPSHOT_LEVEL, 1, 6));
      rmSync(path.join(bucket, "ltx/0"), { recursive: true });
      rmSync(path.join(bucket, "ltx/1"), { recursive: true });
      expect((await restored()).equals(all.at(-1)!)).toBe(true);
    },
  );
});

describe.each(["litestream", "litestreamFrames"] as const)("files that %s wrote", (binary) => {
  const skip = lacks(binary);
  let bucket: string;
  beforeAll(async () => {
    if (skip) return;
    const db = path.join(directory, binary, "app.db");
    mkdirSync(path.dirname(db));
    bucket = bucketOf(db);
    // What is merged here must still be there: nothing may be deleted.
    const settings = busySettings(db, { type: "file", path: bucket }).replace("l0-retention: 4s", "l0-retention: 1h");
    const peer = new Litestream(peers[binary], db, settings);
    await churn(db, 3000);
    await peer.stop();
  });

  const files = (level: string): string[] =>
    readdirSync(path.join(bucket, "ltx", level))
      .toSorted()
      .map((name) => path.join(bucket, "ltx", level, name));

  test.skipIf(skip)("are whole, in their own page encoding", () => {
    let frames = 0;
    for (const level of readdirSync(path.join(bucket, "ltx"))) {
      for (const file of files(level)) {
        const bytes = readFileSync(file);
        let pages = 0;
        const decoder = new LtxDecoder(file, { page: () => (pages += 1) });
        decoder.push(bytes);
        expect(decoder.end().nodeId).toBe(0n);
        if (pages > 0) expect(bytes.readUInt16BE(104)).toBe(binary === "litestream" ? 1 : 0);
        frames += pages;
      }
    }
    expect(frames).toBeGreaterThan(50);
  });

  test.skipIf(skip)("merge into a file that Litestream restores to the same", async () => {
    const output = path.join(directory, `${binary}.db`);
    expect(await litestreamRestore(peers.litestream, `file://${bucket}`, output)).toBe(true);
    const theirs = readFileSync(output);
    const records = files("0");
    const merged = path.join(directory, `${binary}-merged`);
    const snapshot = put(merged, SNAPSHOT_LEVEL, 1, records.length);
    merge(records, snapshot, 5);
    expect(await litestreamRestore(peers.litestream, `file://${merged}`, output)).toBe(true);
    expect(readFileSync(output).equals(theirs)).toBe(true);
  });

  test.skipIf(skip)("are refused by Litestream and by us alike when the checksum is not the content's", async () => {
    const broken = path.join(directory, `${binary}-broken`);
    const [first] = files("0");
    const file = put(broken, 0, 1, 1);
    copyFileSync(first!, file);
    const output = path.join(directory, "broken.db");
    expect(await litestreamRestore(peers.litestream, `file://${broken}`, output)).toBe(true);
    const bytes = readFileSync(file);
    bytes[bytes.length - 1]! ^= 1;
    writeFileSync(file, bytes);
    const refusal = litestreamRestore(peers.litestream, `file://${broken}`, output);
    await expect(refusal).rejects.toThrow(/file checksum mismatch/);
    const decoder = new LtxDecoder(file, { page: () => undefined });
    decoder.push(bytes);
    expect(() => decoder.end()).toThrow(/does not match its checksum/);
  });
});

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import { LogLayout } from "../../src/log/layout.ts";
import { LogListing, type LogFile } from "../../src/log/listing.ts";
import { openLtxFile } from "../../src/log/ltx-file.ts";
import { restore } from "../../src/log/restore.ts";
import { encodeHeader } from "../../src/ltx/header.ts";
import type { GetOptions, ObjectInfo, ObjectStore, StoredObject } from "../../src/store/store.ts";
import { fuzz, mutated, mutatedText } from "../fuzz/fuzz.ts";
import { content, encode, header } from "../ltx/files.ts";

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-fuzz-"));
});
afterAll(() => rmSync(dir, { recursive: true }));

/** What somebody has put into a bucket. `asked`: the bytes of the largest request. */
class Bucket implements ObjectStore {
  readonly url = "s3://bucket";
  readonly layout = "ltx-prefix";
  asked = 0;
  readonly #objects: ReadonlyMap<string, Uint8Array>;
  readonly #sizes: ReadonlyMap<string, number>;

  /** `sizes`: of objects that are larger than what is there of them, at both ends. */
  constructor(objects: ReadonlyMap<string, Uint8Array>, sizes: ReadonlyMap<string, number> = new Map()) {
    this.#objects = objects;
    this.#sizes = sizes;
  }

  async *list(prefix: string): AsyncIterable<ObjectInfo> {
    for (const key of [...this.#objects.keys()].sort())
      if (key.startsWith(prefix)) yield { key, sizeBytes: this.#sizeOf(key), modifiedMs: 1 };
  }

  async get(key: string, { range = { offset: 0 } }: GetOptions = {}): Promise<StoredObject> {
    const bytes = this.#objects.get(key)!;
    const sizeBytes = this.#sizeOf(key);
    const from = range.offset < 0 ? Math.max(0, sizeBytes + range.offset) : range.offset;
    const to = Math.min(sizeBytes, from + (range.length ?? sizeBytes));
    this.asked = Math.max(this.asked, range.length ?? 0);
    const tailAt = sizeBytes - bytes.length;
    const body = async function* (): AsyncIterable<Uint8Array> {
      if (from < bytes.length && tailAt > 0) yield bytes.slice(from, to);
      else yield bytes.slice(Math.max(0, from - tailAt), Math.max(0, to - tailAt));
    };
    return { key, sizeBytes, modifiedMs: 1, etag: "e", body: body() };
  }

  put = (): Promise<never> => Promise.reject(new Error("nothing is written"));
  delete = (): Promise<never> => Promise.reject(new Error("nothing is deleted"));
  close = (): Promise<void> => Promise.resolve();

  #sizeOf(key: string): number {
    return this.#sizes.get(key) ?? this.#objects.get(key)!.length;
  }
}

const layout = new LogLayout("ltx-prefix");

fuzz("a key of a log is what it says, or none of the log's", 800, () =>
  fc.asyncProperty(
    mutatedText(
      "ltx/0/0000000000000001-0000000000000001.ltx",
      "ltx/9/001fffffffffffff-001fffffffffffff.ltx",
      "ltx/1/ffffffffffffffff-ffffffffffffffff.ltx",
    ),
    async (key) => {
      const found = layout.parse(key);
      if (found !== undefined) expect(layout.key(found.level, found.minTxid, found.maxTxid)).toBe(key);
    },
  ),
);

fuzz("a listing with any numbers is in order, and finds its gap", 200, () => {
  const txid = fc.constantFrom(1, 2, 3, 4, 2 ** 32, Number.MAX_SAFE_INTEGER - 1, Number.MAX_SAFE_INTEGER);
  const file = fc.tuple(fc.nat(9), txid, txid).map(([level, a, b]): LogFile => {
    const [minTxid, maxTxid] = [Math.min(a, b), Math.max(a, b)];
    return { level, minTxid, maxTxid, key: layout.key(level, minTxid, maxTxid), sizeBytes: 1, modifiedMs: 1 };
  });
  return fc.asyncProperty(fc.array(file), async (files) => {
    const listing = new LogListing();
    for (const one of files) listing.add(one);
    const gap = listing.firstGap();
    if (gap !== undefined) expect(files.some((one) => one.minTxid <= gap && one.maxTxid >= gap)).toBe(false);
    for (const one of files) listing.remove(one);
    expect(listing.head).toBe(0);
  });
});

const page = (pgno: number): Uint8Array => {
  const bytes = content(512, pgno);
  if (pgno === 1) bytes.set(Buffer.from("SQLite format 3\\0".replace("\\\\0", "\\0"), "latin1"));
  return bytes;
};
const snapshot = encode(header(512, 3, 1), new Map([1, 2, 3].map((pgno) => [pgno, page(pgno)])));
const second = encode(header(512, 4, 2), new Map([2, 4].map((pgno) => [pgno, page(pgno)])));
const keys = [1, 2].map((txid) => layout.slotKey(txid)) as [string, string];

fuzz("a changed object of a log is opened, or refused", 400, () =>
  fc.asyncProperty(mutated(snapshot, second), async (bytes) => {
    const bucket = new Bucket(new Map([[keys[0], bytes]]));
    const file: LogFile = { level: 0, minTxid: 1, maxTxid: 1, key: keys[0], sizeBytes: bytes.length, modifiedMs: 1 };
    try {
      const { pages, offsets } = await openLtxFile(bucket, file);
      expect(offsets.length).toBe(pages.length + 1);
    } catch (error) {
      if (!isSluiceError(error)) throw error;
      expect(error.code).toMatch(/^SLU-(?:500[12]|4509)$/);
    }
  }),
);

fuzz("of a bucket with anything in it a whole database is restored, or nothing", 40, () =>
  fc.asyncProperty(
    fc.option(mutated(snapshot)),
    fc.option(mutated(second)),
    mutatedText('{"logId":"00000000000000000000000000000001","created":"x","version":1,"base":0}'),
    async (one, two, identity) => {
      const objects = new Map([
        [keys[0], one ?? snapshot],
        [keys[1], two ?? second],
        ["sluice.json", new Uint8Array(Buffer.from(identity))],
        ["ltx/0/ffffffffffffffff-ffffffffffffffff.ltx", second],
        ["ltx/0/001fffffffffffff-001fffffffffffff.ltx", second],
      ]);
      const target = path.join(dir, "restored.db");
      try {
        await restore({ store: new Bucket(objects), prefix: "", path: target, integrityCheck: "none" });
        expect(readFileSync(target).length % 512).toBe(0);
        rmSync(target);
      } catch (error) {
        if (!isSluiceError(error)) throw error;
      }
      expect(readdirSync(dir)).toEqual([]);
    },
  ),
);

test("an object of 10 GB that claims to be nearly all index is refused before it is fetched", async () => {
  const sizeBytes = 10_000_000_000;
  const tail = Buffer.alloc(64 * 1024);
  tail.writeBigUInt64BE(BigInt(sizeBytes - 1_000), tail.length - 24);
  tail.set(encodeHeader(header(512, 3, 1)), 0);
  const bucket = new Bucket(new Map([[keys[0], tail]]), new Map([[keys[0], sizeBytes]]));
  const file: LogFile = { level: 0, minTxid: 1, maxTxid: 1, key: keys[0], sizeBytes, modifiedMs: 1 };
  await expect(openLtxFile(bucket, file)).rejects.toMatchObject({ code: "SLU-5001" });
  expect(bucket.asked).toBeLessThanOrEqual(64 * 1024);
});

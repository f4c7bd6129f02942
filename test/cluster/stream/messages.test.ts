import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ByteReader, ByteWriter } from "../../../src/cluster/stream/bytes.ts";
import {
  type Content,
  decode,
  encode,
  MESSAGE_BYTES_MAX,
  type Message,
  type MessageType,
} from "../../../src/cluster/stream/messages.ts";
import { packPages, unpackPages } from "../../../src/cluster/stream/page-block.ts";
import { isSluiceError } from "../../../src/errors/error.ts";

const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const safe = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const channel = fc.integer({ min: 0, max: 0xff_ffff });
const page = fc.integer({ min: 1, max: 0xffff_fffe });
const text = (maxLength: number) => fc.string({ maxLength, unit: "grapheme-ascii" });
const words = (maxLength: number) => fc.array(u32, { maxLength }).map((all) => Uint32Array.from(all));
const record = fc.record({ txid: safe, epoch: u32, position: u64, timestampMs: safe });
const block = fc.record({
  numbers: words(20),
  packed: fc.integer({ min: 0, max: 255 }),
  content: fc.uint8Array({ maxLength: 300 }),
});
const node = fc.record({
  cluster: text(100),
  id: text(100),
  life: u64,
  name: text(200),
  advertise: text(200),
  version: text(50),
});
const features = fc.array(text(20), { maxLength: 5 });

const contents: { readonly [T in MessageType]: fc.Arbitrary<Content<T>> } = {
  hello: fc.record({ min: u32, max: u32, features, node, candidate: fc.boolean() }),
  welcome: fc.record({
    protocol: u32,
    features,
    node,
    member: fc.integer({ min: 0, max: 0xffff }),
    heartbeatMs: fc.integer({ min: 0, max: 3_600_000 }),
  }),
  refusal: fc.record({ code: text(16), message: text(200), primary: text(200) }),
  heartbeat: fc.record({ sentAtMs: safe, role: fc.integer({ min: 0, max: 255 }), lease: text(500) }),
  goodbye: fc.record({ successor: text(100), advertise: text(100) }),
  database: fc.record({
    name: text(100),
    logId: text(100),
    pageSize: fc.integer({ min: 0, max: 65_536 }),
    pageCount: u32,
  }),
  gone: fc.record({ name: text(100) }),
  joined: fc.record({
    channel,
    answer: fc.integer({ min: 0, max: 255 }),
    logId: text(100),
    pageSize: fc.integer({ min: 0, max: 65_536 }),
    epoch: u32,
    fromTxid: safe,
    toTxid: safe,
    position: u64,
  }),
  refused: fc.record({ channel, code: text(16), message: text(100) }),
  change: fc.record({
    channel,
    before: u64,
    position: u64,
    pageCount: page,
    checksum: u64,
    pages: page,
    block,
  }),
  pages: fc.record({ channel, block }),
  abort: fc.record({ channel }),
  rejoin: fc.record({ channel, code: text(16), message: text(100) }),
  sealed: fc.record({ channel, record }),
  durable: fc.record({
    entries: fc.array(fc.record({ channel, newest: u64, replica: u64, store: u64 }), { maxLength: 10 }),
  }),
  members: fc.record({
    nodes: fc.array(
      fc.record({
        id: text(50),
        life: u64,
        member: fc.integer({ min: 0, max: 0xffff }),
        name: text(50),
        advertise: text(50),
        candidate: fc.boolean(),
        lagMs: safe,
      }),
      { maxLength: 4 },
    ),
  }),
  resyncHead: fc.record({ channel, position: u64, pageCount: page, checksum: u64, record, quarantine: fc.boolean() }),
  blockHashes: fc.record({ channel, first: u32, hashes: words(50) }),
  pageSums: fc.record({ channel, block: u32, sums: words(50) }),
  called: fc.record({}),
  join: fc.record({
    channel,
    name: text(100),
    logId: text(100),
    pageSize: fc.integer({ min: 0, max: 65_536 }),
    isKnown: fc.boolean(),
    position: u64,
    checksum: u64,
    record,
    epoch: u32,
    wish: fc.integer({ min: 0, max: 255 }),
  }),
  leave: fc.record({ channel }),
  applied: fc.record({
    entries: fc.array(fc.record({ channel, position: u64, txid: safe, taken: safe }), { maxLength: 10 }),
  }),
  resync: fc.record({ channel }),
  sumsWanted: fc.record({ channel, blocks: words(60) }),
  pagesWanted: fc.record({ channel, numbers: words(60) }),
  resynced: fc.record({ channel }),
};

const message = fc.oneof(
  ...Object.entries(contents).map(([type, content]) =>
    (content as fc.Arbitrary<object>).map((fields) => ({ type, ...fields }) as Message),
  ),
);

function bytesOf({ type, ...content }: Message): Uint8Array {
  return encode(type, content as never);
}

describe("messages of the stream", () => {
  it("are read as they were written, of every kind", () => {
    for (const [type, content] of Object.entries(contents)) {
      fc.assert(
        fc.property(content as fc.Arbitrary<object>, (fields) => {
          const whole = { type, ...fields } as Message;
          expect(decode(new Uint8Array(bytesOf(whole)))).toEqual(whole);
        }),
        { numRuns: 30 },
      );
    }
  });

  it("may be longer in a later release, and of kinds that this one doesn't know", () => {
    fc.assert(
      fc.property(message, fc.uint8Array({ maxLength: 20 }), (whole, more) => {
        expect(decode(new Uint8Array([...bytesOf(whole), ...more]))).toEqual(whole);
      }),
      { numRuns: 200 },
    );
    expect(decode(Uint8Array.of(255, 1, 2, 3))).toBeUndefined();
  });

  it("that are cut off are refused, wherever that is", () => {
    fc.assert(
      fc.property(message, fc.nat(), (whole, at) => {
        const bytes = bytesOf(whole);
        const cut = bytes.subarray(0, at % bytes.length);
        expect(() => decode(cut)).toThrow(expect.objectContaining({ code: "SLU-8208" }));
      }),
      { numRuns: 300 },
    );
  });

  it("that are damaged are read as something else or refused, never anything worse", () => {
    const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 5 });
    fc.assert(
      fc.property(message, damage, (whole, changes) => {
        const bytes = Buffer.from(bytesOf(whole));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        expect(readsOrRefuses(bytes)).toBe(true);
      }),
      { numRuns: 3_000 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(readsOrRefuses(bytes)).toBe(true);
      }),
      { numRuns: 3_000 },
    );
  });

  it("beyond the limits are refused before anything is allocated", () => {
    const huge = new ByteWriter();
    huge.u8(53);
    huge.varint(1);
    huge.varint(2 ** 40);
    expect(() => decode(huge.take())).toThrow(/beyond/);
    expect(() => decode(new Uint8Array(MESSAGE_BYTES_MAX + 1))).toThrow(/bytes/);
    const long = new ByteWriter();
    long.text("x".repeat(300));
    expect(() => new ByteReader(long.take()).text(256)).toThrow(/beyond/);
  });
});

describe("pages in a message", () => {
  it("come out as they went in, packed where that shrinks them", () => {
    const numbers = Uint32Array.of(3, 1, 9);
    const zeros = { numbers, content: new Uint8Array(3 * 512) };
    const noise = { numbers, content: crypto.getRandomValues(new Uint8Array(3 * 512)) };
    expect(packPages(zeros).content.length).toBeLessThan(200);
    expect(packPages(noise).content.length).toBe(3 * 512);
    for (const pages of [zeros, noise]) {
      const { numbers: again, content } = unpackPages(packPages(pages), 512);
      expect(again).toEqual(numbers);
      expect(Buffer.compare(content, pages.content)).toBe(0);
    }
  });

  it("that aren't what they say are refused", () => {
    const packed = packPages({ numbers: Uint32Array.of(1), content: new Uint8Array(4096) });
    const fault = expect.objectContaining({ code: "SLU-8208" });
    expect(() => unpackPages(packed, 8192)).toThrow(fault);
    expect(() => unpackPages(packed, 512)).toThrow(fault);
    expect(() => unpackPages({ ...packed, packed: 7 }, 4096)).toThrow(fault);
    expect(() => unpackPages({ ...packed, packed: 0 }, 4096)).toThrow(fault);
    expect(() => unpackPages({ ...packed, numbers: new Uint32Array(1000) }, 65_536)).toThrow(fault);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (content) => {
        try {
          expect(unpackPages({ ...packed, content }, 4096).content.length).toBe(4096);
        } catch (error) {
          expect(error).toMatchObject({ code: "SLU-8208" });
        }
      }),
      { numRuns: 1_000 },
    );
  });
});

function readsOrRefuses(bytes: Uint8Array): boolean {
  try {
    decode(bytes);
    return true;
  } catch (error) {
    return isSluiceError(error, "SLU-8208");
  }
}

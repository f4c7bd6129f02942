import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import fc from "fast-check";
import { afterAll, beforeAll, expect } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { fieldsOf } from "../../../src/cluster/stream/identity.ts";
import { decode, encode, type Message } from "../../../src/cluster/stream/messages.ts";
import { unpackPages } from "../../../src/cluster/stream/page-block.ts";
import type { Replica } from "../../../src/database/replica.ts";
import { isSluiceError } from "../../../src/errors/error.ts";
import { fuzz, mutated } from "../../fuzz/fuzz.ts";
import { caughtUp, Follower, identity, Lead, type LeadDatabase, leadDatabases, Place, until } from "./nodes.ts";

let place: Place;
let one: LeadDatabase;
let lead: Lead;
let evil: Server;
let evilUrl: string;
/** What the hostile primary sends to the next replica that greets it. */
let script: readonly Uint8Array[] = [];
let scriptsSent = 0;
let victim: Follower;
let replica: Replica;

beforeAll(async () => {
  place = new Place();
  [one] = (await leadDatabases(place, "one")) as [LeadDatabase];
  one.write(3_000, 40);
  await one.seal();
  lead = await Lead.open(place, [one], { heartbeatMs: 2_000 });
  victim = new Follower(place, "victim", { heartbeatMs: 2_000 });
  victim.client.follow(lead.url);
  replica = await victim.start("one");
  await caughtUp(one, replica);
  evil = createServer().listen(0, "127.0.0.1");
  await once(evil, "listening");
  evilUrl = `http://127.0.0.1:${(evil.address() as AddressInfo).port}`;
  const sockets = new WebSocketServer({ server: evil });
  sockets.on("connection", (socket) => {
    socket.once("message", () => {
      socket.send(
        encode("welcome", {
          protocol: 1,
          features: [],
          node: fieldsOf(identity("evil")),
          member: 1,
          heartbeatMs: 2_000,
        }),
      );
      for (const message of script) socket.send(message);
      scriptsSent++;
    });
  });
});
afterAll(async () => {
  evil.closeAllConnections();
  evil.close();
  await place.remove();
});

const channel = fc.constantFrom(1, 1, 1, 2, 3, 0xff_ffff);
const u64 = fc.oneof(fc.bigInt({ min: 0n, max: 3n }), fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }));
const small = fc.oneof(fc.nat(200), fc.constantFrom(255, 256, 257, 65_535, 0xffff_fffe));
const words = (most: number): fc.Arbitrary<Uint32Array> =>
  fc.array(small, { maxLength: most }).map((all) => Uint32Array.from(all));
const name = fc.constantFrom("one", "two", "", "../one", "o\0ne", "x".repeat(4_000));
const pageSize = fc.constantFrom(4_096, 512, 0, 1, 513, 65_536);
const code = fc.constantFrom("SLU-8207", "SLU-8212", "toString", "__proto__", "constructor", "");
const record = fc.record({ txid: small, epoch: small, position: u64, timestampMs: small });
/** Pages of the right length for their numbers, or of another. */
const block = fc
  .record({ numbers: words(6), packed: fc.constantFrom(0, 0, 1, 2), spare: fc.constantFrom(0, 0, 0, 1, -1) })
  .map(({ numbers, packed, spare }) => ({
    numbers,
    packed,
    content: new Uint8Array(Math.max(0, numbers.length * 4_096 + spare)).fill(7),
  }));

/** Messages that make sense one by one, and seldom together. */
const fromReplica: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc
    .record({
      channel,
      name,
      logId: fc.constantFrom("", "log-one", "x"),
      pageSize,
      isKnown: fc.boolean(),
      position: u64,
    })
    .chain((join) =>
      fc.record({ checksum: u64, record, epoch: small, wish: fc.nat(4) }).map((rest) => ({ ...join, ...rest })),
    )
    .map((join) => encode("join", join)),
  channel.map((channel) => encode("leave", { channel })),
  channel.map((channel) => encode("resync", { channel })),
  channel.map((channel) => encode("resynced", { channel })),
  fc.record({ channel, blocks: words(64) }).map((message) => encode("sumsWanted", message)),
  fc
    .record({ channel, numbers: words(64).map((all) => all.toSorted()) })
    .map((message) => encode("pagesWanted", message)),
  fc
    .array(fc.record({ channel, position: u64, txid: small, taken: small }), { maxLength: 4 })
    .map((entries) => encode("applied", { entries })),
  fc.constant(encode("called", {})),
);

const fromPrimary: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc
    .record({
      channel,
      answer: fc.nat(3),
      logId: fc.constantFrom("", "log-one"),
      pageSize,
      epoch: small,
      position: u64,
    })
    .map((joined) => encode("joined", { ...joined, fromTxid: 1, toTxid: 2 })),
  fc
    .record({ channel, before: u64, position: u64, pageCount: small, checksum: u64, pages: small, block })
    .map((change) => encode("change", change)),
  fc.record({ channel, block }).map((message) => encode("pages", message)),
  fc
    .record({ channel, position: u64, pageCount: small, checksum: u64, record, quarantine: fc.boolean() })
    .map((head) => encode("resyncHead", head)),
  fc
    .record({ channel, first: fc.constantFrom(0, 0, 1), hashes: words(8) })
    .map((message) => encode("blockHashes", message)),
  fc.record({ channel, block: fc.nat(2), sums: words(40) }).map((message) => encode("pageSums", message)),
  fc.record({ channel, record }).map((message) => encode("sealed", message)),
  fc.record({ channel, code, message: fc.constant("\r\n\u001b[2J") }).map((message) => encode("refused", message)),
  fc.record({ channel, code, message: fc.constant("") }).map((message) => encode("rejoin", message)),
  channel.map((channel) => encode("abort", { channel })),
  fc
    .record({ code, message: fc.constant("x"), primary: fc.constantFrom("", "no url", "http://[") })
    .map((message) => encode("refusal", message)),
  fc
    .record({ successor: name.map((text) => text.slice(0, 100)), advertise: fc.constantFrom("", "javascript:1") })
    .map((message) => encode("goodbye", message)),
  fc
    .record({ name, logId: fc.constant("x"), pageSize, pageCount: small })
    .map((message) => encode("database", message)),
  name.map((name) => encode("gone", { name })),
);

const conversation = (messages: fc.Arbitrary<Uint8Array>): fc.Arbitrary<readonly Uint8Array[]> =>
  fc
    .tuple(
      fc.array(messages, { minLength: 1, maxLength: 12 }),
      fc.option(
        messages.chain((message) => mutated(message)),
        { freq: 4 },
      ),
    )
    .map(([all, last]) => (last === null ? all : [...all, last]));

fuzz("a hostile replica ends its own connection at the worst, and others are served", 40, () =>
  fc.asyncProperty(conversation(fromReplica), async (messages) => {
    const socket = new WebSocket(lead.url.replace("http", "ws").concat("/v1/stream"));
    await once(socket, "open");
    let heard: Message | undefined;
    socket.on("message", (data: Buffer) => (heard = decode(data)));
    socket.send(
      encode("hello", { min: 1, max: 1, features: [], node: fieldsOf(identity("hostile")), candidate: true }),
    );
    for (const message of messages) socket.send(message);
    // What was sent is worked off when a message that makes no sense has been answered.
    socket.send(
      encode("welcome", { protocol: 1, features: [], node: fieldsOf(identity("x")), member: 1, heartbeatMs: 1 }),
    );
    await once(socket, "close");
    expect(heard?.type).toBe("refusal");
    one.write();
    await caughtUp(one, replica);
  }),
);

fuzz("a hostile primary gets nothing into a replica that isn't whole, and the true one is followed again", 25, () =>
  fc.asyncProperty(conversation(fromPrimary), async (messages) => {
    script = messages;
    const before = scriptsSent;
    victim.client.follow(evilUrl);
    await until("the hostile primary", () => scriptsSent > before);
    await sleep(10);
    victim.client.follow(lead.url);
    one.write();
    const { attachment } = victim.replicas.get("one")!;
    const failed = await Promise.race([
      attachment.failed.catch((error: unknown) => error),
      caughtUp(one, replica).then(() => undefined),
    ]);
    if (failed !== undefined) {
      // It may have to be opened anew; a node does that.
      if (!isSluiceError(failed)) throw failed;
      await victim.leave("one");
      replica = await victim.open("one");
      await caughtUp(one, replica);
    }
    const reader = new Sqlite(victim.path("one"), { readonly: true });
    expect(reader.pragma("integrity_check", { simple: true })).toBe("ok");
    reader.close();
    expect(replica.checksum).toBe(one.feed.checksum);
  }),
);

const packed = unpackedSeeds();

fuzz("pages are unpacked to their size, or refused", 800, () =>
  fc.asyncProperty(mutated(...packed), async (bytes) => {
    try {
      const message = decode(bytes);
      if (message?.type !== "pages") return;
      const { numbers, content } = unpackPages(message.block, 512);
      expect(content.length).toBe(512 * numbers.length);
    } catch (error) {
      if (!isSluiceError(error, "SLU-8208")) throw error;
    }
  }),
);

function unpackedSeeds(): Uint8Array[] {
  const numbers = Uint32Array.from([1, 2, 9]);
  const lz4 = Uint8Array.from([0x1f, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xef, 0x50, 0, 0, 0, 0, 0]);
  const made = [
    { numbers, packed: 0, content: new Uint8Array(3 * 512) },
    { numbers, packed: 1, content: lz4 },
  ];
  return made.map((block) => encode("pages", { channel: 1, block }));
}

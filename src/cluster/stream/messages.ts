import { ByteReader, ByteWriter, damaged } from "./bytes.ts";
import {
  bytes,
  type Field,
  flag,
  type Fields,
  integer,
  list,
  struct,
  text,
  u64,
  type ValuesOf,
  words,
} from "./codec.ts";

/** The versions of the stream that this release speaks (docs/replication-stream.md). */
export const PROTOCOL_MIN = 1;
export const PROTOCOL_MAX = 1;

/** `hello`'s feature of a node that is taking over, and asks what the other nodes have (docs/replication-stream.md). */
export const FETCH = "fetch";

/** The longest message: a chunk of pages with everything around it. */
export const MESSAGE_BYTES_MAX = 4 * 1024 * 1024;
/** Pages of a chunk take at most this, and one page always fits. */
export const CHUNK_BYTES_MAX = 2 * 1024 * 1024;
/** A block of pages in a comparison. */
export const BLOCK_PAGES = 256;
/** Hashes of blocks in one message; blocks whose sums are asked for at once; pages asked for at once. */
export const HASHES_MAX = 1_024;
export const BLOCKS_WANTED_MAX = 64;
export const PAGES_WANTED_MAX = 4_096;

const u32 = integer(0xffff_ffff);
const pageNumber = integer(0xffff_fffe);
const channel = integer(0xff_ffff);
const id = text(128);
const name = text(4_096);
const address = text(2_048);
const sentence = text(4_096);

/** Which state a record is, by its four fields. Slot 0: none. */
const record = struct({ txid: integer(), epoch: u32, position: u64, timestampMs: integer() });

/** Numbers of pages, how their content is packed (0 as it is, 1 as one LZ4 block), and the content. */
const block = struct({ numbers: words(CHUNK_BYTES_MAX / 512), packed: integer(255), content: bytes(CHUNK_BYTES_MAX) });

/** Who a node is. `cluster` is empty for a node that has not learned it. */
const node = struct({ cluster: id, id, life: u64, name: text(256), advertise: address, version: text(128) });

const kinds = {
  // Both ways.
  hello: kind(1, { min: u32, max: u32, features: list(text(64), 64), node, candidate: flag }),
  welcome: kind(2, {
    protocol: u32,
    features: list(text(64), 64),
    node,
    member: integer(0xffff),
    heartbeatMs: integer(3_600_000),
  }),
  refusal: kind(3, { code: text(16), message: sentence, primary: address }),
  heartbeat: kind(4, { sentAtMs: integer(), role: integer(255), lease: sentence }),
  goodbye: kind(5, { successor: id, advertise: address }),
  // From the primary.
  database: kind(16, { name, logId: id, pageSize: integer(65_536), pageCount: u32 }),
  gone: kind(17, { name }),
  joined: kind(18, {
    channel,
    answer: integer(255),
    logId: id,
    pageSize: integer(65_536),
    epoch: u32,
    fromTxid: integer(),
    toTxid: integer(),
    position: u64,
  }),
  refused: kind(19, { channel, code: text(16), message: sentence }),
  change: kind(20, {
    channel,
    before: u64,
    position: u64,
    pageCount: pageNumber,
    checksum: u64,
    pages: pageNumber,
    block,
  }),
  pages: kind(21, { channel, block }),
  abort: kind(22, { channel }),
  rejoin: kind(23, { channel, code: text(16), message: sentence }),
  sealed: kind(24, { channel, record }),
  durable: kind(25, { entries: list(struct({ channel, newest: u64, replica: u64, store: u64 }), 4_096) }),
  members: kind(26, {
    nodes: list(
      struct({
        id,
        life: u64,
        member: integer(0xffff),
        name: text(256),
        advertise: address,
        candidate: flag,
        lagMs: integer(),
      }),
      256,
    ),
  }),
  resyncHead: kind(27, {
    channel,
    position: u64,
    pageCount: pageNumber,
    checksum: u64,
    record,
    quarantine: flag,
  }),
  blockHashes: kind(28, { channel, first: u32, hashes: words(2 * HASHES_MAX) }),
  pageSums: kind(29, { channel, block: u32, sums: words(2 * BLOCK_PAGES) }),
  called: kind(30, {}),
  // From a replica.
  join: kind(48, {
    channel,
    name,
    logId: id,
    pageSize: integer(65_536),
    isKnown: flag,
    position: u64,
    checksum: u64,
    record,
    epoch: u32,
    wish: integer(255),
  }),
  leave: kind(49, { channel }),
  applied: kind(50, { entries: list(struct({ channel, position: u64, txid: integer(), taken: integer() }), 4_096) }),
  resync: kind(51, { channel }),
  sumsWanted: kind(52, { channel, blocks: words(BLOCKS_WANTED_MAX) }),
  pagesWanted: kind(53, { channel, numbers: words(PAGES_WANTED_MAX) }),
  resynced: kind(54, { channel }),
} as const;

type Kinds = typeof kinds;
export type MessageType = keyof Kinds;
/** The content of one kind of message. */
export type Content<T extends MessageType> = ValuesOf<Kinds[T]["fields"]>;
export type Message = { [T in MessageType]: { readonly type: T } & Content<T> }[MessageType];
export type PackedBlock = Content<"pages">["block"];
export type NodeFields = Content<"hello">["node"];
export type RecordFields = Content<"sealed">["record"];

/** What a primary answers to a `join`. */
export const ANSWER = { continue: 0, records: 1, resync: 2 } as const;
/** What a replica says in a `join` about earlier tries. */
export const WISH = { any: 0, noRecords: 1, resync: 2 } as const;

function kind<F extends Fields>(type: number, fields: F): { type: number; fields: F; body: Field<ValuesOf<F>> } {
  return { type, fields, body: struct(fields) };
}

const byNumber = new Map<number, MessageType>(
  Object.entries(kinds).map(([name, { type }]) => [type, name as MessageType]),
);

/** One message: its type, then its fields. `room`: about how many bytes it will take. */
export function encode<T extends MessageType>(type: T, content: Content<T>, room?: number): Uint8Array {
  const writer = new ByteWriter(room);
  const { type: number, body } = kinds[type];
  writer.u8(number);
  (body as Field<Content<T>>).write(writer, content);
  return writer.take();
}

/**
 * Undefined for a type that this release doesn't know; bytes behind the last known field are ignored: so a later release
 * can say more. Throws SLU-8208 for anything else that isn't a whole message. Contents are parts of `message`, not copies.
 */
export function decode(message: Uint8Array): Message | undefined {
  if (message.length > MESSAGE_BYTES_MAX) throw damaged(`a message of ${message.length} bytes`);
  const reader = new ByteReader(message);
  const type = byNumber.get(reader.u8());
  if (type === undefined) return undefined;
  return { type, ...(kinds[type].body as Field<object>).read(reader) } as Message;
}

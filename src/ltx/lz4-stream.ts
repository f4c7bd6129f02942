import { SluiceError } from "../errors/error.ts";
import { LENGTH_BYTES, lz4Library } from "./lz4.ts";

const MAGIC = 0x184d2204;
const UNCOMPRESSED = 0x80000000;

/**
 * Decompresses one LZ4 frame of any length (LZ4 frame format 1.6; independent blocks, as Litestream 0.3 writes them),
 * a block of at most 4 MiB at a time. Throws SLU-5002 for anything else than one whole frame with right checksums.
 */
export async function* decompressLz4(name: string, body: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer> {
  const damaged = (how: string): SluiceError => new SluiceError("SLU-5002", `${name} ${how}`);
  const input = new ByteQueue(body);
  const need = async (bytes: number): Promise<Buffer> =>
    (await input.take(bytes)) ?? Promise.reject(damaged("is cut off"));

  const start = await need(7);
  const flags = start[4]!;
  const blockCode = (start[5]! >> 4) & 7;
  const [independent, blockSums, sized, contentSum] = [32, 16, 8, 4].map((bit) => (flags & bit) !== 0);
  if (start.readUInt32LE(0) !== MAGIC || flags >> 6 !== 1 || blockCode < 4) throw damaged("is not an LZ4 frame");
  if (!independent || (flags & 1) !== 0) throw damaged("is an LZ4 frame with linked blocks or a dictionary");
  const descriptor = sized ? Buffer.concat([start.subarray(4), await need(8)]) : start.subarray(4);
  if (((xxh32(descriptor.subarray(0, -1)) >>> 8) & 255) !== descriptor.at(-1)) throw damaged("has a damaged header");
  const blockMax = 2 ** (8 + 2 * blockCode);
  const sum = new Xxh32();
  for (;;) {
    const word = (await need(4)).readUInt32LE(0);
    if (word === 0) break;
    const size = word % UNCOMPRESSED;
    if (size > blockMax) throw damaged(`has a block of ${size} bytes`);
    const raw = await need(size);
    if (blockSums && (await need(4)).readUInt32LE(0) !== xxh32(raw)) throw damaged("has a damaged block");
    const block = word >= UNCOMPRESSED ? raw : decompress(raw, blockMax);
    if (block === undefined) throw damaged("has a damaged block");
    sum.update(block);
    yield block;
  }
  if (contentSum && (await need(4)).readUInt32LE(0) !== sum.value()) throw damaged("does not match its checksum");
  if ((await input.take(1)) !== undefined) throw damaged("goes on after its end");
}

function decompress(raw: Buffer, most: number): Buffer | undefined {
  const prefixed = Buffer.allocUnsafe(LENGTH_BYTES + raw.length);
  prefixed.writeUInt32LE(most, 0);
  raw.copy(prefixed, LENGTH_BYTES);
  try {
    return lz4Library().uncompressSync(prefixed);
  } catch {
    return undefined;
  }
}

/** Takes exact numbers of bytes out of a stream of chunks. */
class ByteQueue {
  readonly #chunks: AsyncIterator<Uint8Array>;
  #current: Buffer = Buffer.alloc(0);

  constructor(body: AsyncIterable<Uint8Array>) {
    this.#chunks = body[Symbol.asyncIterator]();
  }

  /** The next `bytes` bytes, or undefined when the stream ends before. */
  async take(bytes: number): Promise<Buffer | undefined> {
    const parts: Buffer[] = [];
    let missing = bytes;
    for (;;) {
      const part = this.#current.subarray(0, missing);
      this.#current = this.#current.subarray(part.length);
      parts.push(part);
      missing -= part.length;
      if (missing === 0) return parts.length === 1 ? part : Buffer.concat(parts, bytes);
      const next = await this.#chunks.next();
      if (next.done === true) return undefined;
      const { buffer, byteOffset, byteLength } = next.value;
      this.#current = Buffer.from(buffer, byteOffset, byteLength);
    }
  }
}

const P1 = 0x9e3779b1 | 0;
const P2 = 0x85ebca77 | 0;
const P3 = 0xc2b2ae3d | 0;
const P4 = 0x27d4eb2f | 0;
const P5 = 0x165667b1 | 0;

/** XXH32 with seed 0 (xxHash specification, section "XXH32"), the checksum of LZ4 frames. */
export class Xxh32 {
  readonly #lanes = Int32Array.of((P1 + P2) | 0, P2, 0, -P1 | 0);
  /** What is left of a stripe of 16 bytes. */
  readonly #rest = Buffer.alloc(16);
  #restBytes = 0;
  #length = 0;

  update(bytes: Buffer): void {
    this.#length += bytes.length;
    let at = 0;
    if (this.#restBytes > 0) {
      at = bytes.copy(this.#rest, this.#restBytes, 0, 16 - this.#restBytes);
      this.#restBytes += at;
      if (this.#restBytes < 16) return;
      this.#stripes(this.#rest, 0, 16);
    }
    const end = at + ((bytes.length - at) & ~15);
    this.#stripes(bytes, at, end);
    this.#restBytes = bytes.copy(this.#rest, 0, end);
  }

  /** Unsigned. */
  value(): number {
    const [a, b, c, d] = this.#lanes as unknown as [number, number, number, number];
    let h = this.#length >= 16 ? (rotl(a, 1) + rotl(b, 7) + rotl(c, 12) + rotl(d, 18)) | 0 : P5;
    h = (h + this.#length) | 0;
    let at = 0;
    for (; at + 4 <= this.#restBytes; at += 4) {
      h = Math.imul(rotl((h + Math.imul(this.#rest.readInt32LE(at), P3)) | 0, 17), P4);
    }
    for (; at < this.#restBytes; at++) h = Math.imul(rotl((h + Math.imul(this.#rest[at]!, P5)) | 0, 11), P1);
    h = Math.imul(h ^ (h >>> 15), P2);
    h = Math.imul(h ^ (h >>> 13), P3);
    return (h ^ (h >>> 16)) >>> 0;
  }

  #stripes(bytes: Buffer, start: number, end: number): void {
    let [a, b, c, d] = this.#lanes as unknown as [number, number, number, number];
    for (let at = start; at < end; at += 16) {
      a = round(a, word(bytes, at));
      b = round(b, word(bytes, at + 4));
      c = round(c, word(bytes, at + 8));
      d = round(d, word(bytes, at + 12));
    }
    this.#lanes.set([a, b, c, d]);
  }
}

function xxh32(bytes: Buffer): number {
  const sum = new Xxh32();
  sum.update(bytes);
  return sum.value();
}

function round(lane: number, input: number): number {
  return Math.imul(rotl((lane + Math.imul(input, P2)) | 0, 13), P1);
}

function rotl(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}

function word(bytes: Buffer, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

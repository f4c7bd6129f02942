import { SluiceError } from "../../errors/error.ts";

/** The error for whatever can't be read; the connection ends with it. */
export function damaged(what: string): SluiceError {
  return new SluiceError("SLU-8208", what);
}

const utf8 = new TextEncoder();
const fromUtf8 = new TextDecoder("utf-8", { fatal: true });

/** Writes one message; little-endian. The buffer is the receiver's after `take`. */
export class ByteWriter {
  #bytes: Uint8Array;
  #view: DataView;
  #at = 0;

  /** `room`: a guess of how many bytes there will be. */
  constructor(room = 256) {
    // Not zeroed: only what was written is taken.
    this.#bytes = Buffer.allocUnsafe(room);
    this.#view = viewOf(this.#bytes);
  }

  take(): Uint8Array {
    return this.#bytes.subarray(0, this.#at);
  }

  u8(value: number): void {
    this.#need(1);
    this.#bytes[this.#at++] = value;
  }

  /** An integer from 0 to 2^53 − 1: seven bits a byte, low ones first, the high bit says that more follow. */
  varint(value: number): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${value} in a message`);
    this.#need(8);
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes[this.#at++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[this.#at++] = rest;
  }

  u64(value: bigint): void {
    this.#need(8);
    this.#view.setBigUint64(this.#at, value, true);
    this.#at += 8;
  }

  bytes(value: Uint8Array): void {
    this.varint(value.length);
    this.#need(value.length);
    this.#bytes.set(value, this.#at);
    this.#at += value.length;
  }

  text(value: string): void {
    this.bytes(utf8.encode(value));
  }

  /** 32-bit words with their number before them. */
  words(value: Uint32Array | Int32Array): void {
    this.varint(value.length);
    this.#need(4 * value.length);
    for (let i = 0; i < value.length; i++, this.#at += 4) this.#view.setUint32(this.#at, value[i]!, true);
  }

  #need(count: number): void {
    if (this.#at + count <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(2 * this.#bytes.length, this.#at + count));
    larger.set(this.#bytes.subarray(0, this.#at));
    this.#bytes = larger;
    this.#view = viewOf(larger);
  }
}

/** Reads one message. Everything throws SLU-8208 past the end or beyond a limit. */
export class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
  }

  u8(): number {
    return this.#bytes[this.#take(1)]!;
  }

  varint(most: number = Number.MAX_SAFE_INTEGER): number {
    let value = 0;
    let unit = 1;
    for (let i = 0; i < 8; i++, unit *= 0x80) {
      const byte = this.u8();
      value += (byte & 0x7f) * unit;
      if (byte >= 0x80) continue;
      if (value > most) break;
      return value;
    }
    throw damaged(`a number beyond ${most}`);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  /** A part of the message, not a copy. */
  bytes(most: number): Uint8Array {
    const length = this.varint(most);
    const start = this.#take(length);
    return this.#bytes.subarray(start, start + length);
  }

  text(most: number): string {
    const bytes = this.bytes(most);
    try {
      return fromUtf8.decode(bytes);
    } catch {
      throw damaged("a text that is no UTF-8");
    }
  }

  words(most: number): Uint32Array<ArrayBuffer> {
    const count = this.varint(most);
    const start = this.#take(4 * count);
    const words = new Uint32Array(count);
    for (let i = 0; i < count; i++) words[i] = this.#view.getUint32(start + 4 * i, true);
    return words;
  }

  #take(count: number): number {
    const at = this.#at;
    if (at + count > this.#bytes.length) throw damaged("a message that ends too early");
    this.#at = at + count;
    return at;
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

import * as w from "./wasm.ts";

/**
 * What is done with every byte of a page, in WebAssembly: CRC-64 and the decompression of LZ4 blocks.
 *
 * **CRC-64.** The polynomial of CRC-64/GO-ISO is x⁶⁴ + x⁴ + x³ + x + 1, so x⁶⁴ ≡ x⁴ + x³ + x + 1, and, squared three
 * times, x⁵¹² ≡ x³² + x²⁴ + x⁸ + 1: to move a block of 64 bytes over the next one is to shift it by whole bytes and to
 * XOR. Bits are reflected, so higher powers are at lower addresses, and what is shifted out in front of the block is
 * reduced once more. The last block is folded a word at a time by the first equation. No tables, some ten times as fast
 * as with them.
 *
 * **LZ4** (block format). Copies go in steps of 16 bytes and may write up to 15 bytes past their end, which the next copy
 * overwrites; a match nearer than that is a pattern, put together by one shuffle.
 */
export interface PageKernel {
  /** All of its memory. What is below `free` is its own. */
  readonly memory: Uint8Array<ArrayBuffer>;
  /** The running CRC (not inverted): low half, high half. */
  readonly state: Int32Array;
  /** Takes the bytes `at` … `end` of the memory into the running CRC: a multiple of 64, and not 0. */
  readonly crc: (at: number, end: number) => void;
  /**
   * Decompresses the block at `from` … `fromEnd` to `to` … `toEnd`; false unless it's whole, valid, and of exactly that
   * size. Reads and writes up to `SLACK_BYTES` more. Nothing outside that is touched, whatever the block says.
   */
  readonly decompress: (from: number, fromEnd: number, to: number, toEnd: number) => boolean;
}

/** What must be left free behind the end of what is decompressed, and of where to. */
export const SLACK_BYTES = 32;
export const FOLD_BYTES = 64;
const STATE_AT = 0;
/** For each distance below 16: which of the bytes from there on make the next 16; how many of those repeat it wholly. */
const PATTERNS_AT = 16;
const STEPS_AT = PATTERNS_AT + 256;
/** The first byte that is for who uses a kernel. */
export const FREE_AT = 1024;

interface Functions {
  readonly crc: (at: number, end: number) => void;
  readonly decompress: (from: number, fromEnd: number, to: number, toEnd: number) => number;
}

/** A kernel with `bytes` of memory from `FREE_AT` on; undefined where WebAssembly isn't to be had. */
export function pageKernel(bytes: number): PageKernel | undefined {
  const made = w.instantiate([crcCode(), decompressCode()], Math.ceil((FREE_AT + bytes) / 65536));
  if (made === undefined) return undefined;
  const { crc, decompress } = made as unknown as Functions;
  const memory = new Uint8Array(made.memory.buffer);
  for (let distance = 1; distance < 16; distance++) {
    for (let i = 0; i < 16; i++) memory[PATTERNS_AT + 16 * distance + i] = i % distance;
    memory[STEPS_AT + distance] = 16 - (16 % distance);
  }
  return {
    memory,
    state: new Int32Array(made.memory.buffer, STATE_AT, 2),
    crc,
    decompress: (from, fromEnd, to, toEnd) => decompress(from, fromEnd, to, toEnd) === 1,
  };
}

/** The memory of `threadKernel` has two windows: this one for what comes in, … */
export const WINDOW_AT = FREE_AT;
export const WINDOW_BYTES = 128 * 1024;
/** … and one for a decompressed page. */
export const PAGE_BYTES_MAX = 65536;
export const PAGE_AT = WINDOW_AT + WINDOW_BYTES + SLACK_BYTES;

let shared: PageKernel | undefined | "not made yet" = "not made yet";

/** The kernel that all of a thread shares; made when it's needed first. */
export function threadKernel(): PageKernel | undefined {
  if (shared === "not made yet") shared = pageKernel(PAGE_AT + PAGE_BYTES_MAX + SLACK_BYTES - FREE_AT);
  return shared;
}

/**
 *     a[0] ^= state
 *     while (at < end):
 *       a[3] ^= x⁵¹² of what leaves a[0]
 *       a = a · (x³² + x²⁴ + x⁸ + 1) ^ the next 64 bytes
 *     state = words of a, one after the other: state = (state ^ word) · x⁶⁴
 */
function crcCode(): w.FunctionCode {
  const [at, end, crc] = [0, 1, 2] as const;
  const a = [3, 4, 5, 6] as const;
  const get = w.get;
  /** By one, three and four bytes: x⁸ + x²⁴ + x³². */
  const moved = (low: w.Code, high: w.Code): w.Code =>
    w.xor128(w.window(low, high, 1), w.xor128(w.window(low, high, 3), w.window(low, high, 4)));
  const loadAll = a.map((local, i) => w.set(local, w.load128(get(at), 16 * i)));
  const fold = a.map((local, i) => {
    const shifted = moved(get(local), i === 3 ? w.zero128 : get(a[i + 1]!));
    return w.set(local, w.xor128(w.xor128(get(local), shifted), w.load128(get(at), 16 * i)));
  });
  return {
    name: "crc",
    parameters: [w.I32, w.I32],
    locals: [w.I64, w.V128, w.V128, w.V128, w.V128],
    body: [
      ...loadAll,
      w.set(a[0], w.xor128(get(a[0]), w.vectorOf(w.load64(w.i32(0), STATE_AT)))),
      w.loop(
        w.set(at, w.add(get(at), w.i32(FOLD_BYTES))),
        w.when(
          w.lessUnsigned(get(at), get(end)),
          w.set(a[3], w.xor128(get(a[3]), moved(w.zero128, get(a[0])))),
          ...fold,
          w.again(1),
        ),
      ),
      w.set(crc, w.i64(0)),
      ...a.flatMap((local) => [word(crc, w.half(get(local), 0)), word(crc, w.half(get(local), 1))]),
      w.store64(w.i32(0), get(crc), STATE_AT),
    ],
  };
}

/** crc = (crc ^ word) · x⁶⁴ */
function word(crc: number, value: w.Code): w.Code {
  const get = w.get(crc);
  const out = (bits: number): w.Code => w.shiftLeft64(get, w.i64(bits));
  const by = (bits: number): w.Code => w.shiftRight64(get, w.i64(bits));
  return [
    ...w.set(crc, w.xor64(get, value)),
    ...w.set(crc, w.xor64(get, w.xor64(out(63), w.xor64(out(61), out(60))))),
    ...w.set(crc, w.xor64(get, w.xor64(by(1), w.xor64(by(3), by(4))))),
  ];
}

/**
 * A block is a row of sequences: a token with two lengths of four bits (15: bytes follow that are added, until one isn't
 * 255), literals, the distance of a match, which is four bytes longer than its length says. The last one has no match.
 */
function decompressCode(): w.FunctionCode {
  const [from, fromEnd, to, toEnd, toBegin, token, length, match, stop] = [0, 1, 2, 3, 4, 5, 6, 7, 8] as const;
  const pattern = 9;
  const get = w.get;
  const advance = (local: number, by: w.Code): w.Code => w.set(local, w.add(get(local), by));
  const failIf = (condition: w.Code): w.Code => w.when(condition, w.giveBack(w.i32(0)));
  const longer: w.Code = w.when(
    w.equal(get(length), w.i32(15)),
    w.loop(
      failIf(w.atLeastUnsigned(get(from), get(fromEnd))),
      advance(length, w.load8(get(from))),
      advance(from, w.i32(1)),
      w.againIf(w.equal(w.load8(w.subtract(get(from), w.i32(1))), w.i32(255))),
    ),
  );
  /** 16 bytes a step until `stop`, at least one step. */
  const copy = (source: number): w.Code => [
    ...w.set(stop, w.add(get(to), get(length))),
    ...w.loop(
      w.store128(get(to), w.load128(get(source))),
      advance(source, w.i32(16)),
      advance(to, w.i32(16)),
      w.againIf(w.lessUnsigned(get(to), get(stop))),
    ),
  ];
  const repeat: w.Code = [
    ...w.set(
      pattern,
      w.pick(w.load128(w.subtract(get(to), get(match))), w.load128(w.shiftLeft(get(match), w.i32(4)), PATTERNS_AT)),
    ),
    ...w.set(match, w.load8(get(match), STEPS_AT)),
    ...w.set(stop, w.add(get(to), get(length))),
    ...w.loop(
      w.store128(get(to), get(pattern)),
      advance(to, get(match)),
      w.againIf(w.lessUnsigned(get(to), get(stop))),
    ),
  ];
  return {
    name: "decompress",
    parameters: [w.I32, w.I32, w.I32, w.I32],
    result: w.I32,
    locals: [w.I32, w.I32, w.I32, w.I32, w.I32, w.V128],
    body: [
      w.set(toBegin, get(to)),
      w.loop(
        failIf(w.atLeastUnsigned(get(from), get(fromEnd))),
        w.set(token, w.load8(get(from))),
        advance(from, w.i32(1)),
        w.set(length, w.shiftRight(get(token), w.i32(4))),
        longer,
        failIf(w.moreUnsigned(get(length), w.subtract(get(fromEnd), get(from)))),
        failIf(w.moreUnsigned(get(length), w.subtract(get(toEnd), get(to)))),
        copy(from),
        w.set(from, w.subtract(get(from), w.subtract(get(to), get(stop)))),
        w.set(to, get(stop)),
        w.when(w.equal(get(from), get(fromEnd)), w.giveBack(w.equal(get(to), get(toEnd)))),
        failIf(w.lessUnsigned(w.subtract(get(fromEnd), get(from)), w.i32(2))),
        w.set(match, w.load16(get(from))),
        advance(from, w.i32(2)),
        // A distance of 0 becomes the largest number.
        failIf(w.atLeastUnsigned(w.subtract(get(match), w.i32(1)), w.subtract(get(to), get(toBegin)))),
        w.set(length, w.and(get(token), w.i32(15))),
        longer,
        advance(length, w.i32(4)),
        failIf(w.moreUnsigned(get(length), w.subtract(get(toEnd), get(to)))),
        w.when(
          w.lessUnsigned(get(match), w.i32(16)),
          repeat,
          w.otherwise,
          w.set(match, w.subtract(get(to), get(match))),
          copy(match),
        ),
        w.set(to, get(stop)),
        w.again(0),
      ),
      w.giveBack(w.i32(0)),
    ],
  };
}

import * as w from "./wasm.ts";

/**
 * LZ4 blocks (LZ4 block format). A block is a row of sequences: a token with two lengths of four bits (15: bytes follow
 * that are added, until one isn't 255), literals, the distance of a match, and how long it is, less four. The last one
 * has no match. Copies go in steps of 16 bytes and may write up to 15 bytes past their end, which the next copy
 * overwrites.
 */

/**
 * Decompresses the block at from … fromEnd to exactly to … toEnd; gives 1, or 0 for a block that isn't whole, valid, and
 * of that size. A match nearer than 16 bytes is a pattern, put together by one shuffle out of the tables at
 * `patternsAt` and `stepsAt`.
 */
export function decompressCode(patternsAt: number, stepsAt: number): w.FunctionCode {
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
      w.pick(w.load128(w.subtract(get(to), get(match))), w.load128(w.shiftLeft(get(match), w.i32(4)), patternsAt)),
    ),
    ...w.set(match, w.load8(get(match), stepsAt)),
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

/** Of the hash table: places of the input by the hash of the four bytes there. */
const HASH_BITS = 13;
export const TABLE_BYTES = 2 * 2 ** HASH_BITS;
/** The golden ratio of 2³², as LZ4's own. */
const HASH_FACTOR = 2654435761 | 0;
/** A block ends with five literals, and no match begins in its last twelve bytes (LZ4 block format, "end of block"). */
const LAST_LITERALS = 5;
const MATCH_LIMIT = 12;
/** After so many misses the search begins to take longer steps. */
const MISSES_LOG = 6;

/**
 * Compresses the bytes from … fromEnd, at most 65536, to `to`; gives where the block ends. The match is the newest place
 * whose four bytes have the same hash; what doesn't compress is soon passed in longer steps.
 */
export function compressCode(tableAt: number): w.FunctionCode {
  const [from, fromEnd, to, at, anchor, candidate, word, slot] = [0, 1, 2, 3, 4, 5, 6, 7] as const;
  const [misses, token, tokenAt, length, stop, different] = [8, 9, 10, 11, 12, 13] as const;
  const get = w.get;
  const advance = (local: number, by: w.Code): w.Code => w.set(local, w.add(get(local), by));
  const before = (local: number): w.Code => w.load8(w.subtract(get(local), w.i32(1)));
  const put = (byte: w.Code): w.Code => [...w.store8(get(to), byte), ...advance(to, w.i32(1))];
  const slotOf = (place: w.Code): w.Code =>
    w.shiftLeft(w.shiftRight(w.multiply(w.load32(place), w.i32(HASH_FACTOR)), w.i32(32 - HASH_BITS)), w.i32(1));
  /** `length` into four bits of the token, and bytes where it's longer. */
  const putLength = (bits: number): w.Code =>
    w.when(
      w.lessUnsigned(get(length), w.i32(15)),
      w.set(token, w.or(get(token), w.shiftLeft(get(length), w.i32(bits)))),
      w.otherwise,
      w.set(token, w.or(get(token), w.i32(15 << bits))),
      w.set(length, w.subtract(get(length), w.i32(15))),
      w.loop(
        w.when(
          w.atLeastUnsigned(get(length), w.i32(255)),
          put(w.i32(255)),
          w.set(length, w.subtract(get(length), w.i32(255))),
          w.again(1),
        ),
      ),
      put(get(length)),
    );
  /** Token and literals from `anchor` to `end`. */
  const putLiterals = (end: number): w.Code => [
    ...w.set(tokenAt, get(to)),
    ...w.set(token, w.i32(0)),
    ...advance(to, w.i32(1)),
    ...w.set(length, w.subtract(get(end), get(anchor))),
    ...putLength(4),
    ...w.set(stop, w.add(get(to), w.subtract(get(end), get(anchor)))),
    ...w.loop(
      w.store128(get(to), w.load128(get(anchor))),
      advance(to, w.i32(16)),
      advance(anchor, w.i32(16)),
      w.againIf(w.lessUnsigned(get(to), get(stop))),
    ),
    ...w.set(to, get(stop)),
  ];
  const backwards = w.loop(
    w.when(
      w.and(w.moreUnsigned(get(at), get(anchor)), w.moreUnsigned(get(candidate), get(from))),
      w.when(
        w.equal(before(at), before(candidate)),
        w.set(at, w.subtract(get(at), w.i32(1))),
        w.set(candidate, w.subtract(get(candidate), w.i32(1))),
        w.again(2),
      ),
    ),
  );
  /** Moves `at` and `candidate` on to the end of the match. */
  const forwards: w.Code = [
    ...w.loop(
      w.when(
        w.atMostUnsigned(w.add(get(at), w.i32(8)), w.subtract(get(fromEnd), w.i32(LAST_LITERALS))),
        w.set(different, w.xor64(w.load64(get(at)), w.load64(get(candidate)))),
        w.set(length, w.i32(8)),
        w.when(
          w.isZero64(get(different)),
          w.otherwise,
          w.set(length, w.shiftRight(w.low32(w.trailingZeros64(get(different))), w.i32(3))),
        ),
        advance(at, get(length)),
        advance(candidate, get(length)),
        w.againIf(w.isZero64(get(different)), 1),
      ),
    ),
    ...w.loop(
      w.when(
        w.lessUnsigned(get(at), w.subtract(get(fromEnd), w.i32(LAST_LITERALS))),
        w.when(
          w.equal(w.load8(get(at)), w.load8(get(candidate))),
          advance(at, w.i32(1)),
          advance(candidate, w.i32(1)),
          w.again(2),
        ),
      ),
    ),
  ];
  const search = w.loop(
    w.when(
      w.atMostUnsigned(w.add(get(at), w.i32(MATCH_LIMIT)), get(fromEnd)),
      w.set(word, w.load32(get(at))),
      w.set(slot, slotOf(get(at))),
      w.set(candidate, w.add(get(from), w.load16(get(slot), tableAt))),
      w.store16(get(slot), w.subtract(get(at), get(from)), tableAt),
      w.when(
        w.differ(w.load32(get(candidate)), get(word)),
        advance(at, w.shiftRight(get(misses), w.i32(MISSES_LOG))),
        advance(misses, w.i32(1)),
        w.again(2),
      ),
      backwards,
      putLiterals(at),
      w.store16(get(to), w.subtract(get(at), get(candidate))),
      advance(to, w.i32(2)),
      advance(at, w.i32(4)),
      advance(candidate, w.i32(4)),
      w.set(anchor, get(at)),
      forwards,
      w.set(length, w.subtract(get(at), get(anchor))),
      putLength(0),
      w.store8(get(tokenAt), get(token)),
      w.set(anchor, get(at)),
      w.set(misses, w.i32(1 << MISSES_LOG)),
      w.set(slot, slotOf(w.subtract(get(at), w.i32(2)))),
      w.store16(get(slot), w.subtract(w.subtract(get(at), w.i32(2)), get(from)), tableAt),
      w.again(1),
    ),
  );
  return {
    name: "compress",
    parameters: [w.I32, w.I32, w.I32],
    result: w.I32,
    locals: [...Array.from({ length: 10 }, () => w.I32), w.I64],
    body: [
      w.clear(tableAt, TABLE_BYTES),
      w.set(anchor, get(from)),
      // The first place is in the table: that's what 0 means there.
      w.set(at, w.add(get(from), w.i32(1))),
      w.set(misses, w.i32(1 << MISSES_LOG)),
      search,
      putLiterals(fromEnd),
      w.store8(get(tokenAt), get(token)),
      get(to),
    ],
  };
}

import * as w from "./wasm.ts";

/** A block that is folded in one step. */
export const FOLD_BYTES = 64;

/**
 * CRC-64 of the bytes at … end, a multiple of `FOLD_BYTES` and not 0, from the running value (not inverted) at `stateAt`
 * on, which it replaces.
 *
 * The polynomial of CRC-64/GO-ISO is x⁶⁴ + x⁴ + x³ + x + 1, so x⁶⁴ ≡ x⁴ + x³ + x + 1, and, squared three times,
 * x⁵¹² ≡ x³² + x²⁴ + x⁸ + 1: to move a block of 64 bytes over the next one is to shift it by whole bytes and to XOR.
 * Bits are reflected, so higher powers are at lower addresses, and what is shifted out in front of the block is reduced
 * once more. The last block is folded a word at a time by the first equation. No tables, and some six times as fast as
 * the fastest with them.
 *
 *     a[0] ^= state
 *     while (at < end):
 *       a[3] ^= x⁵¹² of what leaves a[0]
 *       a = a · (x³² + x²⁴ + x⁸ + 1) ^ the next 64 bytes
 *     state = words of a, one after the other: state = (state ^ word) · x⁶⁴
 */
export function crcCode(stateAt: number): w.FunctionCode {
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
      w.set(a[0], w.xor128(get(a[0]), w.vectorOf(w.load64(w.i32(0), stateAt)))),
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
      w.store64(w.i32(0), get(crc), stateAt),
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

/**
 * CRC-64/GO-ISO of two runs of bytes, one behind the other, from the CRC of each: `x^(8n) · first ^ second` modulo the
 * polynomial, as zlib's `crc32_combine`. So the segments of a file are checked in parallel. `CrcShift` of the LTX room
 * does the same by table, for one length that is used again and again.
 *
 * Reflected: bit 63 is the coefficient of x^0.
 */
const POLYNOMIAL = 0xd800000000000000n;
const ONE = 1n << 63n;

/** `powers[k]`: x^(8·2^k). */
const powers: bigint[] = [ONE >> 8n];

function multiply(a: bigint, b: bigint): bigint {
  let product = 0n;
  for (let rest = a, term = b; rest !== 0n; rest = BigInt.asUintN(64, rest << 1n)) {
    if ((rest & ONE) !== 0n) product ^= term;
    term = (term & 1n) !== 0n ? (term >> 1n) ^ POLYNOMIAL : term >> 1n;
  }
  return product;
}

/** `first`, `second`: the CRCs of the two runs; `secondBytes`: how long the second is. */
export function combineCrc(first: bigint, second: bigint, secondBytes: number): bigint {
  let moved = first;
  for (let k = 0, n = secondBytes; n > 0; k++, n = Math.floor(n / 2)) {
    powers[k] ??= multiply(powers[k - 1]!, powers[k - 1]!);
    if (n % 2 === 1) moved = multiply(moved, powers[k]!);
  }
  return moved ^ second;
}

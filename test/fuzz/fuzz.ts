import { setImmediate as turn } from "node:timers/promises";
import fc, { type IAsyncProperty } from "fast-check";
import { test } from "vitest";

/** How long each property is tried, in seconds (`npm run fuzz`); 0: a few runs, always the same. */
const SECONDS = Number(process.env["SLUICE_FUZZ_SECONDS"] ?? 0);

/** A test that tries a property: `runs` times with a fixed seed, or in rounds of that for as long as was asked for. */
export function fuzz<T>(name: string, runs: number, property: () => IAsyncProperty<T>): void {
  test(name, { timeout: 60_000 + SECONDS * 2_000 }, async () => {
    if (SECONDS === 0) return fc.assert(property(), { seed: 20261123, numRuns: runs });
    const until = performance.now() + SECONDS * 1_000;
    let tried = 0;
    for (; performance.now() < until; tried += runs) {
      await fc.assert(property(), { numRuns: runs });
      await turn();
    }
    console.log(`fuzz: ${name}: ${tried} runs`);
  });
}

/** What has lengths, counts and signs at its borders. */
const EDGES = [
  0, 1, 2, 3, 4, 7, 0x7f, 0x80, 0xff, 0x100, 0x200, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000,
];
const edge = fc.constantFrom(...EDGES, 0xfffffffe, 0xffffffff);
const at = fc.nat(1_000_000);

type Change = (bytes: Uint8Array) => Uint8Array;

function place(bytes: Uint8Array, value: number): number {
  return bytes.length === 0 ? 0 : value % bytes.length;
}

function spliced(bytes: Uint8Array, from: number, removed: number, added: Uint8Array): Uint8Array {
  const rest = bytes.subarray(from + removed);
  const all = new Uint8Array(from + added.length + rest.length);
  all.set(bytes.subarray(0, from));
  all.set(added, from);
  all.set(rest, from + added.length);
  return all;
}

/** One change to some bytes, of the kinds that find most: bits, numbers of the edges, pieces that go, come twice, or move. */
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(at, fc.nat(7)).map(([where, bit]) => (bytes: Uint8Array) => {
    const copy = bytes.slice();
    if (copy.length > 0) copy[place(copy, where)]! ^= 1 << bit;
    return copy;
  }),
  fc.tuple(at, fc.nat(255)).map(([where, value]) => (bytes: Uint8Array) => {
    const copy = bytes.slice();
    if (copy.length > 0) copy[place(copy, where)] = value;
    return copy;
  }),
  fc
    .tuple(at, edge, fc.constantFrom(1, 2, 4), fc.boolean())
    .map(([where, value, width, little]) => (bytes: Uint8Array) => {
      const copy = bytes.slice();
      const from = place(copy, where);
      for (let i = 0; i < width && from + i < copy.length; i++)
        copy[from + i] = value >>> (8 * (little ? i : width - 1 - i));
      return copy;
    }),
  fc.tuple(at, fc.nat(64)).map(
    ([where, count]) =>
      (bytes: Uint8Array) =>
        spliced(bytes, place(bytes, where), count, new Uint8Array(0)),
  ),
  fc.tuple(at, fc.uint8Array({ maxLength: 32 })).map(
    ([where, added]) =>
      (bytes: Uint8Array) =>
        spliced(bytes, place(bytes, where), 0, added),
  ),
  fc.tuple(at, at, fc.nat(600)).map(([where, from, count]) => (bytes: Uint8Array) => {
    const piece = bytes.slice(place(bytes, from), place(bytes, from) + count);
    return spliced(bytes, place(bytes, where), piece.length, piece);
  }),
  fc.tuple(at, fc.nat(600)).map(([from, count]) => (bytes: Uint8Array) => {
    const start = place(bytes, from);
    return spliced(bytes, start, 0, bytes.slice(start, start + count));
  }),
  at.map((where) => (bytes: Uint8Array) => bytes.slice(0, place(bytes, where))),
);

/** One of the originals with one to eight changes. */
export function mutated(...originals: readonly Uint8Array[]): fc.Arbitrary<Uint8Array<ArrayBuffer>> {
  return fc
    .tuple(fc.constantFrom(...originals), fc.array(change, { minLength: 1, maxLength: 8 }))
    .map(([original, changes]) => Uint8Array.from(changes.reduce((bytes, change) => change(bytes), original)));
}

/** The same for a text; what is no UTF-8 any more stands there as "\uFFFD". */
export function mutatedText(...originals: readonly string[]): fc.Arbitrary<string> {
  return mutated(...originals.map((text) => new Uint8Array(Buffer.from(text)))).map((bytes) =>
    Buffer.from(bytes).toString(),
  );
}

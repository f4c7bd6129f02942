import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { emptyState, type PersistedState, peekState, StateFile } from "../../src/database/state.ts";
import { sealedPath } from "../../src/database/seal.ts";
import { Crc64 } from "../../src/ltx/crc64.ts";
import { scratch } from "./apps.ts";

let dir: ReturnType<typeof scratch>;
let stateDir: string;
beforeEach(() => {
  dir = scratch("state");
  stateDir = dir.path(".app.db-sluice");
});
afterEach(() => dir.remove());

const file = (): string => path.join(stateDir, "state");

async function write(...states: PersistedState[]): Promise<void> {
  const store = new StateFile(stateDir);
  for (const state of states) await store.write(state);
  store.close();
}

function read(): PersistedState | undefined {
  const store = new StateFile(stateDir);
  store.close();
  return store.state;
}

const u64 = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });
const txid = fc.nat({ max: Number.MAX_SAFE_INTEGER });
const place = fc.record({ salt1: fc.integer(), salt2: fc.integer(), frame: fc.nat(), sum1: fc.nat(), sum2: fc.nat() });
const members = fc.array(fc.nat({ max: 65535 }), { maxLength: 3 });
const batch = fc.record({
  txid,
  epoch: fc.nat(),
  position: u64,
  checksum: u64,
  timestampMs: txid,
  members,
  sizeBytes: txid,
});
const states = fc
  .record({
    logId: fc.string(),
    nodeId: fc.oneof(fc.string(), fc.constant("0x10"), fc.constant("0xzz")),
    confirmed: fc.record({ txid, position: u64, timestampMs: txid }),
    sealedTxid: txid,
    sealedPosition: u64,
    sealedTimestampMs: txid,
    pageSize: fc.nat(),
    sealedSize: fc.nat(),
    sealedChecksum: u64,
    place: fc.option(place, { nil: undefined }),
    epoch: fc.nat(),
    writer: u64,
    frozen: fc.array(batch, { maxLength: 24, minLength: 24 }),
    takeover: fc.option(txid, { nil: undefined }),
    bootId: fc.uuid(),
    clean: fc.option(
      fc.record({ dev: fc.constant("1"), ino: fc.constant("2"), sizeBytes: txid, mtimeNs: fc.constant("3") }),
      { nil: undefined },
    ),
    puttingBack: fc.boolean(),
    following: fc.boolean(),
  })
  .map((state): PersistedState => {
    const frozen = state.frozen.map((one) => ({ ...one, path: sealedPath(stateDir, one.txid) }));
    return { ...state, frozen };
  });

test("what was written last is read again, by its owner and by others, with as many batches as may wait", async () => {
  await fc.assert(
    fc.asyncProperty(states, states, async (a, b) => {
      await write(a, b);
      expect(read()).toEqual(b);
      expect(peekState(stateDir)).toEqual(b);
    }),
    { numRuns: 30 },
  );
});

test("nobody else may look into the directory; there is no state before the first", () => {
  expect(peekState(stateDir)).toBe(undefined);
  expect(read()).toBe(undefined);
  expect(statSync(stateDir).mode & 0o777).toBe(0o700);
  expect(statSync(file()).mode & 0o777).toBe(0o600);
});

test("a state of another format is refused with the version that wrote it, and stays as it is", async () => {
  await write({ ...emptyState, sealedTxid: 1 });
  // Both places; the checksum is made anew.
  const rewritten = (change: (document: string) => string): Buffer => {
    const bytes = readFileSync(file());
    const slot = bytes.subarray(16 * 1024);
    const json = Buffer.from(change(slot.toString("utf8", 24, 24 + Number(slot.readBigUInt64BE(8)))));
    slot.writeBigUInt64BE(BigInt(json.length), 8);
    json.copy(slot, 24);
    slot.writeBigUInt64BE(
      new Crc64()
        .update(slot, 0, 16)
        .update(slot, 24, 24 + json.length)
        .value(),
      16,
    );
    return bytes;
  };
  const newer = rewritten((text) => text.replace(/"format":1,"version":"[^"]+"/, '"format":9,"version":"7.0.1"'));
  writeFileSync(file(), newer);
  expect(read).toThrow(/was written by Sluice 7\.0\.1 \(state format 9\); this is Sluice \d[^ ]* \(state format 1\)/);
  expect(peekState(stateDir)).toBe(undefined);
  expect(readFileSync(file()).equals(newer)).toBe(true);
  writeFileSync(
    file(),
    rewritten((text) => text.replace(/"format":9,"version":"7.0.1",/, "")),
  );
  expect(read).toThrow(/development version \(state format 0\)/);
});

test("a write that is broken off at any byte leaves the state before it", async () => {
  await write({ ...emptyState, sealedTxid: 1 }, { ...emptyState, sealedTxid: 2 });
  const before = readFileSync(file());
  await write({ ...emptyState, sealedTxid: 3 });
  const after = readFileSync(file());
  const changed = [...after.keys()].filter((i) => after[i] !== before[i]);
  expect(changed.length).toBeGreaterThan(3);
  for (const cut of changed) {
    const torn = Buffer.concat([after.subarray(0, cut), before.subarray(cut)]);
    writeFileSync(file(), torn);
    expect(read()?.sealedTxid).toBe(2);
    // Sectors may be written in any order.
    writeFileSync(file(), Buffer.concat([before.subarray(0, cut + 1), after.subarray(cut + 1)]));
    expect(read()?.sealedTxid).toBe(2);
  }
  writeFileSync(file(), after);
  expect(read()?.sealedTxid).toBe(3);
});

test("the first write of all, broken off at any byte, leaves no state, and another can be written", async () => {
  await write({ ...emptyState, sealedTxid: 1 });
  const whole = readFileSync(file());
  const end = whole.findLastIndex((byte) => byte !== 0);
  const begin = whole.findIndex((byte) => byte !== 0);
  for (let cut = begin; cut <= end; cut++) {
    writeFileSync(file(), Buffer.concat([whole.subarray(0, cut), Buffer.alloc(whole.length - cut)]));
    expect(read()).toBe(undefined);
  }
  await write({ ...emptyState, sealedTxid: 4 });
  expect(read()?.sealedTxid).toBe(4);
});

test("of a file that is cut off anywhere a whole state is read, and kept, or it is told; never a wrong one", async () => {
  await write(...[1, 2, 3].map((sealedTxid) => ({ ...emptyState, sealedTxid })));
  const whole = readFileSync(file());
  const seen = new Set<number | string | undefined>();
  for (let length = 0; length < whole.length; length += length < 40 || (length > 16_370 && length < 16_420) ? 1 : 41) {
    writeFileSync(file(), whole.subarray(0, length));
    let found: number | string | undefined;
    try {
      found = read()?.sealedTxid;
      // Opening gives the file its length again, which may not cost what is in it.
      expect(read()?.sealedTxid).toBe(found);
    } catch (error) {
      found = (error as { code: string }).code;
    }
    // Without the counter in its head the file is as good as new.
    expect(length < 8 ? [undefined] : [2, 3, "SLU-2014"]).toContain(found);
    seen.add(found);
  }
  expect(seen).toEqual(new Set([undefined, 2, 3, "SLU-2014"]));
});

test("a damaged byte costs the newest state at most, and two damaged places are told", async () => {
  await write({ ...emptyState, sealedTxid: 1 }, { ...emptyState, sealedTxid: 2 });
  const whole = readFileSync(file());
  const used = [...whole.keys()].filter((i) => whole[i] !== 0);
  for (const i of used) {
    const damaged = Buffer.from(whole);
    damaged[i]! ^= 0x10;
    writeFileSync(file(), damaged);
    expect([1, 2]).toContain(read()?.sealedTxid);
  }
  const both = Buffer.from(whole);
  both[used[10]!]! ^= 1;
  both[used.at(-1)!]! ^= 1;
  writeFileSync(file(), both);
  expect(() => read()).toThrow(expect.objectContaining({ code: "SLU-2014" }));
  expect(readFileSync(file()).equals(both)).toBe(true);
});

test("a directory may be moved, and may lie as deep as the system allows", async () => {
  const frozen = Array.from({ length: 24 }, (_, i) => ({
    txid: i + 1,
    epoch: 1,
    position: 2n ** 63n,
    checksum: 2n ** 63n,
    timestampMs: 1e12,
    members: [65535, 65534, 65533],
    sizeBytes: 1e9,
    path: "",
  }));
  await write({ ...emptyState, frozen });
  const deep = path.join(dir.path("deep"), ...Array.from({ length: 14 }, () => "x".repeat(250)));
  mkdirSync(path.dirname(deep), { recursive: true });
  renameSync(stateDir, deep);
  stateDir = deep;
  expect(read()?.frozen.map((one) => one.path)).toEqual(frozen.map((one) => sealedPath(deep, one.txid)));
  await write(read()!);
  expect(read()?.frozen.length).toBe(24);
});

test("a write at once counts like any other", () => {
  const store = new StateFile(stateDir);
  store.writeNow({ ...emptyState, sealedTxid: 7 });
  store.close();
  expect(read()?.sealedTxid).toBe(7);
});

import { describe, expect, it } from "vitest";
import { AckTable } from "../../../src/cluster/stream/acks.ts";

/** A table with a clock that stands still until it's moved. */
function table(): { acks: AckTable; at: (ms: number) => void } {
  let nowMs = 0;
  return { acks: new AckTable(() => nowMs), at: (ms) => void (nowMs = ms) };
}

const ONE = 1n;
const TWO = 2n;

describe("acknowledgements", () => {
  it("say who has what, until a life ends", () => {
    const { acks } = table();
    const told: string[] = [];
    const stop = acks.onChanged((name) => void told.push(name));
    acks.applied("a", ONE, { position: 7n, txid: 1 });
    acks.applied("a", TWO, { position: 9n, txid: 2 });
    acks.applied("b", TWO, { position: 4n, txid: 1 });
    expect(acks.reached("a")).toBe(9n);
    expect(acks.reached("a", 2)).toBe(7n);
    expect(acks.reached("a", 3)).toBe(0n);
    expect(acks.get("a", TWO)).toEqual({ position: 9n, txid: 2 });
    acks.forget(TWO, "b");
    expect(acks.of("b").size).toBe(0);
    acks.forget(TWO);
    expect(acks.reached("a")).toBe(7n);
    expect(told).toEqual(["a", "a", "b", "b", "a"]);
    stop();
    acks.applied("a", ONE, { position: 8n, txid: 1 });
    expect(told.length).toBe(5);
  });

  it("tell how old the first commit is that a replica hasn't got", () => {
    const { acks, at } = table();
    acks.captured("a", 10n);
    expect(acks.lagMs("a", ONE)).toBe(Number.POSITIVE_INFINITY);
    acks.applied("a", ONE, { position: 10n, txid: 1 });
    acks.applied("a", TWO, { position: 10n, txid: 1 });
    at(100);
    acks.captured("a", 11n);
    at(200);
    acks.captured("a", 12n);
    acks.applied("a", ONE, { position: 12n, txid: 1 });
    acks.applied("a", TWO, { position: 11n, txid: 1 });
    at(350);
    expect(acks.lagMs("a", ONE)).toBe(0);
    expect(acks.lagMs("a", TWO)).toBe(150);
    acks.applied("a", TWO, { position: 12n, txid: 1 });
    expect(acks.lagMs("a", TWO)).toBe(0);
  });

  it("know the lag of a commit right behind another, and of a replica that comes behind", () => {
    const { acks, at } = table();
    acks.captured("a", 1n);
    at(10);
    acks.applied("a", ONE, { position: 1n, txid: 1 });
    at(100);
    acks.captured("a", 2n);
    at(101);
    acks.captured("a", 3n);
    acks.applied("a", ONE, { position: 2n, txid: 1 });
    at(1_000);
    expect(acks.lagMs("a", ONE)).toBeGreaterThanOrEqual(899);
    acks.applied("a", ONE, { position: 3n, txid: 1 });
    acks.applied("a", TWO, { position: 1n, txid: 1 });
    at(1_500);
    expect(acks.lagMs("a", TWO)).toBeGreaterThanOrEqual(500);
  });

  it("need no more memory the longer a replica is away", () => {
    const { acks, at } = table();
    acks.captured("a", 1n);
    acks.applied("a", ONE, { position: 1n, txid: 1 });
    for (let i = 2; i < 100_000; i++) {
      at(10 * i);
      acks.captured("a", BigInt(i));
    }
    const lag = acks.lagMs("a", ONE);
    expect(lag).toBeGreaterThan(990_000);
    expect(lag).toBeLessThanOrEqual(1_000_000);
  });
});

import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { LeaseRecord, LeaseRegister } from "../../src/lease/lease.ts";
import { LeaseKeeper } from "../../src/lease/keeper.ts";

export interface LeaseCandidate {
  /** A register over this place, which has a new name and nothing in it, as another machine would have it. */
  readonly open: (place: string) => LeaseRegister;
  readonly skip?: boolean;
  /** The shortest that the backend knows. */
  readonly ttlMs: number;
  /**
   * The backend itself keeps others off while a session lives, whatever they would swap: Consul's lock. Then only the
   * session's end, a release or a handover lets another node in.
   */
  readonly locks?: boolean;
}

const signal = AbortSignal.timeout(120_000);

/** What every lease that can pass between nodes must do; the keeper is built on it. */
export function leaseConformance(name: string, { open, skip = false, ttlMs, locks = false }: LeaseCandidate): void {
  // It mostly waits: that of all backends goes on beside their other tests.
  let life: Promise<void>;
  beforeAll(() => {
    if (skip) return;
    const place = freshName();
    life = passOn([open(place), open(place), open(place)], ttlMs);
    life.catch(() => undefined);
  });

  describe.skipIf(skip)(`${name} as a lease`, () => {
    const opened: LeaseRegister[] = [];
    const place = freshName();
    const openAll = (count: number): readonly LeaseRegister[] => {
      const registers = Array.from({ length: count }, () => open(place));
      opened.push(...registers);
      return registers;
    };
    let registers: readonly LeaseRegister[];

    beforeAll(() => {
      registers = openAll(3);
    });

    afterAll(async () => {
      for (const register of opened) await register.close();
    });

    test("there is no record at first, and one that nobody wrote can't be replaced", async () => {
      const [one] = registers;
      expect(await one!.read(signal)).toBeUndefined();
      expect(await one!.swap("123", recordOf("a", 1, ttlMs), signal)).toEqual({ outcome: "refused" });
      expect(await one!.read(signal)).toBeUndefined();
    });

    test("of many who write the first record, one succeeds, and all read it", async () => {
      const many = openAll(6);
      const outcomes = await Promise.all(
        many.map((register, i) => register.swap(undefined, recordOf(`n${i}`, 1, ttlMs), signal)),
      );
      const winners = outcomes.flatMap(({ outcome }, i) => (outcome === "written" ? [i] : []));
      expect(winners).toHaveLength(1);
      expect(outcomes.filter(({ outcome }) => outcome === "refused")).toHaveLength(5);
      for (const register of many) {
        const seen = await register.read(signal);
        expect(seen?.record).toMatchObject({ nodeId: `n${winners[0]}`, counter: 1 });
        expect({ outcome: "written", version: seen?.version }).toEqual(outcomes[winners[0]!]);
      }
      await many[winners[0]!]!.swap(
        (await many[0]!.read(signal))!.version,
        { ...recordOf(`n${winners[0]}`, 2, ttlMs), released: true },
        signal,
      );
    });

    test("each renewal changes the version; an old version is refused and changes nothing", async () => {
      const [one, two] = registers;
      const before = await one!.read(signal);
      let version = written(await one!.swap(before!.version, recordOf("a", 3, ttlMs), signal));
      expect(version).not.toBe(before!.version);
      for (let counter = 4; counter < 8; counter++) {
        const next = written(await one!.swap(version, recordOf("a", counter, ttlMs), signal));
        expect(next).not.toBe(version);
        expect(await one!.swap(version, recordOf("a", counter, ttlMs), signal)).toEqual({ outcome: "refused" });
        expect(await two!.swap(version, recordOf("b", counter, ttlMs), signal)).toEqual({ outcome: "refused" });
        const seen = await two!.read(signal);
        expect(seen).toMatchObject({ version: next, record: recordOf("a", counter, ttlMs), isFree: false });
        version = next;
      }
    });

    test.skipIf(locks)("of many who swap one version, one succeeds", async () => {
      const many = openAll(6);
      const seen = await many[0]!.read(signal);
      const outcomes = await Promise.all(
        many.map((register, i) => register.swap(seen!.version, recordOf(`s${i}`, 9, ttlMs), signal)),
      );
      expect(outcomes.filter(({ outcome }) => outcome === "written")).toHaveLength(1);
      expect(outcomes.filter(({ outcome }) => outcome === "refused")).toHaveLength(5);
      const winner = outcomes.findIndex(({ outcome }) => outcome === "written");
      expect((await registers[2]!.read(signal))?.record.nodeId).toBe(`s${winner}`);
    });

    test("who gives up with a tombstone or a successor makes way at once", async () => {
      const [one, two] = openAll(2);
      const key = (await one!.read(signal))!;
      // Whoever holds it: here the records are only written, nobody keeps their times.
      const first = locks ? registers[0]! : one!;
      let version = written(await first.swap(key.version, { ...recordOf("a", 20, ttlMs), successor: "b" }, signal));
      expect((await two!.read(signal))?.record.successor).toBe("b");
      version = written(await two!.swap(version, recordOf("b", 21, ttlMs), signal));
      version = written(await two!.swap(version, { ...recordOf("b", 22, ttlMs), released: true }, signal));
      expect((await one!.read(signal))?.record).toMatchObject({ nodeId: "b", released: true });
      version = written(await one!.swap(version, recordOf("a", 23, ttlMs), signal));
      written(await one!.swap(version, { ...recordOf("a", 24, ttlMs), released: true }, signal));
    });

    test("a call that is given up is undecided, or done", async () => {
      const [one] = openAll(1);
      const seen = await one!.read(signal);
      const outcome = await one!.swap(seen!.version, recordOf("a", 30, ttlMs), AbortSignal.abort(new Error("enough")));
      expect(outcome.outcome).toBe("undecided");
      const now = await one!.read(signal);
      expect([seen!.version, now!.version]).toContain(now!.version);
      await expect(one!.read(AbortSignal.abort(new Error("enough")))).rejects.toThrow();
    });

    test("three keepers: one holds, renews and hands over; the next releases; the last dies, and makes way", async () => {
      await expect(life).resolves.toBeUndefined();
    });
  });
}

/** What keepers do with registers over one place. */
async function passOn(registers: readonly LeaseRegister[], ttlMs: number): Promise<void> {
  const events: string[] = [];
  const [a, b, c] = ["a", "b", "c"].map((id, i) => {
    const keeper = new LeaseKeeper({
      register: registers[i]!,
      node: { id, name: id, advertise: `http://${id}.example` },
      ttlMs,
      events: {
        acquired: () => events.push(`${id} acquired`),
        lost: (reason) => events.push(`${id} lost: ${reason}`),
      },
    });
    keeper.start();
    return keeper;
  }) as [LeaseKeeper, LeaseKeeper, LeaseKeeper];
  try {
    const first = await a.acquire();
    const wantedByB = b.acquire();
    const { counter } = a.holder!.record;
    await untilTrue(() => a.holder!.record.counter > counter + 1);
    expect(b.isHeld()).toBe(false);
    expect(await a.handOver("b")).toBe("written");
    expect(a.isHeld()).toBe(false);
    const second = await wantedByB;
    expect(second!.generation).toBe(first!.generation + 1);
    await untilTrue(() => c.holder?.record.advertise === "http://b.example");
    expect(await b.release()).toBe("written");
    const third = await c.acquire();
    expect(third!.generation).toBe(second!.generation + 1);
    expect(events).toEqual(["a acquired", "a lost: handed-over", "b acquired", "b lost: released", "c acquired"]);
    // It dies: no word in the record, and nobody renews.
    await c.close();
    expect((await a.acquire())!.generation).toBe(third!.generation + 1);
    expect(await a.release()).toBe("written");
  } finally {
    await Promise.all([a.close(), b.close(), c.close()]);
  }
}

export function recordOf(nodeId: string, counter: number, ttlMs: number): LeaseRecord {
  return {
    nodeId,
    life: `life-of-${nodeId}`,
    nodeName: `node ${nodeId}, "ü"`,
    advertise: `http://${nodeId}.example:20202`,
    generation: 1,
    counter,
    ttlMs,
  };
}

export function freshName(): string {
  return `lease-${randomBytes(6).toString("hex")}`;
}

function written(outcome: Awaited<ReturnType<LeaseRegister["swap"]>>): string {
  if (outcome.outcome !== "written") throw new Error(`not written: ${JSON.stringify(outcome)}`);
  return outcome.version;
}

export async function untilTrue(isTrue: () => boolean, limitMs = 60_000): Promise<void> {
  const endMs = performance.now() + limitMs;
  while (!isTrue()) {
    if (performance.now() > endMs) throw new Error("it never came true");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

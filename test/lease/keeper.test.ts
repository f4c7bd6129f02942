import { describe, expect, test } from "vitest";
import { LeaseKeeper } from "../../src/lease/keeper.ts";
import type { KeeperOptions, LeaseHolder } from "../../src/lease/keeper-types.ts";
import type { LeaseRecord, LeaseRegister, LeaseVersion, SwapOutcome } from "../../src/lease/lease.ts";
import { SharedRecord } from "./sim/register.ts";
import { Machine, World } from "./sim/world.ts";

const TTL_MS = 6_000;
const MARGIN_MS = 1_000;

/** A register whose answers a test decides; each takes 10 ms. */
class ScriptedRegister implements LeaseRegister {
  readonly place = "the scripted register";
  readonly expires = true;
  readonly shared: SharedRecord;
  readonly #machine: Machine;
  reads = 0;
  swaps = 0;
  /** What becomes of the next swaps, in order; without one they land and are answered. */
  readonly script: ("hang" | "error" | "late")[] = [];
  isAway = false;

  constructor(machine: Machine, shared: SharedRecord) {
    this.#machine = machine;
    this.shared = shared;
  }

  async read(): Promise<LeaseVersion | undefined> {
    this.reads++;
    await this.#time(10);
    if (this.isAway) throw new Error("away");
    return this.shared.current;
  }

  async swap(expected: string | undefined, next: LeaseRecord): Promise<SwapOutcome> {
    this.swaps++;
    const what = this.isAway ? "error" : this.script.shift();
    await this.#time(10);
    if (what === "error") return { outcome: "undecided", cause: new Error("503") };
    // Lands after the read that asks about it, while its second copy is under way.
    if (what === "late") this.#machine.world.at(15, () => this.shared.swap(expected, next));
    if (what === "late") return { outcome: "undecided", cause: new Error("no answer") };
    const outcome = this.shared.swap(expected, next);
    return what === "hang" ? new Promise<never>(() => undefined) : outcome;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #time(ms: number): Promise<void> {
    return new Promise((resolve) => void this.#machine.world.at(ms, resolve));
  }
}

interface Site {
  readonly machine: Machine;
  readonly register: ScriptedRegister;
  readonly keeper: LeaseKeeper;
  readonly events: string[];
  readonly holders: (LeaseHolder | undefined)[];
}

class Cluster {
  readonly world = new World(1);
  readonly shared = new SharedRecord();

  node(id: string, options: Partial<KeeperOptions> = {}): Site {
    const machine = new Machine(this.world);
    const register = new ScriptedRegister(machine, this.shared);
    const events: string[] = [];
    const holders: (LeaseHolder | undefined)[] = [];
    const keeper = new LeaseKeeper({
      register,
      node: { id, name: `node ${id}`, advertise: `http://${id}` },
      ttlMs: TTL_MS,
      marginMs: MARGIN_MS,
      clock: machine,
      random: () => 0.5,
      events: {
        acquired: ({ generation }) => events.push(`acquired ${generation}`),
        lost: (reason) => events.push(`lost: ${reason}`),
        changed: (holder) => holders.push(holder),
        trouble: (error) => events.push((error as { code?: string }).code ?? "trouble"),
      },
      ...options,
    });
    keeper.start();
    return { machine, register, keeper, events, holders };
  }

  async pass(ms: number): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    await this.world.runUntil(this.world.nowMs + ms);
  }
}

describe("a lease's keeper", () => {
  test("takes a free lease, renews it each third of its time, and counts from the first sending", async () => {
    const cluster = new Cluster();
    const { keeper, machine, register, events, holders } = cluster.node("a");
    expect(keeper.isHeld()).toBe(false);
    const acquired = keeper.acquire();
    await cluster.pass(30);
    expect(await acquired).toMatchObject({ generation: 1 });
    expect(keeper.isHeld()).toBe(true);
    // The read took 10 ms, then the record was sent.
    expect(keeper.deadlineMs).toBe(machine.bootMs() - 20 + TTL_MS - MARGIN_MS);
    expect(register.shared.current?.record).toMatchObject({ nodeId: "a", nodeName: "node a", advertise: "http://a" });
    expect(holders.at(-1)).toMatchObject({ isSelf: true, lapsesAtMs: keeper.deadlineMs });
    await cluster.pass(20_000);
    expect(register.swaps).toBe(11);
    expect(register.shared.current?.record).toMatchObject({ generation: 1, counter: 11 });
    expect(keeper.isHeld()).toBe(true);
    expect(events).toEqual(["acquired 1"]);
    // Asked again while it is held, the same grant.
    expect(await keeper.acquire()).toMatchObject({ generation: 1 });
  });

  test("another waits for the record's time after the arrival of the read that showed it", async () => {
    const cluster = new Cluster();
    const one = cluster.node("a");
    void one.keeper.acquire();
    await cluster.pass(3_000);
    one.machine.isDead = true;
    const at = { two: 0 };
    // Its own ttl has nothing to do with it.
    const two = cluster.node("b", { ttlMs: 2_000, marginMs: 300 });
    const waiting = two.keeper.acquire().then(() => (at.two = cluster.world.nowMs));
    await cluster.pass(10_000);
    await waiting;
    expect(two.holders[0]).toMatchObject({ isSelf: false, record: { nodeId: "a", advertise: "http://a" } });
    // 10 ms for the read that showed it, 10 ms for the swap.
    expect(at.two).toBe(3_000 + 10 + TTL_MS + 10);
    expect(two.events).toEqual(["acquired 2"]);
  });

  test("a record that goes on changing is never taken", async () => {
    const cluster = new Cluster();
    const one = cluster.node("a");
    void one.keeper.acquire();
    await cluster.pass(100);
    const two = cluster.node("b");
    void two.keeper.acquire();
    await cluster.pass(120_000);
    expect(two.register.swaps).toBe(0);
    // One read a renewal and some to find the time for it: what docs/leases.md counts with.
    const renewals = one.register.swaps - 1;
    expect(renewals).toBe(60);
    expect(two.register.reads / renewals).toBeLessThan(1.3);
  });

  test("a renewal whose first copy lands late counts from its first sending", async () => {
    const cluster = new Cluster();
    const { keeper, machine, register } = cluster.node("a");
    void keeper.acquire();
    await cluster.pass(20);
    const sentMs = keeper.deadlineMs - TTL_MS + MARGIN_MS + TTL_MS / 3;
    register.script.push("error", "late");
    await cluster.pass(sentMs - machine.bootMs() + 1_000);
    expect(register.swaps).toBeGreaterThan(2);
    expect(register.shared.current?.record.counter).toBe(2);
    expect(keeper.deadlineMs).toBe(sentMs + TTL_MS - MARGIN_MS);
  });

  test("a renewal whose answer never comes is found in the record", async () => {
    const cluster = new Cluster();
    const { keeper, register, events } = cluster.node("a");
    void keeper.acquire();
    await cluster.pass(100);
    register.script.push("hang");
    await cluster.pass(9_000);
    expect(keeper.isHeld()).toBe(true);
    expect(events).toEqual(["acquired 1", "trouble"]);
  });

  test("without answers it ends at its deadline, by the clock at use, and comes back only by acquiring", async () => {
    const cluster = new Cluster();
    const { keeper, machine, register, events } = cluster.node("a");
    void keeper.acquire();
    await cluster.pass(100);
    register.isAway = true;
    const deadlineMs = keeper.deadlineMs;
    await cluster.pass(deadlineMs - machine.bootMs() - 1);
    expect(keeper.isHeld()).toBe(true);
    await cluster.pass(1);
    expect(keeper.isHeld()).toBe(false);
    expect(events.filter((event) => event !== "trouble")).toEqual(["acquired 1", "lost: expired"]);
    register.isAway = false;
    await cluster.pass(20_000);
    expect(keeper.isHeld()).toBe(false);
    expect(keeper.deadlineMs).toBe(Number.NEGATIVE_INFINITY);
    // The record is still its own: nobody else has it, and it is taken anew, as another generation.
    void keeper.acquire();
    await cluster.pass(100);
    expect(keeper.isHeld()).toBe(true);
    expect(events.at(-1)).toBe("acquired 2");
  });

  test("a process that was stopped holds nothing when it goes on, before any timer has come", async () => {
    const cluster = new Cluster();
    const { keeper, machine, events } = cluster.node("a");
    void keeper.acquire();
    await cluster.pass(100);
    machine.pausedUntilMs = cluster.world.nowMs + 60_000;
    await cluster.pass(59_999);
    expect(events).toEqual(["acquired 1"]);
    expect(keeper.isHeld()).toBe(false);
    expect(events).toEqual(["acquired 1", "lost: expired"]);
  });

  test.for([3_000, -3_000])("clocks that differ by %d ms more than before end it", async (stoodStillMs) => {
    const cluster = new Cluster();
    const { keeper, machine, events } = cluster.node("a");
    void keeper.acquire();
    await cluster.pass(100);
    machine.stoodStillMs = 900;
    expect(keeper.isHeld()).toBe(true);
    machine.stoodStillMs = stoodStillMs;
    expect(keeper.isHeld()).toBe(false);
    expect(events).toEqual(["acquired 1", "lost: clock"]);
  });

  test("an observer whose clocks jump counts anew", async () => {
    const cluster = new Cluster();
    const one = cluster.node("a");
    void one.keeper.acquire();
    await cluster.pass(1_000);
    one.machine.isDead = true;
    const two = cluster.node("b");
    void two.keeper.acquire();
    await cluster.pass(2_000);
    two.machine.stoodStillMs = -5_000;
    await cluster.pass(4_500);
    expect(two.keeper.isHeld()).toBe(false);
    await cluster.pass(2_000);
    expect(two.keeper.isHeld()).toBe(true);
  });

  test("a released lease goes to whoever wants it, at once", async () => {
    const cluster = new Cluster();
    const [one, two] = [cluster.node("a"), cluster.node("b")];
    void one.keeper.acquire();
    await cluster.pass(100);
    void two.keeper.acquire();
    await cluster.pass(100);
    const released = one.keeper.release();
    expect(one.keeper.isHeld()).toBe(false);
    await cluster.pass(50);
    expect(await released).toBe("written");
    expect(one.events.at(-1)).toBe("lost: released");
    expect(one.keeper.holder).toBeUndefined();
    await cluster.pass(2_000);
    expect(two.events).toEqual(["acquired 2"]);
    expect(await one.keeper.release()).toBe("lost");
  });

  test("a successor takes over at once, everybody else waits, also who was the holder", async () => {
    const cluster = new Cluster();
    const one = cluster.node("a");
    void one.keeper.acquire();
    await cluster.pass(100);
    const [two, three] = [cluster.node("b"), cluster.node("c")];
    await cluster.pass(100);
    const handed = one.keeper.handOver("b");
    expect(one.keeper.isHeld()).toBe(false);
    await cluster.pass(100);
    expect(await handed).toBe("written");
    expect(one.events).toEqual(["acquired 1", "lost: handed-over"]);
    void one.keeper.acquire();
    void three.keeper.acquire();
    await cluster.pass(5_500);
    expect([one.register.swaps, three.register.swaps]).toEqual([2, 0]);
    const holdBackMs = (): number => 60_000;
    void two.keeper.acquire({ holdBackMs });
    two.keeper.look();
    await cluster.pass(50);
    expect(two.keeper.isHeld()).toBe(true);
    expect(two.events).toEqual(["acquired 2"]);
  });

  test("a successor that is dead is waited for, not longer than the ttl", async () => {
    const cluster = new Cluster();
    const [one, three] = [cluster.node("a"), cluster.node("c")];
    void one.keeper.acquire();
    await cluster.pass(100);
    void one.keeper.handOver("b");
    void three.keeper.acquire();
    await cluster.pass(TTL_MS - 200);
    expect(three.keeper.isHeld()).toBe(false);
    await cluster.pass(1_000);
    expect(three.keeper.isHeld()).toBe(true);
  });

  test("a handover without an answer neither reopens nor gives up before the deadline", async () => {
    const cluster = new Cluster();
    const { keeper, machine, register, events } = cluster.node("a");
    void keeper.acquire();
    await cluster.pass(100);
    register.isAway = true;
    const handed = keeper.handOver("b");
    await cluster.pass(keeper.deadlineMs - machine.bootMs() - 10);
    expect(keeper.isHeld()).toBe(false);
    expect(events.filter((event) => event !== "trouble")).toEqual(["acquired 1"]);
    await cluster.pass(20);
    expect(await handed).toBe("unknown");
    expect(events.at(-1)).toBe("lost: expired");
  });

  test("a handover that finds another's record has lost", async () => {
    const cluster = new Cluster();
    const { keeper, events } = cluster.node("a");
    void keeper.acquire();
    await cluster.pass(100);
    const { version, record } = cluster.shared.current!;
    cluster.shared.swap(version, { ...record, nodeId: "z", life: "z" });
    const handed = keeper.handOver("b");
    await cluster.pass(100);
    expect(await handed).toBe("lost");
    expect(events.at(-1)).toBe("lost: taken");
    expect(keeper.holder).toMatchObject({ isSelf: false, record: { nodeId: "z" } });
  });

  test("a renewal that finds another's record ends it at once", async () => {
    const cluster = new Cluster();
    const { keeper, events } = cluster.node("a");
    void keeper.acquire();
    await cluster.pass(100);
    const { version, record } = cluster.shared.current!;
    cluster.shared.swap(version, { ...record, nodeId: "z", life: "z" });
    await cluster.pass(2_100);
    expect(keeper.isHeld()).toBe(false);
    expect(events).toEqual(["acquired 1", "lost: taken"]);
  });

  test("a candidate holds back as long as it says, and may say that it isn't ready", async () => {
    const cluster = new Cluster();
    const { keeper, events } = cluster.node("a");
    let holdBack: number | undefined;
    void keeper.acquire({ holdBackMs: () => holdBack, aboveGeneration: 41 });
    await cluster.pass(10_000);
    expect(events).toEqual([]);
    holdBack = 12_000;
    await cluster.pass(1_500);
    expect(events).toEqual([]);
    await cluster.pass(1_000);
    expect(events).toEqual(["acquired 42"]);
  });

  test("who doesn't want it any more puts back what was just won", async () => {
    const cluster = new Cluster();
    const { keeper, events } = cluster.node("a");
    const stop = new AbortController();
    const acquired = keeper.acquire({ signal: stop.signal });
    await cluster.pass(15);
    stop.abort();
    expect(await acquired).toBeUndefined();
    await cluster.pass(100);
    expect(cluster.shared.current?.record).toMatchObject({ nodeId: "a", released: true });
    expect(events).toEqual([]);
    expect(await keeper.acquire({ signal: stop.signal })).toBeUndefined();
  });

  test("what an earlier life left is taken at once by who knows that it is dead, and by nobody else", async () => {
    const cluster = new Cluster();
    const one = cluster.node("a");
    void one.keeper.acquire();
    await cluster.pass(100);
    one.machine.isDead = true;
    const careful = cluster.node("a");
    void careful.keeper.acquire();
    await cluster.pass(1_000);
    expect(careful.events).toEqual([]);
    careful.machine.isDead = true;
    const sure = cluster.node("a", { isOnlyLife: true });
    void sure.keeper.acquire();
    await cluster.pass(100);
    expect(sure.events).toEqual(["acquired 2"]);
  });

  test("two processes with one node id: who is overtaken says so and stops", async () => {
    const cluster = new Cluster();
    const one = cluster.node("a", { isOnlyLife: true });
    void one.keeper.acquire();
    await cluster.pass(100);
    const copy = cluster.node("a", { isOnlyLife: true });
    void copy.keeper.acquire();
    await cluster.pass(5_000);
    expect(copy.keeper.isHeld()).toBe(true);
    expect(one.events).toEqual(["acquired 1", "lost: copied", "SLU-8005"]);
    expect(await one.keeper.acquire()).toBeUndefined();
    const { swaps } = one.register;
    await cluster.pass(30_000);
    expect(one.register.swaps).toBe(swaps);
  });

  test("a backend that says the owner is dead makes way at once, and refusing all the same is not stormed", async () => {
    const cluster = new Cluster();
    const one = cluster.node("a");
    void one.keeper.acquire();
    await cluster.pass(100);
    one.machine.isDead = true;
    cluster.shared.current = { ...cluster.shared.current!, isFree: true };
    const two = cluster.node("b");
    let refusals = 0;
    const swap = two.register.swap.bind(two.register);
    two.register.swap = async (expected, next) => (refusals++ < 5 ? { outcome: "refused" } : swap(expected, next));
    void two.keeper.acquire();
    await cluster.pass(400);
    expect(refusals).toBeLessThan(4);
    await cluster.pass(1_000);
    expect(two.keeper.isHeld()).toBe(true);
  });

  test("closing ends it and says nothing in the record", async () => {
    const cluster = new Cluster();
    const { keeper, events } = cluster.node("a");
    void keeper.acquire();
    await cluster.pass(100);
    const closed = keeper.close();
    await cluster.pass(10);
    await closed;
    expect(events).toEqual(["acquired 1", "lost: closed"]);
    expect(cluster.shared.current?.record.released).toBeUndefined();
    expect(await keeper.acquire()).toBeUndefined();
    await keeper.close();
  });
});

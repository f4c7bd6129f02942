import { randomBytes } from "node:crypto";
import { SluiceError } from "../errors/error.ts";
import { systemLeaseClock, type LeaseClock } from "./clock.ts";
import { Exchange, type WriteResult } from "./exchange.ts";
import type {
  AcquireOptions,
  GiveUpOutcome,
  KeeperOptions,
  LeaseGrant,
  LeaseHolder,
  LossReason,
  Observation,
} from "./keeper-types.ts";
import type { LeaseRecord, LeaseRegister, LeaseVersion } from "./lease.ts";
import * as timing from "./timing.ts";

/** The own record, and until when it counts. */
interface Held {
  readonly record: LeaseRecord;
  readonly version: string;
  readonly sentMs: number;
  readonly deadlineMs: number;
  /** Wall clock minus boot clock when the record was first sent. */
  readonly wallLeadMs: number;
}

interface Wanted {
  readonly options: AcquireOptions;
  readonly resolve: (grant: LeaseGrant | undefined) => void;
}

interface Leaving {
  readonly as: { readonly released: true } | { readonly successor: string };
  readonly resolve: (outcome: GiveUpOutcome) => void;
  isSent: boolean;
}

/**
 * Keeps a lease for one node: reads the record, takes it when that may be done, renews it, and knows by its own clock
 * whether it is held (protocol section 8). The states:
 *
 * - *watching*: reads the record now and then. → *taking*, when the lease is wanted and may be taken.
 * - *taking*: a swap that acquires is under way, until it is decided or its own time is over. Own bytes in the record →
 *   *held*; anything else → *watching*.
 * - *held*: renews each third of the ttl. The deadline is the first sending of the renewal that is in the record + ttl −
 *   margin. At the deadline, when the record turns out to be another's, or when the machine's clocks contradict each
 *   other → *watching*; no answer that comes later brings the state back.
 * - *leaving*: asked to release or hand over: not held any more, and not given up either until the answer is known or
 *   the deadline has passed. → *watching*, never back to *held*.
 * - *closed*.
 *
 * `isHeld` looks at the clock when it is called, so a process that was stopped or a timer that is late holds nothing.
 */
export class LeaseKeeper {
  readonly #options: KeeperOptions;
  readonly #register: LeaseRegister;
  readonly #clock: LeaseClock;
  readonly #exchange: Exchange;
  readonly #random: () => number;
  readonly #life = randomBytes(8).toString("hex");
  readonly #ttlMs: number;
  /** Clocks that differ by more than this contradict each other. */
  readonly #marginMs: number;
  /** For how long a write makes this node the holder: ttl − margin. */
  readonly #countsMs: number;

  #observation: Observation | undefined;
  #observedLeadMs = 0;
  #lookDueMs = Number.NEGATIVE_INFINITY;
  #tryNotBeforeMs = Number.NEGATIVE_INFINITY;
  #held: Held | undefined;
  #wanted: Wanted | undefined;
  #leaving: Leaving | undefined;
  /** The highest counter of the own writes: bytes that may still be under way are never used again. */
  #counter = 0;
  #isStopped = false;
  #deadlineTimer: (() => void) | undefined;
  #wake: (() => void) | undefined;
  /** Something changed while no sleep was under way that could have been ended. */
  #isPoked = false;
  #running: Promise<void> | undefined;

  /** Nothing is sent before `start`. */
  constructor(options: KeeperOptions) {
    this.#options = options;
    this.#register = options.register;
    this.#clock = options.clock ?? systemLeaseClock;
    this.#random = options.random ?? Math.random;
    const { expires } = options.register;
    this.#ttlMs = expires ? options.ttlMs : Number.POSITIVE_INFINITY;
    this.#marginMs = expires ? (options.marginMs ?? timing.defaultMarginMs(options.ttlMs)) : Number.POSITIVE_INFINITY;
    this.#countsMs = expires ? this.#ttlMs - this.#marginMs : Number.POSITIVE_INFINITY;
    this.#exchange = new Exchange(this.#register, this.#clock, this.#ttlMs, (error) => this.#trouble(error));
  }

  /** Begins to read the record, until `close`. */
  start(): void {
    this.#running ??= this.#run();
  }

  /**
   * Whether this node holds the lease now, by its own clock. To be asked, synchronously, before a gate opens, before a
   * response at `local` or `replica` is released, and before a primary serves a read. Costs one system call; may call
   * `lost` when the time turns out to be over.
   */
  isHeld(): boolean {
    return this.#isWithin() && this.#leaving === undefined;
  }

  /** Until when the lease is held if nothing more is heard, by the boot clock (−∞: not held). */
  get deadlineMs(): number {
    return this.#held?.deadlineMs ?? Number.NEGATIVE_INFINITY;
  }

  /** Whose the lease is, as far as this node has seen; undefined: nobody's, or nothing was read yet. */
  get holder(): LeaseHolder | undefined {
    if (this.#held !== undefined) {
      return { record: this.#held.record, isSelf: true, lapsesAtMs: this.#held.deadlineMs };
    }
    const record = this.#observation?.seen?.record;
    if (record === undefined || record.released) return undefined;
    const lapsesAtMs = (this.#observation?.sinceMs ?? 0) + record.ttlMs;
    return { record, isSelf: record.life === this.#life, lapsesAtMs };
  }

  /**
   * Tries until this node holds the lease, and then keeps it until `lost`. Undefined: given up, by the signal, by
   * `close`, or since this node lives elsewhere, too (SLU-8005). At once when it is held already. One call at a time.
   */
  acquire(options: AcquireOptions = {}): Promise<LeaseGrant | undefined> {
    if (this.#wanted !== undefined) throw new Error("the lease is being acquired already");
    if (this.isHeld() && this.#held !== undefined) return Promise.resolve(grantOf(this.#held));
    if (this.#isStopped || options.signal?.aborted) return Promise.resolve(undefined);
    return new Promise((resolve) => {
      const onAbort = (): void => this.#unwant(undefined);
      options.signal?.addEventListener("abort", onAbort, { once: true });
      this.#wanted = {
        options,
        resolve: (grant) => {
          options.signal?.removeEventListener("abort", onAbort);
          resolve(grant);
        },
      };
      this.#poke();
    });
  }

  /** Gives the lease to whoever wants it. The gates must be closed before. Not held from the call on. */
  release(): Promise<GiveUpOutcome> {
    return this.#leave({ released: true });
  }

  /**
   * Names the node that may take the lease at once; others wait for the ttl. The gates must be closed before, and stay
   * closed: from the call on, only another acquisition makes this node the holder. Throws SLU-8004 where the
   * configuration decides who is primary; then nothing has changed.
   */
  handOver(successorId: string): Promise<GiveUpOutcome> {
    if (!this.#register.expires) throw new SluiceError("SLU-8004", `${this.#register.place} decides who is primary`);
    return this.#leave({ successor: successorId });
  }

  /** Reads the record soon: somebody has heard that it changed. */
  look(): void {
    this.#lookDueMs = Number.NEGATIVE_INFINITY;
    this.#poke();
  }

  /** Ends everything, without a word in the record: `release` before. Idempotent. */
  async close(): Promise<void> {
    this.#stop();
    this.#end("closed");
    this.#exchange.interrupt();
    await this.#running;
    await this.#register.close();
  }

  #leave(as: Leaving["as"]): Promise<GiveUpOutcome> {
    if (!this.isHeld()) return Promise.resolve("lost");
    return new Promise((resolve) => {
      this.#leaving = { as, resolve, isSent: false };
      this.#poke();
    });
  }

  #stop(): void {
    this.#isStopped = true;
    this.#unwant(undefined);
    this.#poke();
  }

  #unwant(grant: LeaseGrant | undefined): void {
    const wanted = this.#wanted;
    this.#wanted = undefined;
    wanted?.resolve(grant);
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) await this.#sleepUntil(await this.#step());
  }

  #poke(): void {
    this.#isPoked = true;
    this.#wake?.();
  }

  #sleepUntil(atMs: number): Promise<void> {
    const delayMs = atMs - this.#clock.bootMs();
    const isPoked = this.#isPoked;
    this.#isPoked = false;
    if (delayMs <= 0 || isPoked || this.#isStopped) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        cancel();
        this.#isPoked = false;
        this.#wake = undefined;
        resolve();
      };
      const cancel = this.#clock.schedule(delayMs, done);
      this.#wake = done;
    });
  }

  /** One request, or none; returns when the next step is due. */
  async #step(): Promise<number> {
    if (!this.#isWithin()) return this.#watch();
    const held = this.#held!;
    if (this.#leaving !== undefined) await this.#giveUp(held, this.#leaving);
    else {
      const dueMs = held.sentMs + timing.renewEveryMs(this.#ttlMs);
      if (this.#clock.bootMs() < dueMs) return dueMs;
      await this.#renew(held);
    }
    return this.#clock.bootMs();
  }

  async #watch(): Promise<number> {
    if (this.#clock.bootMs() >= this.#lookDueMs) await this.#lookNow();
    const nowMs = this.#clock.bootMs();
    const observation = this.#observation;
    if (this.#wanted === undefined || observation === undefined) return this.#lookDueMs;
    const mayTryMs = Math.max(timing.mayTakeFromMs(observation, this.#asker()), this.#tryNotBeforeMs);
    if (mayTryMs > nowMs) return Math.min(mayTryMs, this.#lookDueMs);
    const { seen } = observation;
    const isNamed = timing.isNamed(seen, this.#asker());
    const { holdBackMs } = this.#wanted.options;
    const restMs = isNamed || holdBackMs === undefined ? 0 : holdBackMs(seen);
    if (restMs === undefined) return Math.min(nowMs + timing.retryAfterMs(this.#ttlMs), this.#lookDueMs);
    if (mayTryMs + restMs > nowMs) return Math.min(mayTryMs + restMs, this.#lookDueMs);
    await this.#take(this.#wanted, seen);
    return this.#clock.bootMs();
  }

  async #lookNow(): Promise<void> {
    const read = await this.#exchange.read();
    if (read !== undefined) this.#observe(read.seen);
    else this.#lookDueMs = this.#clock.bootMs() + timing.retryAfterMs(this.#ttlMs);
  }

  async #take(wanted: Wanted, seen: LeaseVersion | undefined): Promise<void> {
    const generation = Math.max(seen?.record.generation ?? 0, wanted.options.aboveGeneration ?? 0) + 1;
    const { id, name, advertise, proxy } = this.#options.node;
    const own = { nodeId: id, life: this.#life, nodeName: name, advertise, ...(proxy !== undefined && { proxy }) };
    const record = { ...own, generation, counter: this.#nextCounter(seen?.record), ttlMs: this.#ttlMs };
    const overMs = this.#clock.bootMs() + this.#countsMs;
    const leadMs = this.#leadMs();
    const written = await this.#exchange.write(seen?.version, record, () => {
      return this.#wanted === wanted && this.#clock.bootMs() < overMs;
    });
    if (written.result !== "own") return this.#failedToTake(written);
    if (this.#wanted !== wanted) return this.#putBack(record, written);
    // An answer that comes after the time it promises is worth nothing: what it wrote may be taken again.
    if (this.#clock.bootMs() >= written.sentMs + this.#countsMs || this.#hasJumpedSince(leadMs)) {
      this.#lookDueMs = Number.NEGATIVE_INFINITY;
      return;
    }
    this.#adopt(record, written, leadMs);
    const grant = grantOf(this.#held!);
    this.#options.events.acquired?.(grant);
    this.#changed(record);
    this.#unwant(grant);
  }

  #failedToTake(written: Exclude<WriteResult, { result: "own" }>): void {
    // Where the backend refuses though the record may be taken (Consul's lock delay), asking faster doesn't help.
    this.#tryNotBeforeMs = this.#clock.bootMs() + timing.retryAfterMs(this.#ttlMs);
    if (written.result === "other") this.#observe(written.seen);
    else this.#lookDueMs = Number.NEGATIVE_INFINITY;
  }

  /** Nobody wants any more what was just won. */
  async #putBack(record: LeaseRecord, { version, sentMs }: { version: string; sentMs: number }): Promise<void> {
    const tombstone = { ...record, released: true as const, counter: this.#nextCounter(record) };
    const overMs = sentMs + this.#ttlMs;
    await this.#exchange.write(version, tombstone, () => !this.#isStopped && this.#clock.bootMs() < overMs);
    this.#lookDueMs = Number.NEGATIVE_INFINITY;
  }

  async #renew(held: Held): Promise<void> {
    const record = { ...held.record, counter: this.#nextCounter(held.record) };
    const leadMs = this.#leadMs();
    const written = await this.#exchange.write(held.version, record, () => this.#isWithin());
    if (!this.#isWithin()) return;
    if (written.result === "own") this.#adopt(record, written, leadMs);
    else if (written.result === "other") this.#taken(written.seen);
  }

  async #giveUp(held: Held, leaving: Leaving): Promise<void> {
    const record = { ...held.record, ...leaving.as, counter: this.#nextCounter(held.record) };
    leaving.isSent = true;
    const written = await this.#exchange.write(held.version, record, () => this.#isWithin());
    if (!this.#isWithin()) return;
    if (written.result === "own") {
      this.#leaving = undefined;
      this.#end("released" in leaving.as ? "released" : "handed-over");
      this.#observe({ version: written.version, record, isFree: false });
      leaving.resolve("written");
    } else if (written.result === "other") this.#taken(written.seen);
  }

  #adopt(record: LeaseRecord, { version, sentMs }: { version: string; sentMs: number }, wallLeadMs: number): void {
    this.#held = { record, version, sentMs, deadlineMs: sentMs + this.#countsMs, wallLeadMs };
    this.#observation = undefined;
    this.#armDeadline();
  }

  #armDeadline(): void {
    this.#deadlineTimer?.();
    this.#deadlineTimer = undefined;
    const { deadlineMs } = this;
    if (!Number.isFinite(deadlineMs)) return;
    // A timer may come a little early.
    this.#deadlineTimer = this.#clock.schedule(deadlineMs - this.#clock.bootMs() + 1, () => {
      if (this.#isWithin()) this.#armDeadline();
    });
  }

  #isWithin(): boolean {
    const held = this.#held;
    if (held === undefined) return false;
    if (this.#clock.bootMs() >= held.deadlineMs) this.#end("expired");
    else if (this.#hasJumpedSince(held.wallLeadMs)) this.#end("clock");
    return this.#held !== undefined;
  }

  /** Somebody else's record stands where the own one should. */
  #taken(seen: LeaseVersion | undefined): void {
    const { node, isOnlyLife = false } = this.#options;
    const isCopied = isOnlyLife && seen?.record.nodeId === node.id && seen.record.life !== this.#life;
    this.#end(isCopied ? "copied" : "taken");
    this.#observe(seen);
    if (!isCopied) return;
    this.#trouble(new SluiceError("SLU-8005", `${this.#register.place}: another process writes it as node ${node.id}`));
    this.#stop();
  }

  #end(reason: LossReason): void {
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    this.#deadlineTimer?.();
    this.#deadlineTimer = undefined;
    this.#lookDueMs = Number.NEGATIVE_INFINITY;
    const leaving = this.#leaving;
    this.#leaving = undefined;
    this.#exchange.interrupt();
    this.#poke();
    this.#options.events.lost?.(reason, grantOf(held));
    const isOthers = reason === "taken" || reason === "copied";
    leaving?.resolve(leaving.isSent && !isOthers ? "unknown" : "lost");
  }

  #observe(seen: LeaseVersion | undefined): void {
    const nowMs = this.#clock.bootMs();
    const before = this.#observation;
    const leadMs = this.#leadMs();
    // What was counted by a clock that stood still or jumped is counted anew.
    const hasJumped = this.#hasJumpedSince(this.#observedLeadMs);
    const isNew = before === undefined || before.seen?.version !== seen?.version || hasJumped;
    const sinceMs = isNew ? nowMs : before.sinceMs;
    this.#observation = { seen, sinceMs };
    if (isNew) this.#observedLeadMs = leadMs;
    const waitMs = timing.nextLookMs(seen?.record, isNew, this.#ttlMs, nowMs - sinceMs);
    this.#lookDueMs = nowMs + waitMs * (0.98 + 0.04 * this.#random());
    this.#changed(seen?.record);
  }

  #shown: string | undefined;

  #changed(record: LeaseRecord | undefined): void {
    const { nodeId, life, generation, successor, released } = record ?? {};
    const shown = JSON.stringify([nodeId, life, generation, successor, released]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#options.events.changed?.(this.holder);
  }

  #trouble(error: unknown): void {
    this.#options.events.trouble?.(error);
  }

  #asker(): timing.Asker {
    const { node, isOnlyLife = false } = this.#options;
    return { id: node.id, life: this.#life, isOnlyLife };
  }

  #nextCounter(record: LeaseRecord | undefined): number {
    this.#counter = Math.max(this.#counter, record?.counter ?? 0) + 1;
    return this.#counter;
  }

  #hasJumpedSince(leadMs: number): boolean {
    return Math.abs(this.#leadMs() - leadMs) > this.#marginMs;
  }

  #leadMs(): number {
    return this.#clock.wallMs() - this.#clock.bootMs();
  }
}

function grantOf({ record: { generation, life } }: Held): LeaseGrant {
  return { generation, life };
}

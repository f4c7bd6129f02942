import { once } from "node:events";
import { SluiceError } from "../errors/error.ts";
import type { LeaseHolder } from "../lease/keeper-types.ts";
import type { LeaseKeeper } from "../lease/keeper.ts";
import { type Clock, sleep, systemClock, within } from "../log/clock.ts";

export type RoleState = "following" | "taking-over" | "leading" | "handing-over" | "stepping-down" | "stopped";

/** What the roles command. Every method may be called again after it failed. */
export interface RoleNode {
  /**
   * Every database takes over its log, behind closed gates. Resolves when all are through, or `limitMs` has passed for
   * those that aren't; rejects when none is.
   */
  takeOver(limitMs: number, signal: AbortSignal): Promise<void>;
  /** Lets nobody begin a write any more. */
  holdWrites(): HeldWrites;
  /** Lets applications write to every database that is through, and to those that follow; not before `isHeld`. */
  openGates(): void;
  /** Closes all gates and captures what is committed. `limitMs`: from then on writers that are still at it are killed. */
  closeGates(limitMs: number): Promise<void>;
  /** The databases follow: no waiter of this reign is left. */
  follow(): Promise<void>;
  /** Everything committed is in the log, behind closed gates. */
  drain(signal: AbortSignal): Promise<void>;
  /** Whether `successor` is connected and close enough to hand over to; without a name the best one. Its node id. */
  chooseSuccessor(name: string | undefined): string | undefined;
  /** Resolves when the successor has everything, and knows that it's in the log. */
  awaitSuccessor(nodeId: string, signal: AbortSignal): Promise<void>;
  /** Tells the successor that the lease names it. */
  callSuccessor(nodeId: string): void;
  /** For how long this node leaves a free lease to nodes that are further; undefined: it can't lead now. */
  holdBackMs(): number | undefined;
}

export interface RolesOptions {
  readonly keeper: LeaseKeeper;
  readonly node: RoleNode;
  /** Whether this node may become primary. */
  readonly candidate: boolean;
  readonly takeoverTimeoutMs: number;
  readonly handoffTimeoutMs: number;
  /** How long writers may be at it when the lease has been lost. */
  readonly marginMs: number;
  readonly onState: (state: RoleState) => void;
  readonly onProblem: (error: unknown) => void;
  /** Default: the system's. */
  readonly clock?: Clock;
}

/** Writes that a front door holds back. */
export interface HeldWrites {
  /** Resolves when the application has answered all that it had. */
  readonly idle: Promise<void>;
  /** Resolves when all answers that had to wait for durability have gone out. */
  readonly released: Promise<void>;
  /** Lets them go on, to whoever is the primary then. */
  readonly resume: () => void;
}

const RETRY_MS = 500;

/**
 * Which role this node has (protocol sections 7, 8 and 10). The lease decides who tries; the log decides who is.
 *
 * - **following**: gates closed, databases follow. A candidate waits for the lease. Left when it is acquired.
 * - **taking-over**: the lease is held; each database appends its takeover record, gates closed. Left when all are
 *   through (*leading*), when none is, or the lease is lost (*stepping-down*).
 * - **leading**: gates open, for as long as the lease is held by the own clock. Left when the lease is lost or a higher
 *   epoch is seen (*stepping-down*), by `handOver`, or `stop`.
 * - **handing-over**: gates closed, everything appended, the successor has it all. Before the lease names the
 *   successor, a failure leads back to *leading*; after it only on to *following*.
 * - **stepping-down**: gates are being closed; whoever waits for durability fails as unknown. Then *following*.
 * - **stopped**: by `stop`, from any state.
 *
 * A gate is opened in one place: at the end of *taking-over*, after `isHeld`; and again where a handover was broken off
 * before the lease was touched, after `isHeld`.
 */
export class Roles {
  readonly #options: RolesOptions;
  readonly #clock: Clock;
  readonly #abort = new AbortController();
  #state: RoleState = "following";
  /** Aborted when the present time as primary is over, with the reason. */
  #reign: AbortController | undefined;
  #reigns = 0;
  #handover: Handover | undefined;
  #run: Promise<void> | undefined;

  constructor(options: RolesOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  get state(): RoleState {
    return this.#state;
  }

  /** A number for the present time as primary while gates are open and the lease is held by the clock. */
  get reign(): number | undefined {
    return this.#state === "leading" && this.#options.keeper.isHeld() ? this.#reigns : undefined;
  }

  /** The same, also while it hands over: answers of writes from before may still go out. */
  get answering(): number | undefined {
    const may = this.#state === "leading" || this.#state === "handing-over";
    return may && this.#options.keeper.isHeld() ? this.#reigns : undefined;
  }

  get holder(): LeaseHolder | undefined {
    return this.#options.keeper.holder;
  }

  start(): void {
    this.#run ??= this.#loop();
  }

  /** The lease is not this node's any more: for the keeper's event `lost`, or when a higher epoch was seen. */
  deposed(reason: Error): void {
    this.#reign?.abort(reason);
  }

  /**
   * Hands over to the node `name`, or to the best one. Resolves when the lease names it and this node follows. Rejects,
   * and leads on, when there is nobody to hand over to or it can't be done in time.
   */
  async handOver(name?: string): Promise<void> {
    if (this.#state !== "leading" || this.#handover !== undefined) {
      throw new SluiceError("SLU-8101", `this node is ${this.#state}, and can't hand over`);
    }
    const handover: Handover = { name, wanted: Promise.withResolvers() };
    this.#handover = handover;
    this.#wake.resolve();
    await handover.wanted.promise;
  }

  /**
   * Hands over when there is somebody, and ends with closed gates. Where there is nobody the databases stay primary's, to be
   * drained while the lease is held; the caller releases it then.
   */
  async stop(): Promise<void> {
    if (this.#state === "leading") await this.handOver().catch(() => undefined);
    this.#abort.abort(new SluiceError("SLU-8102", "this node is stopping"));
    this.#reign?.abort(this.#abort.signal.reason);
    await this.#run;
    this.#enter("stopped");
  }

  #wake = Promise.withResolvers<void>();

  #enter(state: RoleState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.onState(state);
  }

  async #loop(): Promise<void> {
    const { keeper, candidate, node, onProblem } = this.#options;
    const { signal } = this.#abort;
    while (!signal.aborted) {
      this.#enter("following");
      if (!candidate) {
        await once(signal, "abort");
        return;
      }
      try {
        const grant = await keeper.acquire({ signal, holdBackMs: () => node.holdBackMs() });
        if (grant !== undefined) await this.#lead();
      } catch (error) {
        if (signal.aborted) return;
        onProblem(error);
        await sleep(this.#clock, RETRY_MS, signal);
      }
    }
  }

  async #lead(): Promise<void> {
    const { node, takeoverTimeoutMs } = this.#options;
    const reign = new AbortController();
    this.#reign = reign;
    this.#reigns++;
    try {
      this.#enter("taking-over");
      await node.takeOver(takeoverTimeoutMs, reign.signal);
      this.#open(reign.signal);
      while (!reign.signal.aborted) {
        await Promise.race([once(reign.signal, "abort"), this.#wake.promise]);
        this.#wake = Promise.withResolvers();
        const handover = this.#handover;
        this.#handover = undefined;
        if (handover === undefined || reign.signal.aborted) continue;
        if (await this.#handOver(handover, reign.signal)) return;
      }
    } finally {
      this.#reign = undefined;
      this.#handover?.wanted.reject(new SluiceError("SLU-8101", "this node stopped being the primary"));
      this.#handover = undefined;
      await this.#stepDown();
    }
  }

  #open(signal: AbortSignal): void {
    signal.throwIfAborted();
    if (!this.#options.keeper.isHeld()) throw new SluiceError("SLU-8103", "the lease ended before the gates opened");
    this.#enter("leading");
    this.#options.node.openGates();
  }

  /** Protocol section 10, Handoff. True when the lease names the successor, or may do so. */
  async #handOver(handover: Handover, signal: AbortSignal): Promise<boolean> {
    const { node, keeper, handoffTimeoutMs } = this.#options;
    const late = AbortSignal.any([signal, this.#clock.timeout(handoffTimeoutMs)]);
    const successor = node.chooseSuccessor(handover.name);
    if (successor === undefined) {
      const who = handover.name ?? "any other node";
      handover.wanted.reject(
        new SluiceError("SLU-8104", `${who} is not connected, or too far behind, to be handed over to`),
      );
      return false;
    }
    this.#enter("handing-over");
    const writes = node.holdWrites();
    try {
      // Gates close under writes that take longer than half of the time.
      await within(this.#clock, handoffTimeoutMs / 2, writes.idle);
      await node.closeGates(handoffTimeoutMs / 4);
      await node.drain(late);
      await node.awaitSuccessor(successor, late);
      // Everything is in the log: who waited for that gets the answer from this node, which may still give it.
      await within(this.#clock, handoffTimeoutMs / 4, writes.released);
    } catch (error) {
      handover.wanted.reject(new SluiceError("SLU-8105", "the handover was broken off", { cause: error }));
      try {
        this.#open(signal);
      } finally {
        writes.resume();
      }
      return false;
    }
    const outcome = await keeper.handOver(successor);
    node.callSuccessor(successor);
    if (outcome === "lost") handover.wanted.reject(new SluiceError("SLU-8103", "the lease ended during the handover"));
    else handover.wanted.resolve();
    writes.resume();
    return true;
  }

  async #stepDown(): Promise<void> {
    const { node, keeper, marginMs, onProblem } = this.#options;
    this.#enter("stepping-down");
    await node.closeGates(marginMs).catch(onProblem);
    if (this.#abort.signal.aborted && keeper.isHeld()) return;
    await node.follow().catch(onProblem);
    if (keeper.isHeld()) await keeper.release();
  }
}

interface Handover {
  readonly name: string | undefined;
  readonly wanted: PromiseWithResolvers<void>;
}

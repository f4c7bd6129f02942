import type { LeaseKeeper } from "../lease/keeper.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { type Clock, systemClock } from "../log/clock.ts";
import { closeGate, type StuckWriter } from "./gates.ts";
import type { Peers } from "./peers.ts";
import type { ProtectedDatabase } from "./protected-database.ts";
import type { HeldWrites, RoleNode } from "./roles.ts";

export interface ClusterParts {
  readonly keeper: LeaseKeeper;
  readonly peers: Peers;
  /** All databases of the node, as they are now. */
  readonly databases: () => Iterable<ProtectedDatabase>;
  /** A replica is close enough to be handed over to. */
  readonly closeLagMs: number;
  /** Told of a transaction that is in the way of stepping down; may end its process. */
  readonly onStuck: (writer: StuckWriter) => void;
  readonly onProblem: (error: unknown) => void;
  /** See `RoleNode.holdWrites`; of the front door, where there is one. */
  readonly holdWrites: RoleNode["holdWrites"];
  /** Default: the system's. */
  readonly clock?: Clock;
}

/** For how long a free lease is left to nodes that have more, or are ready earlier. */
const BEHIND_MS = 500;
const RESTORING_MS = 2_000;
const FAILED_MS = 5_000;
const REFUSED_MS = 3_000;

/** What the roles command, done to all databases of a node at once. */
export class Cluster implements RoleNode {
  readonly #parts: ClusterParts;
  readonly #clock: Clock;
  /** Until then the lease is left to nodes that the log lets take over. */
  #notBeforeMs = 0;

  constructor(parts: ClusterParts) {
    this.#parts = parts;
    this.#clock = parts.clock ?? systemClock;
  }

  async takeOver(limitMs: number, signal: AbortSignal): Promise<void> {
    const late = AbortSignal.any([signal, this.#clock.timeout(limitMs)]);
    const results = await Promise.allSettled(
      this.#all().map((database) => Promise.race([database.become("primary"), aborted(late)])),
    );
    signal.throwIfAborted();
    const failed = results.filter((result) => result.status === "rejected");
    for (const { reason } of failed) this.#parts.onProblem(reason);
    if (failed.some(({ reason }) => isSluiceError(reason, "SLU-8109")))
      this.#notBeforeMs = this.#clock.elapsedMs() + REFUSED_MS;
    if (results.length > 0 && failed.length === results.length) throw failed[0]!.reason;
  }

  holdWrites(): HeldWrites {
    return this.#parts.holdWrites();
  }

  openGates(): void {
    for (const database of this.#all()) database.openGate();
  }

  async closeGates(limitMs: number): Promise<void> {
    const { onStuck } = this.#parts;
    const open = this.#all().flatMap(({ database }) => (database === undefined ? [] : [database]));
    await Promise.all(open.map((database) => closeGate(database, limitMs, onStuck, this.#clock)));
    for (const database of open) database.captureNow();
  }

  async follow(): Promise<void> {
    for (const database of this.#all()) {
      database.become("replica").catch(() => undefined);
    }
    // A waiter of this reign must not be left when it returns.
    await Promise.all(this.#all().map((database) => database.ended()));
  }

  async drain(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#all().map((database) => database.drain(signal)));
  }

  chooseSuccessor(name: string | undefined): string | undefined {
    const { peers, closeLagMs } = this.#parts;
    const able = peers.replicas.filter(({ isCandidate, lagMs }) => isCandidate && lagMs <= closeLagMs);
    const wanted = name === undefined ? able : able.filter((peer) => peer.name === name || peer.nodeId === name);
    return wanted.toSorted((a, b) => a.lagMs - b.lagMs || (a.name < b.name ? -1 : 1))[0]?.nodeId;
  }

  awaitSuccessor(nodeId: string, signal: AbortSignal): Promise<void> {
    return this.#parts.peers.awaitReplica(nodeId, signal);
  }

  callSuccessor(nodeId: string): void {
    this.#parts.peers.callSuccessor(nodeId);
  }

  /** Who has everything goes first; who must compare pages before it knows its state can't lead. */
  holdBackMs(): number | undefined {
    if (this.#clock.elapsedMs() < this.#notBeforeMs) return undefined;
    let longestMs = this.#parts.peers.isBehind ? BEHIND_MS : 0;
    for (const { state, replica } of this.#all()) {
      if (replica !== undefined && replica.position === undefined) return undefined;
      if (state === "restoring" || state === "opening") longestMs = Math.max(longestMs, RESTORING_MS);
      if (state === "failed") longestMs = Math.max(longestMs, FAILED_MS);
    }
    return longestMs;
  }

  #all(): ProtectedDatabase[] {
    return [...this.#parts.databases()];
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const onAbort = (): void =>
      reject(new SluiceError("SLU-8103", "the takeover was not finished in time", { cause: signal.reason }));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

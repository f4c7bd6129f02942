import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Node } from "../cluster/node.ts";
import type { ProtectedDatabase } from "../cluster/protected-database.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import type { Logger } from "../observe/log.ts";
import { promote, type Promoted, type PromoteOptions } from "./promote.ts";

/** What is in the way of a loan is looked at again this often. */
const RETRY_MS = 250;
/** How long databases may take to be writable once this node leads. */
const READY_MS = 15_000;
const READY_POLL_MS = 20;
/** How long the store may take for what a command has committed. */
const STORE_MS = 10 * 60_000;
/** How long the node that was the primary may take, at most, until it can be handed over to again. */
const HOME_MS = 30_000;
/** What passes by itself: another handover, another command, a primary that is being found, a node that catches up. */
const PASSING = ["SLU-8101", "SLU-8103", "SLU-8104", "SLU-8105", "SLU-8108", "SLU-8110"];

export interface LendingOptions extends Omit<PromoteOptions, "force"> {
  readonly node: Node;
  readonly log?: Logger | undefined;
}

export interface LoanRequest {
  /** The database that the command writes; undefined: all of the node must be writable. */
  readonly db: string | undefined;
  /** How long to wait for what passes; at the end, for the other node, thirty seconds at most. */
  readonly waitMs: number;
  /** For how long at most; then it is given back whatever the command does. */
  readonly limitMs: number;
}

/** For its time this node is, and stays, the primary. */
export interface Loan {
  readonly id: string;
  /** The node that was the primary before; undefined when this one was. */
  readonly home: { readonly nodeId: string; readonly name: string } | undefined;
  readonly reign: number;
  /** Aborted with the reason when this node stops being the primary, or the loan's time is over (SLU-8112, SLU-8114). */
  readonly lost: AbortSignal;
}

interface OpenLoan extends Loan {
  /** How long the other node may take at the end. */
  readonly homeMs: number;
  /** What the command writes. */
  readonly wanted: () => readonly ProtectedDatabase[];
  /** Nothing is told of it any more; `reason` says why it is lost. */
  readonly end: (reason: SluiceError | undefined) => void;
}

/** How a loan ended: with everything in the store. */
export interface GivenBack {
  /** The primary's name now. */
  readonly primary: string;
  /** Why this node is still the primary, although another was. */
  readonly kept: string | undefined;
  readonly storedMs: number;
}

/**
 * Lends the primary to a command of this machine (`sluice exec --on-primary`): this node takes over by a planned handover,
 * stays primary while the command runs as any application would, and hands back. One loan at a time; since every planned
 * change of the primary goes through the primary, that holds for the whole cluster.
 *
 *     free ── lend ──► asking ──► lent ── giveBack, the command's connection ends, its time is over ──► returning ──► free
 *                        └ refused ► free └ this node stops being the primary ► free
 */
export class Lending {
  readonly #options: LendingOptions;
  #state: "free" | "asking" | "lent" | "returning" = "free";
  #loan: OpenLoan | undefined;
  #returned: Promise<GivenBack> | undefined;

  constructor(options: LendingOptions) {
    this.#options = options;
  }

  /** `promote`, which leaves the primary to a command that has it: SLU-8110. Forced, it asks nobody. */
  async promote(to: string | undefined, force: boolean): Promise<Promoted> {
    const { node } = this.#options;
    const isSelf = to === undefined || to === node.status.node || to === node.status.nodeId;
    if (this.#state !== "free" && node.role === "primary" && !isSelf && !force)
      throw new SluiceError("SLU-8110", `a command has the primary, ${node.status.node}`);
    return promote(node, to, { ...this.#options, force });
  }

  /**
   * Makes this node the primary for a command. Tells `onWaiting` what it waits for; rejects with the last of that when
   * `waitMs` is over, at once with SLU-1003, SLU-8111 or SLU-8115, and with the reason of `signal`, whose end also ends
   * the loan.
   */
  async lend(request: LoanRequest, onWaiting: (reason: SluiceError) => void, signal: AbortSignal): Promise<Loan> {
    const lateAtMs = performance.now() + request.waitMs;
    const wanted = this.#wanted(request.db);
    for (;;) {
      signal.throwIfAborted();
      try {
        return await this.#lend(wanted, request, signal);
      } catch (error) {
        if (!isSluiceError(error) || !PASSING.includes(error.code) || performance.now() > lateAtMs) throw error;
        onWaiting(error);
        await sleep(RETRY_MS, undefined, { signal });
      }
    }
  }

  /**
   * The command has ended: waits until its commits are in the store, and hands back. Rejects with SLU-8112 when the loan was
   * lost, with SLU-8113; then this node is still the primary.
   */
  giveBack(id: string): Promise<GivenBack> {
    const loan = this.#loan;
    if (loan?.id !== id) throw new SluiceError("SLU-8112", "this node has no such loan any more");
    return this.#end(loan, this.#store);
  }

  #end(loan: OpenLoan, store: (loan: OpenLoan) => Promise<void>): Promise<GivenBack> {
    this.#returned ??= this.#giveBack(loan, store).finally(() => {
      this.#loan = undefined;
      this.#state = "free";
      this.#returned = undefined;
      loan.end(undefined);
    });
    return this.#returned;
  }

  async #lend(wanted: () => readonly ProtectedDatabase[], request: LoanRequest, signal: AbortSignal): Promise<Loan> {
    const { node, log } = this.#options;
    if (this.#state !== "free") throw new SluiceError("SLU-8110", `a command has ${node.status.node} already`);
    if (node.role !== "primary" && !node.canLead) {
      const { primary } = node;
      const where = primary === undefined ? "" : `; the primary is ${primary.name} (${primary.advertise})`;
      throw new SluiceError("SLU-8111", `${node.status.node} may not be the primary${where}`);
    }
    this.#state = "asking";
    try {
      const { primary } = node;
      const home = primary === undefined || primary.isSelf || node.role === "primary" ? undefined : primary;
      await promote(node, undefined, this.#options);
      const loan = this.#begin(home, wanted, request);
      try {
        await ready(wanted, signal);
        signal.throwIfAborted();
        if (node.reign !== loan.reign) throw new SluiceError("SLU-8103", "this node was the primary for a moment only");
      } catch (error) {
        // No command has run: there is nothing to store.
        await this.#end(loan, () => Promise.resolve()).catch((failed: unknown) => this.#tell(failed));
        throw error;
      }
      this.#state = "lent";
      this.#watch(loan, signal);
      log?.info({ home: home?.name }, "a command has the primary");
      return loan;
    } catch (error) {
      this.#state = "free";
      throw error;
    }
  }

  #begin(home: Loan["home"], wanted: OpenLoan["wanted"], { waitMs, limitMs }: LoanRequest): OpenLoan {
    const { node } = this.#options;
    const { reign } = node;
    if (reign === undefined) throw new SluiceError("SLU-8103", "this node was the primary for a moment only");
    const over = new AbortController();
    const look = (): void => {
      if (node.reign === reign || this.#state !== "lent") return;
      const reason = new SluiceError("SLU-8112", `${node.status.node} is not the primary any more`);
      this.#loan?.end(reason);
      this.#loan = undefined;
      this.#state = "free";
    };
    const late = setTimeout(() => this.#isLate(loan.id, limitMs), limitMs);
    late.unref();
    const end = (reason: SluiceError | undefined): void => {
      clearTimeout(late);
      node.off("role", look);
      if (reason !== undefined) over.abort(reason);
    };
    const homeMs = Math.min(waitMs, HOME_MS);
    const loan = { id: randomUUID(), home, homeMs, wanted, reign, lost: over.signal, end };
    this.#loan = loan;
    node.on("role", look);
    return loan;
  }

  /** Its command's connection is gone: it is given back without being asked. */
  #watch(loan: Loan, signal: AbortSignal): void {
    const onGone = (): void => {
      if (this.#loan?.id === loan.id) this.giveBack(loan.id).catch((error: unknown) => this.#tell(error));
    };
    signal.addEventListener("abort", onGone, { once: true });
    if (signal.aborted) onGone();
  }

  #isLate(id: string, limitMs: number): void {
    const loan = this.#loan;
    if (loan?.id !== id || this.#state !== "lent") return;
    loan.end(new SluiceError("SLU-8114", `the command has had the primary for ${Math.round(limitMs / 1000)} s`));
    this.giveBack(id).catch((error: unknown) => this.#tell(error));
  }

  async #giveBack(loan: OpenLoan, store: (loan: OpenLoan) => Promise<void>): Promise<GivenBack> {
    const { node, log } = this.#options;
    const { home, homeMs, reign } = loan;
    const startedMs = performance.now();
    this.#state = "returning";
    const lost = (cause?: unknown): SluiceError =>
      new SluiceError("SLU-8112", `${node.status.node} is not the primary any more`, { cause });
    if (node.reign !== reign) throw lost();
    try {
      await store(loan);
    } catch (cause) {
      if (node.reign !== reign) throw lost(cause);
      throw new SluiceError("SLU-8113", cause instanceof Error ? cause.message : String(cause), { cause });
    }
    const storedMs = performance.now() - startedMs;
    const kept = home === undefined ? undefined : await this.#handBack(home, homeMs);
    const primary = home === undefined || kept !== undefined ? (node.primary?.name ?? node.status.node) : home.name;
    log?.info({ primary, kept }, "the command has ended");
    return { primary, kept, storedMs };
  }

  /** Everything committed is in the store; also what was created in a directory just now. */
  readonly #store = async ({ wanted }: OpenLoan): Promise<void> => {
    const { node } = this.#options;
    await node.discover();
    const late = AbortSignal.timeout(STORE_MS);
    const written = new Set([...wanted(), ...node.databases.filter(({ state }) => state === "protected")]);
    const files = [...written].map(({ path: file }) => file).filter((file) => existsSync(file));
    await Promise.all(files.map((file) => node.sync(file, "store", late)));
  };

  /** Why that was not possible; undefined when `home` is the primary. */
  async #handBack(home: NonNullable<Loan["home"]>, limitMs: number): Promise<string | undefined> {
    const { node } = this.#options;
    for (const end = performance.now() + limitMs; ; await sleep(RETRY_MS)) {
      try {
        await promote(node, home.nodeId, this.#options);
        return undefined;
      } catch (error) {
        if (node.primary?.nodeId === home.nodeId) return undefined;
        const isPassing = isSluiceError(error) && PASSING.includes(error.code);
        if (!isPassing || node.role !== "primary" || performance.now() > end) {
          this.#tell(error);
          return error instanceof Error ? error.message : String(error);
        }
      }
    }
  }

  #wanted(db: string | undefined): () => readonly ProtectedDatabase[] {
    const { node } = this.#options;
    if (db === undefined) return () => node.databases;
    const file = path.resolve(db);
    const find = (): ProtectedDatabase[] => node.databases.filter((database) => database.path === file);
    if (find().length === 0) throw new SluiceError("SLU-1003", `${db} is not a database of this process`);
    return find;
  }

  #tell(error: unknown): void {
    const fields = isSluiceError(error) ? { code: error.code, hint: error.hint } : { err: error };
    this.#options.log?.warn(fields, error instanceof Error ? error.message : String(error));
  }
}

/** Until all of them can be written, or created. Rejects with SLU-8115. */
async function ready(wanted: () => readonly ProtectedDatabase[], signal: AbortSignal): Promise<void> {
  for (const end = performance.now() + READY_MS; ; await sleep(READY_POLL_MS, undefined, { signal })) {
    const missing = wanted().find(({ state }) => state !== "protected" && state !== "waiting");
    if (missing === undefined) return;
    if (performance.now() < end) continue;
    const { path: file, state, error } = missing.status;
    throw new SluiceError("SLU-8115", `${file} is ${state}${error === undefined ? "" : `: ${error.message}`}`);
  }
}

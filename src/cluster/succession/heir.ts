import { formatPosition, type Position } from "../../ltx/position.ts";
import type { Link } from "./link.ts";

/** Who a successor is, for messages and `status`. */
export interface Successor {
  readonly pid: number;
  readonly version: string;
}

/**
 * The Sluice that takes a database over, as the one sees it that has had it until then.
 *
 *     greeted ─ asks for the lock ─► waiting ─ offer ─► offered ─ "taken" ─► the owner
 *        ▲                              │ decline           │ "not taken", or the end of the link
 *        └──────────────────────────────┴───────────────────┘
 *
 * One that only answers (`watched`) is the owner from the start.
 */
export class Heir {
  readonly who: Successor;
  readonly #link: Link;
  #waiting: PromiseWithResolvers<void> | undefined;
  #offered: PromiseWithResolvers<boolean> | undefined;

  constructor(link: Link, who: Successor) {
    this.#link = link;
    this.who = who;
    void link.gone.then(() => this.#offered?.resolve(false));
  }

  get gone(): Promise<void> {
    return this.#link.gone;
  }

  get isGone(): boolean {
    return this.#link.isGone;
  }

  /** It holds what two can hold, and asks for the rest: resolves when that is offered. */
  asks(): Promise<void> {
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  /** The lock is free for it: resolves with whether it has taken it. */
  offer(): Promise<boolean> {
    const offered = Promise.withResolvers<boolean>();
    this.#offered = offered;
    if (this.isGone) offered.resolve(false);
    this.#waiting?.resolve();
    return offered.promise;
  }

  /** Not now: it asks again. */
  decline(reason: Error): void {
    this.#waiting?.reject(reason);
  }

  /** What it says to an offer. */
  answers(isTaken: boolean): void {
    this.#offered?.resolve(isTaken);
  }

  async position(signal: AbortSignal): Promise<Position> {
    return parsed(await this.#link.ask({ do: "position" }, signal));
  }

  async sync(wait: string, signal: AbortSignal): Promise<Position> {
    return parsed(await this.#link.ask({ do: "sync", wait }, signal));
  }

  async waitDurable(position: Position, level: string, signal: AbortSignal): Promise<void> {
    await this.#link.ask({ do: "durable", position: formatPosition(position), level }, signal);
  }

  close(): void {
    this.#link.close();
  }
}

/** A position as 16 hex digits. */
export function parsed(value: unknown): Position {
  return BigInt(`0x${String(value)}`);
}

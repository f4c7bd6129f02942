import { setTimeout as sleep } from "node:timers/promises";
import type { Predecessor } from "../../database/opening.ts";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import type { Link } from "./link.ts";

/** How long a successor asks for a database: a transaction may be in the way, or the store slow to confirm. */
const PATIENCE_MS = 60_000;
const AGAIN_MS = 25;
/** Tries for a lock that was offered; between two of them somebody else may be done with it. */
const TRIES = 200;

/**
 * The Sluice that has had a database until now, as its successor sees it.
 *
 *     greeted ─ pass ─► asking ─ offered ─► taking ─ taken ─► taken: it asks, this one answers
 *                         ▲                   │
 *                         └──── not taken ────┘
 *
 * It may end at any time: the locks are free then, and opening goes on as after any end of a Sluice.
 */
export class Ancestor implements Predecessor {
  readonly #link: Link;
  readonly #path: string;
  readonly pid: number;

  constructor(link: Link, path: string, pid: number) {
    this.#link = link;
    this.#path = path;
    this.pid = pid;
  }

  get link(): Link {
    return this.#link;
  }

  /** Rejects with SLU-2003 when it doesn't give the database up. */
  async pass(take: () => boolean): Promise<void> {
    const late = AbortSignal.timeout(PATIENCE_MS);
    while (!this.#link.isGone) {
      try {
        await this.#link.ask({ do: "pass" }, late);
      } catch (cause) {
        if (this.#link.isGone) return;
        if (late.aborted) {
          const message = `${this.#path}: process ${this.pid} does not give it up within ${PATIENCE_MS / 1000} s`;
          throw new SluiceError("SLU-2003", message, { cause });
        }
        if (!isSluiceError(cause, "SLU-2003")) throw cause;
        await sleep(AGAIN_MS);
        continue;
      }
      let isTaken = take();
      for (let i = 1; i < TRIES && !isTaken; i++) isTaken = take();
      // Said before anything else is done with it.
      void this.#link.ask({ do: "taken", isTaken }).catch(() => undefined);
      if (isTaken) return;
      await sleep(AGAIN_MS);
    }
  }
}

import { setTimeout as sleep } from "node:timers/promises";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import type { Position } from "../../ltx/position.ts";
import type { Ancestor } from "./ancestor.ts";
import { Heir } from "./heir.ts";
import type { Passable, Succession } from "./succession.ts";

/** What this process has of a database while it is the owner. */
export interface Owned {
  readonly writer: { waitFor(position: Position, signal: AbortSignal): Promise<void> } | undefined;
  readonly database: { captureNow(): Position } | undefined;
}

const LOOK_MS = 5;

/** What one database knows of other Sluices on this host that have it, or want it. */
export class Overlap {
  readonly #succession: Succession | undefined;
  readonly #database: Passable;
  readonly #owned: () => Owned;
  #asked = new AbortController();
  #asking: Heir | undefined;
  #heir: Heir | undefined;
  #ancestor: Ancestor | undefined;

  constructor(succession: Succession | undefined, database: Passable, owned: () => Owned) {
    this.#succession = succession;
    this.#database = database;
    this.#owned = owned;
  }

  /** Aborted when a successor asks for the database. */
  get asked(): AbortSignal {
    return this.#asked.signal;
  }

  /** The one who asks. */
  get asking(): Heir | undefined {
    return this.#asking;
  }

  /** Who has the database now, instead of this process. */
  get heir(): Heir | undefined {
    return this.#heir;
  }

  /** Whom to ask for it. */
  get ancestor(): Ancestor | undefined {
    return this.#ancestor;
  }

  /** This process has passed databases on, and takes none. */
  get isRetired(): boolean {
    return this.#succession?.isRetired ?? false;
  }

  ask(heir: Heir): void {
    if (this.#asking !== undefined) return heir.decline(new SluiceError("SLU-2003", "another Sluice asks for it, too"));
    this.#asking = heir;
    this.#asked.abort();
  }

  /** It was decided whether `asking` gets it; the next one may ask. */
  decided(): void {
    this.#asking?.decline(new SluiceError("SLU-2003", `${this.#database.path} is not to be had just now`));
    this.#asking = undefined;
    this.#asked = new AbortController();
  }

  /**
   * Before it's opened: who has it, when that is another process that this one only asks. Otherwise `ancestor` says
   * from whom it's taken. Throws SLU-6004 and SLU-6012.
   */
  async find(signal: AbortSignal): Promise<Heir | undefined> {
    const found = await this.#succession?.find(this.#database, signal);
    if (found instanceof Heir) return found;
    this.#ancestor = found;
    return undefined;
  }

  /** Until `heir` has ended, or `signal` is aborted: it has the database. */
  async leaveTo(heir: Heir, signal: AbortSignal): Promise<void> {
    if (this.#succession !== undefined) this.#succession.isRetired = true;
    this.#heir = heir;
    const stopped = new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
    await Promise.race([heir.gone, stopped]);
    this.#heir = undefined;
    heir.close();
  }

  /**
   * Resolves when `position` is in the log, as whoever has the database says. Rejects with SLU-4109 when that can't be told
   * any more, with the reason of `signal`.
   */
  async waitStored(position: Position, signal: AbortSignal): Promise<void> {
    for (;;) {
      const { writer } = this.#owned();
      try {
        if (this.#heir !== undefined) return await this.#heir.waitDurable(position, "store", signal);
        if (writer !== undefined) return await writer.waitFor(position, signal);
      } catch (error) {
        // Passed on meanwhile, or taken back: the other one knows.
        const hasMoved = this.#database.isAway && isSluiceError(error, "SLU-4109");
        if (!hasMoved && !isSluiceError(error, "SLU-6013")) throw error;
      }
      await sleep(LOOK_MS, undefined, { signal });
    }
  }

  /** The last commit of now, as whoever has the database names it. */
  async positionNow(signal: AbortSignal): Promise<Position> {
    for (;;) {
      const { writer, database } = this.#owned();
      try {
        if (this.#heir !== undefined) return await this.#heir.position(signal);
        if (writer !== undefined && database !== undefined) return database.captureNow();
      } catch (error) {
        if (!isSluiceError(error, "SLU-6013")) throw error;
      }
      await sleep(LOOK_MS, undefined, { signal });
    }
  }

  /** This process has let go of the database: whoever had it before may take it back. */
  release(): void {
    this.#ancestor?.link.close();
    this.#ancestor = undefined;
  }
}

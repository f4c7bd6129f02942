import type { Passable, Succession } from "../cluster/succession/succession.ts";
import { removeOwner, writeOwner } from "./owner.ts";

/** What a note depends on: see `ProtectedDatabase`. */
interface Noted extends Pick<Passable, "path" | "isAway"> {
  readonly database: object | undefined;
  readonly replica: object | undefined;
}

/** The notes beside this process's databases that say so. */
export class OwnerNotes {
  readonly #socket: string;
  readonly #succession: Succession;
  /** Noted as this process's; true: since it holds the locks. */
  readonly #noted = new Map<string, boolean>();

  constructor(socket: string, succession: Succession) {
    this.#socket = socket;
    this.#succession = succession;
  }

  /**
   * Before a database is opened, and again when it is: the process that had it until then may have ended meanwhile, or
   * passed it on. Without its locks a database is noted only where nobody else may have it.
   */
  look({ path: db, database, replica, isAway }: Noted): void {
    const hasIt = database !== undefined || replica !== undefined;
    if (isAway && !hasIt) this.#noted.delete(db);
    else if (hasIt ? this.#noted.get(db) !== true : !this.#noted.has(db)) {
      const { path, succession } = this.#succession.noteFor(db);
      const isNoted = writeOwner(db, this.#socket, { hasIt, ...(path && { path }), ...(succession && { succession }) });
      if (isNoted) this.#noted.set(db, hasIt);
    }
  }

  remove(): void {
    for (const db of this.#noted.keys()) removeOwner(db);
  }
}

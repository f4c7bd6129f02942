import type { Position } from "../../../src/ltx/position.ts";
import type { History } from "../../log/sim/history.ts";

/** An answer that a client got. */
interface Answer {
  readonly position: Position;
  readonly level: "replica" | "store";
  /** The node that gave it. */
  readonly client: string;
}

/** What clients were told, and whether it is true. */
export class Clients {
  readonly #history: History;
  #answers: Answer[] = [];
  readonly counts = { store: 0, replica: 0, early: 0 };

  constructor(history: History) {
    this.#history = history;
  }

  get count(): number {
    return this.#answers.length;
  }

  told(answer: Answer): void {
    const { position, level, client } = answer;
    this.counts[level]++;
    this.#answers.push(answer);
    if (level === "store") return this.#history.checkConfirmed(position, client);
    if (!this.#history.reaches(position)) this.counts.early++;
    this.#history.checkKept(position, client);
  }

  /** At a takeover: it has everything that was acknowledged before (invariant 9). */
  check(): void {
    for (const { position, client } of this.#answers) this.#history.checkKept(position, client);
  }

  /** What was acknowledged at `replica` and isn't in the log is given up. */
  forced(): void {
    this.#answers = this.#answers.filter(({ level, position }) => level === "store" || this.#history.reaches(position));
  }

  /** Everything that was acknowledged is in the log. */
  checkEnd(): void {
    for (const { position, client } of this.#answers) this.#history.checkConfirmed(position, client);
  }
}

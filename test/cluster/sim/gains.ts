import { epochOf, formatPosition, NOTHING, type Position } from "../../../src/ltx/position.ts";
import type { TrueRecord } from "../../log/sim/history.ts";
import type { SimNode } from "./node.ts";

/** So long must two nodes have had nothing between them that a winner can be expected to ask the other. */
const QUIET_MS = 8_000;

interface Expectation {
  readonly afterTxid: number;
  readonly winner: string;
  readonly other: string;
  readonly position: Position;
}

/**
 * A node that takes over first fetches what nodes in reach have more (protocol section 8). It has seconds for that, and
 * may not know them: so it is asked of those only that nothing has come between for a while.
 */
export class Gains {
  /** When something last happened between two machines, or to one of them. */
  readonly #troubled = new Map<string, number>();
  readonly #expected = new Map<string, readonly Expectation[]>();
  count = 0;

  trouble(nowMs: number, one: string, others: Iterable<string>): void {
    for (const other of others) this.#troubled.set(pair(one, other), nowMs);
  }

  /** `winner` begins to take over behind `last`. */
  begins(nowMs: number, winner: SimNode, others: Iterable<SimNode>, last: TrueRecord): void {
    const expected: Expectation[] = [];
    for (const { name, machine, peers, database } of others) {
      const position = database.state === "following" ? (database.replica?.position ?? NOTHING) : NOTHING;
      const isKnown = winner.peers.known.ids.includes(machine.name) && peers.client.url !== undefined;
      if (!isKnown || epochOf(position) !== last.fields.epoch) continue;
      if (nowMs - this.#troubleOf(winner.name, name) < QUIET_MS) continue;
      expected.push({ afterTxid: last.txid, winner: winner.name, other: name, position });
    }
    this.#expected.set(winner.name, expected);
  }

  /** A takeover is in the log. */
  ends(nowMs: number, { txid, client, fields }: TrueRecord): void {
    for (const { afterTxid, winner, other, position } of this.#expected.get(client) ?? []) {
      if (txid !== afterTxid + 1 || nowMs - this.#troubleOf(winner, other) < QUIET_MS) continue;
      this.count++;
      if (fields.position >= position) continue;
      throw new Error(`${winner} took over without ${formatPosition(position)}, which ${other} had`);
    }
    this.#expected.delete(client);
  }

  #troubleOf(one: string, other: string): number {
    return this.#troubled.get(pair(one.split("/")[0]!, other.split("/")[0]!)) ?? Number.NEGATIVE_INFINITY;
  }
}

function pair(one: string, other: string): string {
  return one < other ? `${one} ${other}` : `${other} ${one}`;
}

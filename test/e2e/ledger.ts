import { randomBytes } from "node:crypto";
import { appendFileSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import Sqlite from "better-sqlite3";

/** What the client knows of one entry: sent before the request, acknowledged after the answer 201. */
interface Known {
  readonly value: string;
  acknowledged: boolean;
  durable: boolean;
}

/**
 * The independent record: an HTTP client that writes entries with keys of their own and notes, in a file that is only
 * appended to, what it sent, what was acknowledged, and what was acknowledged before a sync that succeeded began.
 */
export class Ledger {
  readonly #file: string;
  #writing = false;
  #clients: Promise<void>[] = [];

  constructor(file: string) {
    this.#file = file;
    appendFileSync(file, "");
  }

  /** `clients` write without a pause to where `url` says, until {@link stop}; failures only pause them. */
  start(url: () => string | undefined, clients: number): void {
    this.#writing = true;
    this.#clients = Array.from({ length: clients }, () => this.#write(url));
  }

  async stop(): Promise<void> {
    this.#writing = false;
    await Promise.all(this.#clients);
  }

  /** Runs `sync`; if it returns true, what was acknowledged before it began is durable. */
  async durableBy(sync: () => Promise<boolean>): Promise<boolean> {
    const acknowledged = [...this.known].filter(([, entry]) => entry.acknowledged && !entry.durable);
    if (!(await sync())) return false;
    if (acknowledged.length > 0) appendFileSync(this.#file, acknowledged.map(([key]) => `durable ${key}\n`).join(""));
    return true;
  }

  get known(): Map<string, Known> {
    const known = new Map<string, Known>();
    for (const line of readFileSync(this.#file, "utf8").split("\n")) {
      const [word, key = "", value = ""] = line.split(" ");
      const entry = known.get(key);
      if (word === "sent") known.set(key, { value, acknowledged: false, durable: false });
      else if (word === "acknowledged" && entry) entry.acknowledged = true;
      else if (word === "durable" && entry) entry.durable = true;
    }
    return known;
  }

  /** After a restore: what was acknowledged but not durable, and is not in `file`, is lost, and known to be. */
  forgetLost(file: string): number {
    const there = new Set(entries(file).keys());
    const lost = [...this.known].filter(
      ([key, { acknowledged, durable }]) => acknowledged && !durable && !there.has(key),
    );
    if (lost.length > 0) appendFileSync(this.#file, lost.map(([key, { value }]) => `sent ${key} ${value}\n`).join(""));
    return lost.length;
  }

  async #write(url: () => string | undefined): Promise<void> {
    while (this.#writing) {
      const to = url();
      const key = randomBytes(8).toString("hex");
      const value = randomBytes(40).toString("hex");
      if (to !== undefined) {
        appendFileSync(this.#file, `sent ${key} ${value}\n`);
        const answer = await fetch(`${to}/entries`, {
          method: "POST",
          body: JSON.stringify({ key, value }),
          signal: AbortSignal.timeout(20_000),
        }).catch(() => undefined);
        if (answer?.status === 201) appendFileSync(this.#file, `acknowledged ${key}\n`);
        await answer?.arrayBuffer().catch(() => {});
        if (answer) continue;
      }
      await delay(50);
    }
  }
}

function entries(file: string): Map<string, string> {
  const db = new Sqlite(file, { readonly: true });
  try {
    return new Map(db.prepare("select key, value from ledger_entry").raw().all() as [string, string][]);
  } finally {
    db.close();
  }
}

/**
 * What is wrong with a database, compared with the record: entries that must be there (`least`) and are not, entries
 * with another value, entries nobody ever sent, a broken file, half a transaction. Empty when all is well.
 */
export function faults(file: string, ledger: Ledger, least: "acknowledged" | "durable"): string[] {
  const found: string[] = [];
  const db = new Sqlite(file, { readonly: true });
  const integrity = db.pragma("integrity_check", { simple: true });
  const total = db.prepare("select coalesce(sum(entries), 0) from ledger_total").pluck().get();
  db.close();
  const there = entries(file);
  if (integrity !== "ok") found.push(`integrity: ${String(integrity)}`);
  if (total !== there.size) found.push(`${there.size} entries, but a total of ${String(total)}`);
  const known = ledger.known;
  for (const [key, entry] of known) if (entry[least] && !there.has(key)) found.push(`${least}, but not there: ${key}`);
  for (const [key, value] of there) {
    if (known.get(key)?.value !== value) found.push(`${key} has a value that nobody sent`);
  }
  return found;
}

import { appendFileSync, readFileSync } from "node:fs";
import Sqlite from "better-sqlite3";

interface Sent {
  readonly token: string;
  readonly from: number;
  readonly to: number;
  readonly amount: number;
}

/** What the journal of `test/apps/bank.py` says: an independent record of the bank's commits. */
interface Story {
  /** Everything that was sent as commit n since the last loss of the disk; one of it may be commit n. */
  readonly sent: Map<number, Sent[]>;
  /** The tokens of commits that were acknowledged. */
  readonly committed: Map<number, string>;
  /** All commits up to this one were confirmed to be in the store. */
  readonly durable: number;
  readonly pids: Set<number>;
}

export class BankJournal {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
    appendFileSync(path, "");
  }

  get story(): Story {
    const sent: Story["sent"] = new Map();
    const committed: Story["committed"] = new Map();
    const pids = new Set<number>();
    let durable = 0;
    for (const line of readFileSync(this.path, "utf8").split("\n")) {
      const [word, first, token = "", from, to, amount] = line.split(" ");
      const n = Number(first);
      if (word === "pid") pids.add(n);
      else if (word === "durable") durable = Math.max(durable, n);
      else if (word === "committed") committed.set(n, token);
      else if (word === "sent") {
        const one = { token, from: Number(from), to: Number(to), amount: Number(amount) };
        sent.set(n, [...(sent.get(n) ?? []), one]);
      } else if (word === "lost-after") {
        for (const key of sent.keys()) if (key > n) sent.delete(key);
        for (const key of committed.keys()) if (key > n) committed.delete(key);
      }
    }
    return { sent, committed, durable, pids };
  }

  /** The newest commit that was acknowledged. */
  get last(): number {
    return Math.max(0, ...this.story.committed.keys());
  }

  /** Runs `sync`; when it succeeds, all that was acknowledged before it began is durable. */
  async durableBy(sync: () => Promise<boolean>): Promise<boolean> {
    const { last } = this;
    const done = await sync();
    if (done) appendFileSync(this.path, `durable ${last}\n`);
    return done;
  }

  /** The disk is gone, and the bank goes on after commit n: what came behind it happened no more. */
  lostAfter(n: number): void {
    appendFileSync(this.path, `lost-after ${n}\n`);
  }

  /**
   * Compares a database with the record: it must be the state after exactly n commits, those that were sent, each with
   * its token, and n no less than `least` says. Returns n; throws with everything that is wrong.
   */
  check(file: string, least: "committed" | "durable"): number {
    const db = new Sqlite(file, { readonly: true, timeout: 10_000 });
    const story = this.story;
    const wrong: string[] = [];
    try {
      const integrity = db.pragma("integrity_check", { simple: true });
      if (integrity !== "ok") wrong.push(`integrity: ${String(integrity)}`);
      const rows = db.prepare("select n, token from history order by n").raw().all() as [number, string][];
      const balances = new Map<number, number>();
      for (const [index, [n, token]] of rows.entries()) {
        if (n !== index + 1) wrong.push(`row ${index + 1} is commit ${n}`);
        const sent = story.sent.get(n)?.find((one) => one.token === token);
        if (!sent) wrong.push(`commit ${n} was never sent with ${token}`);
        const committed = story.committed.get(n);
        if (committed !== undefined && committed !== token) wrong.push(`commit ${n} is not what was acknowledged`);
        if (!sent) continue;
        balances.set(sent.from, (balances.get(sent.from) ?? 0) - sent.amount);
        balances.set(sent.to, (balances.get(sent.to) ?? 0) + sent.amount);
      }
      for (const [id, balance] of db.prepare("select id, balance from account").raw().all() as [number, number][])
        if (balance !== (balances.get(id) ?? 0)) wrong.push(`account ${id} has ${balance}, not ${balances.get(id)}`);
      const needed = least === "durable" ? story.durable : Math.max(0, ...story.committed.keys());
      if (rows.length < needed) wrong.push(`${rows.length} commits are there, but ${needed} were ${least}`);
      if (wrong.length > 0) throw new Error(`${file}: ${wrong.slice(0, 10).join("; ")}`);
      return rows.length;
    } finally {
      db.close();
    }
  }
}

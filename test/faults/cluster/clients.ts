import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";

export type Level = "local" | "replica" | "store";

/** Clients that write entries over all nodes and read them on others, and remember what was acknowledged. */
export class Clients {
  /** By key: the value, and at which level it was acknowledged. */
  readonly acknowledged: Map<string, { readonly value: string; readonly level: Level; readonly at: string }>;
  readonly stale: string[] = [];
  readonly sent: Set<string>;
  failed = 0;
  /** When the last write was acknowledged, by `performance.now()`. */
  lastMs = 0;
  readonly #doors: readonly string[];
  readonly #levels: readonly Level[];
  readonly #running: Promise<void>[];
  #isOver = false;

  /** They begin at once, each at its turn's level; `earlier`: what others were promised before them. */
  constructor(
    doors: readonly string[],
    { count, levels }: { readonly count: number; readonly levels: readonly Level[] },
    earlier: Pick<Clients, "acknowledged" | "sent">,
  ) {
    this.#levels = levels;
    this.acknowledged = new Map(earlier.acknowledged);
    this.sent = new Set(earlier.sent);
    this.#doors = doors;
    this.#running = Array.from({ length: count }, (_, i) => this.#client(i));
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
  }

  async #client(first: number): Promise<void> {
    const level = this.#levels[first % this.#levels.length]!;
    for (let i = first; !this.#isOver; i++) {
      const door = this.#doors[i % this.#doors.length]!;
      const done = await this.#write(door, level).catch(() => undefined);
      if (done === undefined) this.failed++;
      else if (done.position !== null) await this.#read(door, i + 1, done.key, done.position).catch(() => undefined);
      await delay(done === undefined ? 20 : 2);
    }
  }

  async #write(door: string, level: Level): Promise<{ key: string; position: string | null } | undefined> {
    const [key, value] = [randomUUID(), randomUUID()];
    this.sent.add(key);
    const answer = await fetch(`${door}/entries`, {
      method: "POST",
      headers: { "content-type": "application/json", "sluice-durability": level },
      body: JSON.stringify({ key, value }),
      signal: AbortSignal.timeout(10_000),
    });
    await answer.arrayBuffer();
    if (answer.status !== 201) return undefined;
    this.lastMs = performance.now();
    this.acknowledged.set(key, { value, level, at: `${door} ${new Date().toISOString()}` });
    return { key, position: answer.headers.get("sluice-position") };
  }

  async #read(wrote: string, i: number, key: string, position: string): Promise<void> {
    const door = this.#doors[i % this.#doors.length]!;
    const signal = AbortSignal.timeout(10_000);
    const answer = await fetch(`${door}/entries/${key}`, { headers: { "sluice-position": position }, signal });
    const text = await answer.text();
    const isLost = answer.headers.get("sluice-position-lost") !== null;
    const shown = answer.ok ? (JSON.parse(text) as { value?: string }).value : undefined;
    const { value, level } = this.acknowledged.get(key)!;
    const isStale = answer.ok ? shown !== value : answer.status === 404;
    // At `local` an entry may be lost; then the answer says so.
    if (isStale && !(isLost && level === "local")) {
      this.stale.push(
        `${key} (${level}) at ${position}: written at ${wrote}, ${answer.status} at ${door}, ${new Date().toISOString()}`,
      );
    }
  }
}

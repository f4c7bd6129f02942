import { randomUUID } from "node:crypto";

export interface Written {
  readonly key: string;
  readonly position: string | undefined;
}

/** The demo's client: writes unique entries, remembers which were acknowledged, and reads them back. */
export class Ledger {
  readonly #acknowledged = new Map<string, string>();
  failed = 0;

  /** How many entries were acknowledged as stored. */
  get count(): number {
    return this.#acknowledged.size;
  }

  /** One entry, durable in the store when it's acknowledged; undefined when it isn't. */
  async write(door: string): Promise<Written | undefined> {
    const [key, value] = [randomUUID(), randomUUID()];
    const headers = { "content-type": "application/json", "sluice-durability": "store" };
    try {
      const body = JSON.stringify({ key, value });
      const response = await fetch(`${door}/entries`, { method: "POST", headers, body });
      await response.arrayBuffer();
      if (response.status !== 201) throw new Error(`status ${response.status}`);
      this.#acknowledged.set(key, value);
      return { key, position: response.headers.get("sluice-position") ?? undefined };
    } catch {
      this.failed++;
      return undefined;
    }
  }

  /** Whether a node shows an entry to the client that wrote it. */
  async reads(door: string, { key, position }: Written): Promise<boolean> {
    const headers: Record<string, string> = position === undefined ? {} : { "sluice-position": position };
    const response = await fetch(`${door}/entries/${key}`, { headers }).catch(() => undefined);
    const found = response?.ok === true ? ((await response.json()) as { value?: string }).value : undefined;
    return found !== undefined && found === this.#acknowledged.get(key);
  }

  /** Entries that were acknowledged and that this node doesn't have. */
  async missing(door: string): Promise<number> {
    let missing = 0;
    for (const key of this.#acknowledged.keys()) if (!(await this.reads(door, { key, position: undefined }))) missing++;
    return missing;
  }
}

/** Clients that write and read on all nodes until `stop`, one request after the other each. */
export class Load {
  readonly #clients: Promise<void>[];
  #stopped = false;
  requests = 0;
  stale = 0;
  longestMs = 0;

  constructor(ledger: Ledger, doors: readonly string[], clients: number) {
    this.#clients = Array.from({ length: clients }, (_, i) => this.#client(ledger, doors, i));
  }

  async #client(ledger: Ledger, doors: readonly string[], first: number): Promise<void> {
    for (let i = first; !this.#stopped; i++) {
      const startedMs = performance.now();
      const written = await ledger.write(doors[i % doors.length]!);
      this.longestMs = Math.max(this.longestMs, performance.now() - startedMs);
      this.requests++;
      if (written === undefined) continue;
      this.requests++;
      if (!(await ledger.reads(doors[(i + 1) % doors.length]!, written))) this.stale++;
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#clients);
  }
}

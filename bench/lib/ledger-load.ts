import { randomUUID } from "node:crypto";
import { Agent, request } from "node:http";

export interface Answer {
  readonly status: number;
  readonly body: string;
  readonly position: string | undefined;
}

/** Clients of the ledger application; each writes, and reads what it wrote on all the other nodes, until `stop`. */
export class LedgerLoad {
  readonly #agent: Agent;
  readonly #doors: readonly string[];
  readonly #headers: Readonly<Record<string, string>>;
  readonly #reads: boolean;
  readonly #clients: Promise<void>[];
  #stopped = false;
  readonly acknowledged = new Map<string, string>();
  failed = 0;
  reads = 0;
  stale = 0;

  constructor(
    doors: readonly string[],
    options: { readonly clients: number; readonly durability: "local" | "store"; readonly reads: boolean },
  ) {
    this.#agent = new Agent({ keepAlive: true });
    this.#doors = doors;
    this.#headers = options.durability === "local" ? {} : { "sluice-durability": options.durability };
    this.#reads = options.reads;
    this.#clients = Array.from({ length: options.clients }, (_, i) => this.#client(i));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#clients);
    this.#agent.destroy();
  }

  async #client(first: number): Promise<void> {
    for (let i = first; !this.#stopped; i++) {
      const [key, value] = [randomUUID(), randomUUID()];
      const at = i % this.#doors.length;
      const written = await this.#ask(this.#doors[at]!, "/entries", this.#headers, JSON.stringify({ key, value }));
      if (written?.status !== 201) {
        this.failed++;
        continue;
      }
      this.acknowledged.set(key, value);
      if (!this.#reads) continue;
      const others = this.#doors.filter((_, door) => door !== at);
      await Promise.all(others.map((door) => this.#read(door, key, value, written.position)));
    }
  }

  async #read(door: string, key: string, value: string, position: string | undefined): Promise<void> {
    const headers: Record<string, string> = position === undefined ? {} : { "sluice-position": position };
    const found = await this.#ask(door, `/entries/${key}`, headers);
    this.reads++;
    if (found?.status === 404) this.stale++;
    else if (found?.status !== 200) this.failed++;
    else if ((JSON.parse(found.body) as { value: string }).value !== value) this.stale++;
  }

  async #ask(
    door: string,
    path: string,
    headers: Readonly<Record<string, string>>,
    body?: string,
  ): Promise<Answer | undefined> {
    return new Promise((resolve) => {
      const method = body === undefined ? "GET" : "POST";
      const length = body === undefined ? {} : { "content-length": Buffer.byteLength(body) };
      const asked = request(
        door + path,
        { agent: this.#agent, method, headers: { ...headers, ...length } },
        (response) => {
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (chunk: string) => (text += chunk));
          response.on("error", () => resolve(undefined));
          response.on("end", () => {
            const position = response.headers["sluice-position"];
            resolve({
              status: response.statusCode ?? 0,
              body: text,
              position: typeof position === "string" ? position : undefined,
            });
          });
        },
      );
      asked.on("error", () => resolve(undefined));
      asked.end(body);
    });
  }
}

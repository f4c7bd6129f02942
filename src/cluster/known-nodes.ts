import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";

/** Nodes that come and go under new names are forgotten in turn. */
const NODES_MAX = 16;

/**
 * Where the other nodes of the cluster are, as this one has met them: whom to ask before it takes over. Kept in a file,
 * so that a primary that restarts knows who may have what a power loss took from it. Best effort: what the disk refuses
 * is forgotten at the next start, and an address that is wrong by then is nobody's.
 */
export class KnownNodes {
  readonly #file: string;
  readonly #urls: Map<string, string>;

  /** In the directory `dir`. */
  constructor(dir: string) {
    this.#file = path.join(dir, "nodes.json");
    this.#urls = new Map(read(this.#file));
  }

  get urls(): readonly string[] {
    return [...this.#urls.values()];
  }

  get ids(): readonly string[] {
    return [...this.#urls.keys()];
  }

  add(nodeId: string, url: string): void {
    if (this.#urls.get(nodeId) === url) return;
    this.#urls.delete(nodeId);
    this.#urls.set(nodeId, url);
    for (const oldest of this.ids.slice(0, -NODES_MAX)) this.#urls.delete(oldest);
    this.#write();
  }

  /** These, and nobody else. */
  replace(nodes: readonly (readonly [nodeId: string, url: string])[]): void {
    const isSame = nodes.length === this.#urls.size && nodes.every(([id, url]) => this.#urls.get(id) === url);
    if (isSame) return;
    this.#urls.clear();
    for (const [id, url] of nodes) this.#urls.set(id, url);
    this.#write();
  }

  #write(): void {
    try {
      mkdirSync(path.dirname(this.#file), { recursive: true, mode: 0o700 });
      writeFileSync(`${this.#file}.tmp`, `${JSON.stringify([...this.#urls])}\n`, { mode: 0o600 });
      renameSync(`${this.#file}.tmp`, this.#file);
    } catch {
      // It's only for the next start.
    }
  }
}

function read(file: string): [string, string][] {
  try {
    const found = JSON.parse(readFileSync(file, "utf8")) as unknown;
    if (!Array.isArray(found)) return [];
    return found.flatMap(([id, url]: unknown[]) => (typeof id === "string" && isUrl(url) ? [[id, url]] : []));
  } catch {
    return [];
  }
}

function isUrl(value: unknown): value is string {
  return typeof value === "string" && URL.canParse(value);
}

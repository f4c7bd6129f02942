import { EventEmitter } from "node:events";
import type { Durability } from "../../src/config/config.ts";
import { position, type Position } from "../../src/ltx/position.ts";
import type { Applied, DatabasePosition, NodeView, PrimaryNode } from "../../src/proxy/node-view.ts";

/** Of a database that was there before this cluster. */
const MADE: Position = 1n;

/**
 * A cluster in memory: one history of each database, epochs that end, nodes that apply it sooner or later, commits
 * that become durable sooner or later. What the front door sees of it is what a real cluster shows.
 */
export class Cluster extends EventEmitter {
  readonly nodes = new Map<string, ClusterNode>();
  readonly dbs: readonly string[];
  epoch = 1;
  primary: ClusterNode | undefined;
  /** The lease's deadline has passed, and nobody has noticed yet. */
  leaseOver = false;
  /** The last seq of each ended epoch, by database. */
  readonly ends = new Map<string, number>();
  /** Commits become durable at these levels at once; others wait for {@link settle}. */
  durableAt = new Set<Durability>(["replica", "store"]);
  readonly #head = new Map<string, number>();

  constructor(dbs: readonly string[] = ["app.db"]) {
    super();
    this.setMaxListeners(0);
    this.dbs = dbs;
    for (const db of dbs) this.#head.set(db, 0);
  }

  node(name: string): ClusterNode {
    const node = new ClusterNode(this, name);
    this.nodes.set(name, node);
    return node;
  }

  /** Makes `node` the primary: a new epoch, in which `losing` of the last commits are not. */
  promote(node: ClusterNode | undefined, losing = 0): void {
    for (const db of this.dbs) {
      const end = this.seq(db) - losing;
      this.ends.set(`${db} ${this.epoch}`, end);
      this.#head.set(db, 0);
      // A new primary keeps the position that it took over at until it commits.
      this.tookOverAt.set(db, end === 0 ? (this.tookOverAt.get(db) ?? MADE) : position(this.epoch, end));
    }
    this.epoch++;
    this.primary = node;
    this.leaseOver = false;
    this.reigns++;
    for (const each of this.nodes.values()) if (!each.isBehind) each.catchUp();
    this.emit("change");
  }

  readonly tookOverAt = new Map<string, Position>();
  reigns = 0;

  seq(db: string): number {
    return this.#head.get(db)!;
  }

  head(db: string): Position {
    const seq = this.seq(db);
    return seq === 0 ? (this.tookOverAt.get(db) ?? MADE) : position(this.epoch, seq);
  }

  commit(by: ClusterNode, db: string): void {
    if (this.primary !== by) throw new Error("attempt to write a readonly database");
    this.#head.set(db, this.seq(db) + 1);
    for (const node of this.nodes.values()) if (node === by || !node.isBehind) node.catchUp();
    this.emit("progress");
  }

  /** From now on, commits are durable at once at `levels`, the earlier ones, too. */
  settle(...levels: Durability[]): void {
    this.durableAt = new Set(levels);
    this.emit("progress");
  }
}

/** What a front door sees of one node. */
export class ClusterNode implements NodeView {
  readonly cluster: Cluster;
  readonly name: string;
  proxy: URL | undefined;
  /** It applies nothing until it catches up. */
  isBehind = false;
  lag: number | undefined = 0;
  problem: string | undefined;
  /** How often commits were captured. */
  captures = 0;
  /** Another view of who is the primary than the cluster's. */
  believes: ClusterNode | undefined;
  readonly #applied = new Map<string, Position>();

  constructor(cluster: Cluster, name: string) {
    this.cluster = cluster;
    this.name = name;
    this.catchUp();
  }

  catchUp(): void {
    for (const db of this.cluster.dbs) this.#applied.set(db, this.cluster.head(db));
    this.cluster.emit("progress");
  }

  reign(): number | undefined {
    const { cluster } = this;
    return cluster.primary === this && !cluster.leaseOver ? cluster.reigns : undefined;
  }

  primary(): PrimaryNode | undefined {
    const { cluster } = this;
    const primary = this.believes ?? cluster.primary;
    return primary === undefined || primary === this || cluster.leaseOver
      ? undefined
      : { name: primary.name, proxy: primary.proxy };
  }

  onChange(listener: () => void): () => void {
    this.cluster.on("change", listener);
    return () => this.cluster.off("change", listener);
  }

  positions(): readonly DatabasePosition[] {
    this.captures++;
    return this.cluster.dbs.map((db) => ({ db, position: this.#applied.get(db)! }));
  }

  created(): undefined {
    return undefined;
  }

  waitApplied(db: string, wanted: Position, signal: AbortSignal): Promise<Applied> {
    const [epoch, seq] = [Number(wanted >> 32n), Number(wanted & 0xffffffffn)];
    const { cluster } = this;
    if (!cluster.dbs.includes(db) || epoch > cluster.epoch) return Promise.resolve("unknown");
    const end = cluster.ends.get(`${db} ${epoch}`);
    if (end !== undefined && seq > end) return Promise.resolve("lost");
    return this.#until(signal, () => (this.#applied.get(db)! >= wanted ? "reached" : undefined));
  }

  async waitDurable(db: string, wanted: Position, level: Exclude<Durability, "local">, signal: AbortSignal) {
    const epoch = Number(wanted >> 32n);
    await this.#until(signal, () => {
      const end = this.cluster.ends.get(`${db} ${epoch}`);
      if (end !== undefined && Number(wanted & 0xffffffffn) > end) throw new Error("the epoch ended before it");
      return wanted === 0n || end !== undefined || this.cluster.durableAt.has(level) ? true : undefined;
    });
  }

  lagMs(): number | undefined {
    return this.lag;
  }

  trouble(): string | undefined {
    return this.problem;
  }

  #until<T>(signal: AbortSignal, look: () => T | undefined): Promise<T> {
    return new Promise((resolve, reject) => {
      const { cluster } = this;
      const end = (): void => {
        cluster.off("progress", again);
        cluster.off("change", again);
        signal.removeEventListener("abort", aborted);
      };
      const aborted = (): void => {
        end();
        reject(signal.reason as Error);
      };
      const again = (): void => {
        try {
          const value = look();
          if (value === undefined) return;
          end();
          resolve(value);
        } catch (error) {
          end();
          reject(error);
        }
      };
      if (signal.aborted) return aborted();
      signal.addEventListener("abort", aborted);
      cluster.on("progress", again);
      cluster.on("change", again);
      again();
    });
  }
}

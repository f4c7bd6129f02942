import { setTimeout as sleep } from "node:timers/promises";
import type { Node } from "../cluster/node.ts";
import type { ProtectedDatabase } from "../cluster/protected-database.ts";
import { SluiceError } from "../errors/error.ts";
import { epochOf, type Position } from "../ltx/position.ts";
import type { Applied, DatabasePosition, NodeView, PrimaryNode } from "../proxy/node-view.ts";

/** How often a position is looked for that no event tells of. */
const LOOK_MS = 5;
/** How long an answer waits at most for a position that it doesn't need. */
const ASK_LIMIT_MS = 1_000;

/** What the front door knows of the node. `proxyPort`: of the primary's front door, where the lease says nothing of it. */
export class ServedNode implements NodeView {
  readonly name: string;
  readonly #node: Node;
  readonly #proxyPort: number;

  constructor(node: Node, name: string, proxyPort: number) {
    this.#node = node;
    this.name = name;
    this.#proxyPort = proxyPort;
  }

  reign(): number | undefined {
    return this.#node.answering;
  }

  primary(): PrimaryNode | undefined {
    const { primary } = this.#node;
    if (primary === undefined || primary.isSelf) return undefined;
    return { name: primary.name, proxy: new URL(primary.proxy ?? this.#guess(primary.advertise)) };
  }

  #guess(advertise: string): string {
    const url = new URL(advertise);
    return `http://${url.hostname}:${this.#proxyPort}`;
  }

  onChange(listener: () => void): () => void {
    this.#node.on("role", listener);
    return () => void this.#node.off("role", listener);
  }

  positions(): readonly DatabasePosition[] | Promise<readonly DatabasePosition[]> {
    const { databases } = this.#node;
    if (databases.some(({ isAway }) => isAway)) return Promise.all(databases.map(ask)).then((found) => found.flat());
    return databases.flatMap((database) => {
      const position = database.captureNow();
      return position === undefined ? [] : [{ db: database.name, position }];
    });
  }

  created(known: readonly DatabasePosition[]): Promise<readonly DatabasePosition[]> | undefined {
    return this.#node.hasDirectories ? this.#discover(known) : undefined;
  }

  async #discover(known: readonly DatabasePosition[]): Promise<readonly DatabasePosition[]> {
    await this.#node.discover();
    const names = new Set(known.map(({ db }) => db));
    return (await this.positions()).filter(({ db }) => !names.has(db));
  }

  async waitApplied(db: string, position: Position, signal: AbortSignal): Promise<Applied> {
    const database = this.#find(db);
    if (database === undefined) return "unknown";
    for (;;) {
      const judged = await this.#judge(database, position, signal);
      if (judged !== undefined) return judged;
      await sleep(LOOK_MS, undefined, { signal });
    }
  }

  /** Undefined while it isn't here yet, and may come. */
  async #judge(database: ProtectedDatabase, position: Position, signal: AbortSignal): Promise<Applied | undefined> {
    const here = (): Position | undefined => database.database?.captureNow() ?? database.replica?.position;
    const now = database.isAway ? await database.positionNow(signal) : here();
    if (now === undefined) return undefined;
    if (epochOf(position) === epochOf(now)) return position <= now ? "reached" : this.#beyond(database, position);
    // A later epoch than this node's: on a primary, somebody else's, or nobody's.
    if (position > now) return this.#beyond(database, position);
    const end = await database.ends.of(epochOf(position), signal);
    if (end === undefined) return "unknown";
    return position <= end ? "reached" : "lost";
  }

  /**
   * A position that this node has not: a replica waits for it, and so does who is about to lead, while it places what the
   * log has. A primary never gave it out; what an epoch before its own gave out has left the history. (Until its first
   * commit a primary's position is that of the epoch before.)
   */
  #beyond({ replica, writer }: ProtectedDatabase, position: Position): Applied | undefined {
    if (this.#node.reign === undefined || replica !== undefined) return undefined;
    return epochOf(position) < (writer?.epoch ?? 0) ? "lost" : "unknown";
  }

  async waitDurable(db: string, position: Position, level: "replica" | "store", signal: AbortSignal): Promise<void> {
    const database = this.#find(db);
    if (database === undefined) throw new SluiceError("SLU-1003", `${db} is not a database of this node`);
    await database.waitDurable(position, level, signal);
  }

  lagMs(): number | undefined {
    return this.#node.lagMs;
  }

  trouble(): string | undefined {
    const bad = this.#node.databases.find(
      ({ state }) => !["protected", "following", "waiting", "taking-over", "passing", "succeeded"].includes(state),
    );
    // Which one is nobody's business who can ask the front door.
    return bad && `a database is ${bad.state}`;
  }

  #find(db: string): ProtectedDatabase | undefined {
    return this.#node.databases.find(({ name }) => name === db);
  }
}

/** Where another Sluice on this host has the database, that one knows; while it doesn't answer, nobody does. */
async function ask(database: ProtectedDatabase): Promise<readonly DatabasePosition[]> {
  const { isAway, name: db } = database;
  const asked = isAway ? database.positionNow(AbortSignal.timeout(ASK_LIMIT_MS)).catch(() => undefined) : undefined;
  const position = (await asked) ?? database.captureNow();
  return position === undefined ? [] : [{ db, position }];
}

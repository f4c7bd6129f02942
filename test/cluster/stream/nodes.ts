import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { newLife, type NodeIdentity } from "../../../src/cluster/stream/identity.ts";
import { StreamClient, type StreamClientOptions } from "../../../src/cluster/stream/client.ts";
import { holdsSince, type PublishedDatabase, type PublishedDatabases } from "../../../src/cluster/stream/published.ts";
import { StreamServer, type StreamServerOptions } from "../../../src/cluster/stream/server.ts";
import { serverTls, type TlsFiles } from "../../../src/cluster/stream/tls.ts";
import { Database } from "../../../src/database/database.ts";
import { Replica } from "../../../src/database/replica.ts";
import type { CommitFeed, RecordName } from "../../../src/database/replication.ts";
import type { DatabaseOptions } from "../../../src/database/starting.ts";
import type { SluiceError } from "../../../src/errors/error.ts";
import type { Position } from "../../../src/ltx/position.ts";
import type { Attachment } from "../../../src/cluster/upstream.ts";

const HEARTBEAT_MS = 200;

/** A directory that `remove` takes away with everything that was opened in it. */
export class Place {
  readonly dir = mkdtempSync(path.join(tmpdir(), "sluice-stream-"));
  readonly #closing: (() => unknown)[] = [];

  /** Closed last to first. */
  closing(close: () => unknown): void {
    this.#closing.push(close);
  }

  async remove(): Promise<void> {
    for (const close of this.#closing.toReversed()) await close();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export function identity(name: string, more: Partial<NodeIdentity> = {}): NodeIdentity {
  return {
    clusterId: "cluster",
    nodeId: `id-${name}`,
    life: newLife(),
    name,
    advertise: "",
    version: "test",
    ...more,
  };
}

/** A real database on a primary, whose batches are confirmed at once, without a store. */
export class LeadDatabase implements PublishedDatabase {
  readonly name: string;
  readonly database: Database;
  readonly app: Sqlite.Database;
  readonly #listeners = new Set<() => void>();
  #takenOverAt: Position = 0n;
  durable: Position = 0n;
  feed!: CommitFeed;
  epoch = 0;
  #isClosed = false;
  #work: Promise<void> = Promise.resolve();

  /** Creates the database where there is none, and takes over. */
  static async open(file: string, name: string, options: DatabaseOptions = {}): Promise<LeadDatabase> {
    mkdirSync(path.dirname(file), { recursive: true });
    const app = new Sqlite(file);
    app.pragma("journal_mode = wal");
    app.pragma("busy_timeout = 20000");
    app.exec("create table if not exists t (k integer primary key, v blob)");
    const database = await Database.open(file, { ...options, gate: "closed" });
    const lead = new LeadDatabase(name, database, app);
    await lead.#takeOver();
    lead.feed = database.feed();
    database.openGate();
    return lead;
  }

  private constructor(name: string, database: Database, app: Sqlite.Database) {
    this.name = name;
    this.database = database;
    this.app = app;
    database.onFrozen = () => void this.#confirmAll();
  }

  async #takeOver(): Promise<void> {
    const { database } = this;
    if (database.logState === undefined) await database.bindLog({ logId: `log-${this.name}`, nodeId: "node" });
    await this.#confirmAll();
    const txid = database.logState!.confirmed.txid + 1;
    await database.freezeTakeover({ txid, writer: BigInt(txid), minTimestampMs: 0 });
    await this.#confirmAll();
    await database.begin(txid, BigInt(txid));
    this.epoch = txid;
    this.#takenOverAt = database.logState!.confirmed.position;
  }

  #confirmAll(): Promise<void> {
    return (this.#work = this.#work.then(() => (this.#isClosed ? undefined : this.#confirm())));
  }

  async #confirm(): Promise<void> {
    for (let batch = this.database.frozen[0]; batch !== undefined; batch = this.database.frozen[0]) {
      await this.database.confirm(batch.txid);
      for (const listener of this.#listeners) listener();
    }
  }

  /** Seals and confirms what is committed. */
  async seal(): Promise<void> {
    await this.database.freeze();
    await this.#work;
  }

  get logId(): string {
    return this.database.logState!.logId;
  }

  get pageSize(): number {
    return this.database.pageSize;
  }

  get pageCount(): number {
    return this.database.pageCount;
  }

  get record(): RecordName | undefined {
    const confirmed = this.database.logState?.confirmed;
    return confirmed && { ...confirmed, epoch: this.epoch };
  }

  resyncSource() {
    return this.database.resyncSource();
  }

  onSealed(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  holds(position: Position): boolean {
    return holdsSince(this.#takenOverAt, this.feed.position, position);
  }

  /** Commits one row of `bytes` random bytes. */
  write(bytes = 100, count = 1): void {
    const insert = this.app.prepare("insert into t (v) values (randomblob(?))");
    for (let i = 0; i < count; i++) insert.run(bytes);
  }

  async close(): Promise<void> {
    await this.#work;
    this.#isClosed = true;
    this.app.close();
    await this.database.close();
  }
}

/** The databases of a primary. */
export class Published implements PublishedDatabases {
  readonly #databases = new Map<string, PublishedDatabase>();
  readonly #listeners = new Set<() => void>();

  constructor(...databases: PublishedDatabase[]) {
    for (const database of databases) this.#databases.set(database.name, database);
  }

  add(database: PublishedDatabase): void {
    this.#databases.set(database.name, database);
    for (const listener of this.#listeners) listener();
  }

  remove(name: string): void {
    this.#databases.delete(name);
    for (const listener of this.#listeners) listener();
  }

  list(): Iterable<PublishedDatabase> {
    return this.#databases.values();
  }

  get(name: string): PublishedDatabase | undefined {
    return this.#databases.get(name);
  }

  onChanged(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }
}

/** A primary's stream on a port of its own. */
export class Lead {
  readonly server: StreamServer;
  readonly published: Published;
  readonly http: Server;
  readonly url: string;
  readonly sockets = new Set<Socket>();

  static async open(
    place: Place,
    databases: PublishedDatabase[],
    options: Partial<StreamServerOptions> & { readonly tls?: TlsFiles } = {},
  ): Promise<Lead> {
    const http = options.tls === undefined ? createServer() : createTlsServer(serverTls(options.tls));
    http.listen(0, "127.0.0.1");
    await once(http, "listening");
    const lead = new Lead(http, new Published(...databases), options);
    place.closing(() => lead.close());
    return lead;
  }

  private constructor(http: Server, published: Published, options: Partial<StreamServerOptions> & { tls?: TlsFiles }) {
    const own = identity("lead");
    this.http = http;
    this.published = published;
    this.server = new StreamServer({
      identity: () => own,
      secret: undefined,
      role: () => ({ isPrimary: true, primary: undefined }),
      heartbeatMs: HEARTBEAT_MS,
      ...options,
      databases: published,
    });
    http.on("connection", (socket: Socket) => this.sockets.add(socket));
    http.on("upgrade", this.server.handleUpgrade);
    this.url = `http${options.tls === undefined ? "" : "s"}://localhost:${(http.address() as AddressInfo).port}`;
  }

  close(): void {
    this.server.close();
    this.http.close();
    for (const socket of this.sockets) socket.destroy();
  }
}

/** A replica node: a client and its databases, first copied from the primary. */
export class Follower {
  readonly name: string;
  readonly client: StreamClient;
  readonly dir: string;
  readonly problems: SluiceError[] = [];
  readonly replicas = new Map<string, { replica: Replica; attachment: Attachment }>();

  constructor(place: Place, name: string, options: Partial<StreamClientOptions> = {}) {
    const own = identity(name);
    this.name = name;
    this.dir = path.join(place.dir, name);
    this.client = new StreamClient({
      identity: () => own,
      secret: undefined,
      isCandidate: true,
      heartbeatMs: HEARTBEAT_MS,
      onProblem: (error) => void this.problems.push(error),
      ...options,
    });
    place.closing(() => this.close());
  }

  path(name: string): string {
    return path.join(this.dir, name);
  }

  /** Copies a database and follows it. */
  async start(name: string): Promise<Replica> {
    const seeded = await this.client.seed(name, this.path(name), AbortSignal.timeout(20_000));
    if (!seeded) throw new Error(`no copy of ${name}: ${this.problems.map(({ message }) => message).join("; ")}`);
    return this.open(name);
  }

  /** Opens a database that is there, and follows. */
  async open(name: string): Promise<Replica> {
    const replica = await Replica.open(this.path(name));
    this.replicas.set(name, { replica, attachment: this.client.attach(name, replica) });
    return replica;
  }

  /** Closes a database. */
  async leave(name: string): Promise<void> {
    const one = this.replicas.get(name);
    this.replicas.delete(name);
    await one?.attachment.detach();
    await one?.replica.close();
  }

  read(name: string, sql: string): unknown {
    const reader = new Sqlite(this.path(name), { readonly: true });
    try {
      return reader.prepare(sql).pluck().get();
    } finally {
      reader.close();
    }
  }

  async close(): Promise<void> {
    for (const name of this.replicas.keys()) await this.leave(name);
    await this.client.close();
  }
}

/** The databases of a primary, created in `place`. */
export async function leadDatabases(place: Place, ...names: string[]): Promise<LeadDatabase[]> {
  const all: LeadDatabase[] = [];
  for (const name of names) {
    const one = await LeadDatabase.open(path.join(place.dir, "lead", name), name);
    place.closing(() => one.close());
    all.push(one);
  }
  return all;
}

/** Waits until it's true. */
export async function until(what: string, is: () => boolean, limitMs = 20_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!is()) {
    if (performance.now() > end) throw new Error(`not in time: ${what}`);
    await sleep(5);
  }
}

/** Waits until a replica has everything that is committed at the primary. */
export async function caughtUp(lead: LeadDatabase, replica: Replica): Promise<void> {
  const position = lead.database.captureNow();
  await until(`${lead.name} at ${position.toString(16)}`, () => (replica.position ?? 0n) >= position);
}

import { EventEmitter } from "node:events";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DbConfig, DirectoryDb } from "../config/config.ts";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { bootMs } from "../lease/boot-clock.ts";
import { LeaseKeeper } from "../lease/keeper.ts";
import { WorkSlots } from "../log/work-slots.ts";
import type { Position } from "../ltx/position.ts";
import { requireDatabase } from "../database/inspect.ts";
import { logFailure } from "../observe/failure.ts";
import type { ObjectStore } from "../store/store.ts";
import { Cluster } from "./cluster.ts";
import { DatabaseDirectory } from "./directory.ts";
import { isDatabasePath } from "./database-names.ts";
import { databasesIn } from "./discover.ts";
import { observe, updateClusterGauges, updateGauges } from "./observe.ts";
import { NodeFiles } from "./node-files.ts";
import type { NodeCluster, NodeOptions } from "./node-options.ts";
import type { ConnectedReplica, Peers } from "./peers.ts";
import { PrimaryFiles } from "./primary-files.ts";
import type { ClusterOptions } from "./database-options.ts";
import { ProtectedDatabase } from "./protected-database.ts";
import { isThere, quarantineFile } from "./restore-missing.ts";
import { type RoleNode, Roles, type RoleState } from "./roles.ts";
import type { NodeEvent, NodeRole, NodeStatus, PrimaryRecord } from "./status.ts";
import { Stores } from "./stores.ts";
import { VERSION } from "../observe/version.ts";

interface Events {
  event: [NodeEvent];
  /** A database came under this node's care, or left it. */
  databases: [];
  /** The role, or who is the primary, changed. */
  role: [];
}

/** A directory whose databases come and go with the primary's. */
interface FollowedDirectory {
  readonly db: DirectoryDb;
  readonly protect: (relative: string) => Promise<void>;
  readonly forget: (relative: string) => void;
}

/** The path in a directory that a database of this name has in the cluster; undefined for names that don't belong there. */
function relativeIn(db: DirectoryDb, name: string): string | undefined {
  const folder = `${path.basename(db.dir)}/`;
  const relative = name.startsWith(folder) ? name.slice(folder.length) : "";
  return isDatabasePath(relative, db) ? relative : undefined;
}

/** Compactions and snapshots that run at once in one process. */
const HEAVY_JOBS = 1;
/** Databases of a directory that are opened at the same time. */
const OPEN_AT_ONCE = 8;
/** A replica that is no further behind can be handed over to. */
const CLOSE_LAG_MS = 5_000;
/** How long, in times of the lease's ttl, a start waits for somebody to be primary. */
const SETTLE_TTLS = 2;
/** What goes wrong with the lease is told once in a while, not at each of its requests. */
const TROUBLE_EVERY_MS = 10_000;
const SETTLE_POLL_MS = 20;

/**
 * All databases of one process, each with its log. Without other nodes it is always the primary; with them, `Roles` says
 * what it is.
 *
 *     new ─ start ─► running ─ stop ─► stopped
 *             └ rejected: some database can't be protected; `stop` lets go of the others
 */
export class Node extends EventEmitter<Events> {
  readonly #options: NodeOptions;
  readonly #startedAtMs = Date.now();
  readonly #stores: Stores;
  readonly #slots = new WorkSlots(HEAVY_JOBS);
  readonly #databases = new Map<string, ProtectedDatabase>();
  readonly #directories: DatabaseDirectory[] = [];
  readonly #files = new Map<string, NodeFiles>();
  readonly #primaryFiles = new PrimaryFiles();
  readonly #followed: FollowedDirectory[] = [];
  readonly #fatal = new AbortController();
  readonly #probing = new AbortController();
  readonly #probes = new Set<Promise<void>>();
  /** Databases of directories that are on their way. */
  readonly #appearing = new Set<Promise<void>>();
  readonly #keeper: LeaseKeeper | undefined;
  readonly #peers: Peers | undefined;
  readonly #roles: Roles | undefined;
  /** Set by the front door: see `RoleNode.holdWrites`. */
  holdWrites: RoleNode["holdWrites"] = () => ({
    idle: Promise.resolve(),
    released: Promise.resolve(),
    resume: () => undefined,
  });
  #isForced = false;
  #stopping = false;

  constructor(options: NodeOptions) {
    super();
    this.#options = options;
    this.#stores = new Stores(options);
    const { cluster } = options;
    if (cluster !== undefined) {
      this.#keeper = this.#makeKeeper(cluster);
      this.#peers = cluster.peers(this);
      this.#roles = this.#makeRoles(cluster, this.#keeper, this.#peers);
    }
    options.metrics.onCollect = () => {
      updateGauges(options.metrics, this.#databases.values());
      if (cluster !== undefined) updateClusterGauges(options.metrics.cluster, this.status);
    };
  }

  /** Aborted with the error that this node can't go on after: another writer has the log of its only database. */
  get fatal(): AbortSignal {
    return this.#fatal.signal;
  }

  /** Resolves when an application may start. Rejects with the first error that keeps a configured database from it. */
  async start(stopping?: AbortSignal): Promise<void> {
    stopping?.addEventListener("abort", () => (this.#stopping = true), { once: true });
    const { dbs } = this.#options.config;
    this.#keeper?.start();
    this.#roles?.start();
    await Promise.all(dbs.map((db) => (db.kind === "file" ? this.#startFile(db) : this.#startDirectory(db))));
    await this.#roleSettled(stopping);
  }

  /** Until this node leads, or another does: what the application does first may depend on the role. */
  async #roleSettled(stopping: AbortSignal | undefined): Promise<void> {
    const { cluster } = this.#options;
    if (cluster === undefined) return;
    const late = AbortSignal.timeout(SETTLE_TTLS * cluster.ttlMs);
    const signal = stopping === undefined ? late : AbortSignal.any([late, stopping]);
    while (this.role !== "primary" && !signal.aborted) {
      const holder = this.#keeper?.holder;
      if (holder !== undefined && !holder.isSelf && holder.lapsesAtMs > bootMs()) return;
      await sleep(SETTLE_POLL_MS);
    }
  }

  /** Drains all databases within the configured time; a sentence for each whose last commits are not in the store. */
  async stop(): Promise<readonly string[]> {
    this.#stopping = true;
    this.#probing.abort();
    await this.#roles?.stop();
    for (const directory of this.#directories) await directory.stop();
    const drain = AbortSignal.timeout(this.#options.config.shutdownSyncTimeoutMs);
    const missing = await Promise.all([...this.#databases.values()].map((database) => database.stop(drain)));
    await Promise.all([...this.#files.values()].map((files) => files.close()));
    // A probe that is broken off still removes what it has written.
    await Promise.all(this.#probes);
    if (this.#keeper?.isHeld() === true) await this.#keeper.release();
    await this.#keeper?.close();
    await this.#peers?.close();
    await this.#stores.close();
    return missing.filter((sentence) => sentence !== undefined);
  }

  get databases(): readonly ProtectedDatabase[] {
    return [...this.#databases.values()];
  }

  /** Paths of all databases, also of those that are waited for. */
  get paths(): readonly string[] {
    return [...this.#databases.keys()];
  }

  get role(): NodeRole {
    return this.#roles === undefined || this.#roles.state === "leading" ? "primary" : "replica";
  }

  /** A number for the present time as primary, while this node may answer as such; each has another. */
  get reign(): number | undefined {
    return this.#roles === undefined ? 1 : this.#roles.reign;
  }

  /** The same, also while this node hands over: answers of writes from before may still go out. */
  get answering(): number | undefined {
    return this.#roles === undefined ? 1 : this.#roles.answering;
  }

  /**
   * The node that is the primary, as the lease says; undefined for nobody, for one that said nothing of itself that can be
   * believed (`SignedRegister`), and for a node without others.
   */
  get primary(): PrimaryRecord | undefined {
    const holder = this.#keeper?.holder;
    if (holder === undefined) return undefined;
    const { nodeId, nodeName: name, advertise, proxy } = holder.record;
    if (advertise === "" && !holder.isSelf) return undefined;
    return { nodeId, name, advertise, proxy, isSelf: holder.isSelf };
  }

  /** Whether this node may be the primary: by `lease.candidate`, and because the lease passes from node to node. */
  get canLead(): boolean {
    const { cluster } = this.#options;
    return cluster === undefined || (cluster.candidate && cluster.register.expires);
  }

  /** How far this node's databases are behind the primary's; 0 on a primary, undefined when unknown. */
  get lagMs(): number | undefined {
    return this.role === "primary" ? 0 : this.#peers?.lagMs;
  }

  /** Shared by all nodes: the id of the first database's log; empty until this node knows it. */
  get clusterId(): string {
    const [first] = this.#databases.values();
    return (first?.database ?? first?.replica)?.logState?.logId ?? "";
  }

  get #clusterStatus(): Pick<NodeStatus, "nodeId" | "state" | "primary" | "lagMs" | "replicas" | "lease"> {
    const [cluster, roles, keeper] = [this.#options.cluster, this.#roles, this.#keeper];
    if (cluster === undefined || roles === undefined || keeper === undefined) return {};
    const { holder } = keeper;
    return {
      nodeId: cluster.nodeId,
      state: roles.state,
      primary: this.primary,
      lagMs: this.lagMs,
      replicas: this.replicas,
      lease: {
        place: cluster.register.place,
        isHeld: keeper.isHeld(),
        generation: holder?.record.generation,
        lapsesInMs: holder && Math.max(0, holder.lapsesAtMs - bootMs()),
      },
    };
  }

  /** The replicas that are connected to this node, where it's the primary. */
  get replicas(): readonly ConnectedReplica[] {
    return this.#peers?.replicas ?? [];
  }

  /** Hands over to the node `name`, or to the best one (protocol section 10). Throws SLU-8101, 8103 to 8105. */
  async handOver(name?: string): Promise<void> {
    if (this.#roles === undefined) throw new SluiceError("SLU-8104", "this node has no others");
    await this.#roles.handOver(name);
  }

  /**
   * A stop was asked for: hands over to another node, while applications still run. Resolves when that is done, or can't
   * be; never rejects.
   */
  async leave(): Promise<void> {
    if (this.#roles?.state === "leading") await this.#roles.handOver().catch(() => undefined);
  }

  /**
   * Takes over although the members that must agree are gone (`promote --force`): what was acknowledged at `replica`, and
   * no one here has, is lost. The word counts until this node leads.
   */
  force(): void {
    this.#isForced = true;
    this.#keeper?.look();
  }

  get isForced(): boolean {
    return this.#isForced;
  }

  /** The lease says that this node is to take it: it is looked at now. */
  lookAtLease(): void {
    this.#keeper?.look();
  }

  /** A higher epoch was seen than this node's: it has been deposed. */
  deposed(reason: Error): void {
    this.#roles?.deposed(reason);
  }

  get status(): NodeStatus {
    return {
      version: VERSION,
      node: this.#options.config.node.name,
      role: this.role,
      pid: process.pid,
      startedAt: new Date(this.#startedAtMs).toISOString(),
      ...this.#clusterStatus,
      databases: this.databases.map(({ status }) => status),
    };
  }

  /** Whether databases come and go in directories. */
  get hasDirectories(): boolean {
    return this.#directories.length > 0;
  }

  /** Resolves when databases that are new in directories are under this node's care. Rejects when a directory can't be read. */
  async discover(): Promise<void> {
    for (const directory of this.#directories) await directory.look();
    await Promise.all(this.#appearing);
  }

  /** Waits until what is committed to `db` now is durable; see `ProtectedDatabase.sync`. Throws SLU-1003. */
  async sync(db: string, wait: "local" | "replica" | "store", signal: AbortSignal): Promise<Position> {
    const database = this.#databases.get(path.resolve(db));
    if (database === undefined) throw new SluiceError("SLU-1003", `${db} is not a database of this process`);
    return database.sync(wait, signal);
  }

  /** Where the primary passes from node to node by itself, a store that lets two of them write is refused: SLU-3004. */
  async #storeOf(db: DbConfig): Promise<ObjectStore> {
    const store = await this.#stores.get(db.store);
    if (this.#mustBeFenced) await this.#stores.assertFenced(store);
    return store;
  }

  get #mustBeFenced(): boolean {
    return this.#options.cluster?.register.expires === true;
  }

  /** Once the store has answered: what it couldn't say at the start. */
  async #probe(store: ObjectStore): Promise<void> {
    const problem = await this.#stores.warnIfUnfenced(store, this.#probing.signal);
    if (problem !== undefined && this.#mustBeFenced) this.#fatal.abort(problem);
  }

  async #startFile(db: DbConfig & { readonly kind: "file" }): Promise<void> {
    await this.#protect(db.path, db, await this.#storeOf(db), "");
  }

  async #startDirectory(db: DirectoryDb): Promise<void> {
    const { log } = this.#options;
    const store = await this.#storeOf(db);
    const opening = new WorkSlots(OPEN_AT_ONCE);
    const started = new Set<string>();
    const protect = (relative: string): Promise<void> => {
      if (started.has(relative)) return Promise.resolve();
      started.add(relative);
      const file = path.join(db.dir, relative);
      return opening.run(this.#fatal.signal, () => this.#protect(file, db, store, relative));
    };
    const first: Promise<void>[] = [];
    let scanning = true;
    // One database that can't be protected must not keep the others down; it's failed in status, health and metrics.
    const alone = (relative: string): Promise<void> =>
      protect(relative).catch((error: unknown) => {
        if (scanning && (isSluiceError(error, "SLU-6004") || isSluiceError(error, "SLU-6012"))) throw error;
        log.error({ db: path.join(db.dir, relative) }, `not protected: ${String(error)}`);
      });
    if (this.#restores(db)) {
      const known = await databasesIn(store, db);
      // What isn't on this disk must be there before an application starts; it would create it empty.
      const bring = async (relative: string): Promise<void> => {
        if (isThere(path.join(db.dir, relative))) return alone(relative);
        await protect(relative).catch(async (error: unknown) => {
          // `sluice forget`: it stays away.
          if (!isSluiceError(error, "SLU-4106")) throw error;
          started.delete(relative);
          await this.#forget(path.join(db.dir, relative));
        });
      };
      await Promise.all(known.map(bring));
    }
    const directory = new DatabaseDirectory({
      dir: db.dir,
      pattern: db.pattern,
      recursive: db.recursive,
      onAppeared: (relative) => {
        const ready = alone(relative);
        this.#appearing.add(ready);
        const over = (): void => void this.#appearing.delete(ready);
        ready.then(over, over);
        if (scanning) first.push(ready);
      },
      onGone: (relative) => {
        // A replica's file comes back by itself: only the primary ends a database.
        if (this.role === "replica") return;
        started.delete(relative);
        void this.#forget(path.join(db.dir, relative));
      },
      onUnusable: (relative) => {
        try {
          requireDatabase(path.join(db.dir, relative));
        } catch (error) {
          logFailure(log.child({ db: path.join(db.dir, relative) }), error);
        }
      },
      onError: (error) => log.warn({ err: error, dir: db.dir }, "the directory can't be searched"),
    });
    this.#directories.push(directory);
    this.#followed.push({ db, protect: alone, forget: (relative) => void started.delete(relative) });
    await directory.start();
    scanning = false;
    await Promise.all(first);
  }

  /** Brings a replica's database to the end of its log. Rejects when the log can't do that, or isn't in reach. */
  async placeRecords(name: string, signal: AbortSignal): Promise<void> {
    const database = this.databases.find((one) => one.name === name);
    if (database === undefined) throw new SluiceError("SLU-1003", `${name} is not a database of this node`);
    await database.placeRecords(signal);
  }

  /** The primary has a database of this name: a directory that holds it brings it here. */
  appeared(name: string): void {
    for (const { db, protect } of this.#followed) {
      const relative = relativeIn(db, name);
      if (relative !== undefined) void protect(relative);
    }
  }

  /** The primary has no database of this name any more: the copy here goes to the quarantine. */
  async vanished(name: string): Promise<void> {
    for (const { db, forget } of this.#followed) {
      const relative = relativeIn(db, name);
      const file = relative === undefined ? undefined : path.join(db.dir, relative);
      if (relative === undefined || file === undefined || !this.#databases.has(file)) continue;
      forget(relative);
      await this.#forget(file);
      if (!isThere(file)) continue;
      const where = quarantineFile(file);
      this.#options.log.warn(
        { db: file, where },
        "the primary has deleted this database; its copy is in the quarantine",
      );
    }
  }

  #restores(db: DbConfig): boolean {
    return this.#options.restoreMissing || db.restoreIfMissing;
  }

  async #protect(file: string, db: DbConfig, store: ObjectStore, prefix: string): Promise<void> {
    const { config, adopt = false, acceptRollback = false, log, metrics } = this.#options;
    if (this.#stopping || this.#databases.has(file)) return;
    const cluster = this.#clusterOptions(db.storeOnly);
    const database = new ProtectedDatabase({
      path: file,
      ...(cluster && { cluster }),
      name: prefix === "" ? path.basename(file) : `${path.basename((db as DirectoryDb).dir)}/${prefix}`,
      store,
      prefix,
      syncIntervalMs: db.syncIntervalMs,
      levels: config.levels,
      snapshotIntervalMs: config.snapshotIntervalMs,
      retention: { l0RetentionMs: config.l0RetentionMs, snapshotRetentionMs: config.snapshotRetentionMs },
      slots: this.#slots,
      restoreMissing: this.#restores(db),
      adopt,
      acceptRollback,
      succession: this.#options.succession,
    });
    this.#databases.set(file, database);
    observe(database, { log, metrics, emit: (event) => this.emit("event", event) });
    this.#keepFiles(database);
    database.on("state", (state) => {
      this.#peers?.changed();
      if (state === "protected" && this.#roles?.reign !== undefined) database.openGate();
      if (state === "protected") this.#probes.add(this.#probe(store));
    });
    database.on("deposed", (error) => this.deposed(error));
    database.on("refused", (error) => {
      if (db.kind === "file") this.#fatal.abort(error);
    });
    this.emit("databases");
    await database.start();
  }

  /** The files beside it that applications made for LiteFS read. */
  #keepFiles(database: ProtectedDatabase): void {
    const { log } = this.#options;
    const { path: db } = database;
    const files = new NodeFiles(db, {
      primaries: this.#primaryFiles,
      onProblem: (error) => log.warn({ db, err: error }, "the files for applications can't be written"),
    });
    this.#files.set(db, files);
    database.on("applied", (position) => files.position(position, database.replica?.checksum ?? 0n));
    database.on("captured", (position) => {
      if (database.feed !== undefined) files.position(position, database.feed.checksum);
    });
    database.on("log", ({ type }) => {
      const sealed = database.database?.sealed;
      // A lone node knows the checksum of what it has sealed.
      if (type === "appended" && database.feed === undefined && sealed)
        files.position(sealed.position, sealed.checksum);
    });
    database.on("state", () => this.#tellRole(database, files));
  }

  #tellRole(database: ProtectedDatabase, files: NodeFiles): void {
    const { feed, replica, state } = database;
    const { primary } = this;
    files.primary(state === "following" && primary !== undefined && !primary.isSelf ? primary.name : undefined);
    if (feed !== undefined) files.position(feed.position, feed.checksum);
    else if (replica?.position !== undefined) files.position(replica.position, replica.checksum);
  }

  #clusterOptions(storeOnly: boolean): ClusterOptions | undefined {
    const { cluster } = this.#options;
    if (cluster === undefined || this.#peers === undefined) return undefined;
    const { hold, release, memberLagMs } = cluster;
    const isForced = (): boolean => this.#isForced;
    const leads = this.#roles?.state === "leading" || this.#roles?.state === "taking-over";
    return {
      role: leads ? "primary" : "replica",
      upstream: this.#peers,
      storeOnly,
      hold,
      release,
      memberLagMs,
      isForced,
    };
  }

  #makeKeeper({ nodeId, advertise, proxy, register, ttlMs }: NodeCluster): LeaseKeeper {
    const { config, log } = this.#options;
    let toldMs = Number.NEGATIVE_INFINITY;
    return new LeaseKeeper({
      register,
      node: { id: nodeId, name: config.node.name, advertise, ...(proxy !== undefined && { proxy }) },
      ttlMs,
      isOnlyLife: true,
      events: {
        lost: (reason) => this.#roles?.deposed(new SluiceError("SLU-8103", `the lease ended: ${reason}`)),
        changed: () => this.#roleChanged(),
        trouble: (error) => {
          const nowMs = performance.now();
          if (nowMs - toldMs < TROUBLE_EVERY_MS) return;
          toldMs = nowMs;
          log.warn({ err: error }, "the lease can't be read or written");
        },
      },
    });
  }

  #makeRoles(cluster: NodeCluster, keeper: LeaseKeeper, peers: Peers): Roles {
    const { log, metrics } = this.#options;
    const onProblem = (error: unknown): void => {
      const fields = isSluiceError(error) ? { code: error.code, hint: error.hint } : { err: error };
      log.warn(fields, error instanceof Error ? error.message : String(error));
    };
    const node = new Cluster({
      keeper,
      peers,
      databases: () => this.#databases.values(),
      closeLagMs: CLOSE_LAG_MS,
      onProblem,
      holdWrites: () => this.holdWrites(),
      onStuck: ({ path: db, pid }) => {
        log.error({ code: "SLU-8107", db, pid }, "a transaction does not end; its process is killed");
        metrics.errors.inc({ db, code: "SLU-8107" });
        if (pid > 0) process.kill(pid, "SIGKILL");
      },
    });
    return new Roles({
      keeper,
      node,
      candidate: cluster.candidate,
      takeoverTimeoutMs: cluster.takeoverTimeoutMs,
      handoffTimeoutMs: cluster.handoffTimeoutMs,
      marginMs: Math.min(2_000, cluster.ttlMs / 5) / 2,
      onState: (state) => this.#roleState(state),
      onProblem,
    });
  }

  #roleState(state: RoleState): void {
    this.#options.log.info({ state }, "role");
    if (state === "leading") this.#isForced = false;
    this.#options.metrics.cluster.roleChanges.inc({ state });
    this.emit("event", { type: "role", role: this.role, state });
    this.#roleChanged();
  }

  #roleChanged(): void {
    const leads = this.#roles?.state === "leading" || this.#roles?.state === "taking-over";
    for (const database of this.#databases.values()) this.#tellRole(database, this.#files.get(database.path)!);
    this.#peers?.changed();
    const { primary } = this;
    this.#peers?.follow(leads || primary === undefined || primary.isSelf ? undefined : primary.advertise);
    this.emit("role");
  }

  /** Its file is gone from the directory: what was captured of it is still sent. */
  async #forget(file: string): Promise<void> {
    const database = this.#databases.get(file);
    if (database === undefined) return;
    this.#databases.delete(file);
    this.#peers?.changed();
    const missing = await database.stop(AbortSignal.timeout(this.#options.config.shutdownSyncTimeoutMs));
    if (missing !== undefined) this.#options.log.warn({ db: file }, missing);
    await this.#files.get(file)?.close();
    this.#files.delete(file);
    this.#options.metrics.forget(file);
    this.emit("databases");
  }
}

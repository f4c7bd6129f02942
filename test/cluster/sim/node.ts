import { Cluster } from "../../../src/cluster/cluster.ts";
import type { Engine } from "../../../src/cluster/engine.ts";
import { ProtectedDatabase } from "../../../src/cluster/protected-database.ts";
import { Roles, type RoleState } from "../../../src/cluster/roles.ts";
import type { PrimaryRecord } from "../../../src/cluster/status.ts";
import { StreamPeers } from "../../../src/cluster/stream-peers.ts";
import { SluiceError } from "../../../src/errors/error.ts";
import { LeaseKeeper } from "../../../src/lease/keeper.ts";
import { StoreLease } from "../../../src/lease/store-lease.ts";
import { WorkSlots } from "../../../src/log/work-slots.ts";
import type { ObjectStore } from "../../../src/store/store.ts";
import type { LifeClock, Random } from "../../log/sim/clock.ts";
import { inPlace } from "../../log/sim/ltx.ts";
import { SimEngine, type Surroundings } from "./engine.ts";
import type { Machine } from "./machine.ts";
import type { SimNetwork } from "./network.ts";

export const TTL_MS = 5_000;
const HEARTBEAT_MS = 1_000;
const MEMBER_LAG_MS = 300;
const TAKEOVER_TIMEOUT_MS = 20_000;
const HANDOFF_TIMEOUT_MS = 5_000;

export interface NodeParts {
  /** Of this life: the machine's name and a number. */
  readonly name: string;
  readonly machine: Machine;
  readonly clock: LifeClock;
  readonly random: Random;
  readonly store: ObjectStore;
  readonly network: SimNetwork;
  readonly onNamed: Surroundings["onNamed"];
  readonly onLeft: Surroundings["onLeft"];
  readonly onState: (state: RoleState) => void;
  readonly onProblem: (error: unknown) => void;
  readonly isForced: () => boolean;
  readonly onRefused: (error: unknown) => void;
}

/** One life of Sluice on a machine: what `Node` puts together, on simulated surroundings. */
export class SimNode {
  readonly name: string;
  readonly machine: Machine;
  readonly clock: LifeClock;
  readonly keeper: LeaseKeeper;
  readonly roles: Roles;
  readonly database: ProtectedDatabase;
  readonly peers: StreamPeers;
  engine: SimEngine | undefined;

  constructor(parts: NodeParts) {
    const { name, machine, clock, random, store, network, onProblem } = parts;
    this.name = name;
    this.machine = machine;
    this.clock = clock;
    this.keeper = new LeaseKeeper({
      register: new StoreLease(store),
      node: { id: machine.name, name: machine.name, advertise: `http://${machine.name}` },
      ttlMs: TTL_MS,
      clock,
      random: () => random.next(),
      isOnlyLife: true,
      events: {
        lost: (reason) => this.roles.deposed(new SluiceError("SLU-8103", `the lease ended: ${reason}`)),
        changed: () => this.#roleChanged(),
      },
    });
    this.peers = new StreamPeers({
      node: this,
      nodeId: machine.name,
      name: machine.name,
      advertise: `http://${machine.name}`,
      noteDir: machine.dir,
      secret: undefined,
      tls: undefined,
      isCandidate: true,
      heartbeatMs: HEARTBEAT_MS,
      onProblem,
      clock,
      random: () => random.next(),
      connect: (url) => network.connect({ machine: machine.name, clock }, url.hostname),
    });
    network.listen({ machine: machine.name, clock, accept: (socket) => this.peers.server.accept(socket) });
    this.roles = new Roles({
      keeper: this.keeper,
      node: new Cluster({
        keeper: this.keeper,
        peers: this.peers,
        databases: () => [this.database],
        closeLagMs: 5_000,
        onStuck: () => machine.killApplication(),
        onProblem,
        holdWrites: () => ({ idle: Promise.resolve(), released: Promise.resolve(), resume: () => undefined }),
        clock,
      }),
      candidate: true,
      takeoverTimeoutMs: TAKEOVER_TIMEOUT_MS,
      handoffTimeoutMs: HANDOFF_TIMEOUT_MS,
      marginMs: TTL_MS / 10,
      onState: (state) => {
        parts.onState(state);
        this.#roleChanged();
      },
      onProblem,
      clock,
    });
    this.database = new ProtectedDatabase({
      path: machine.file,
      name: "app.db",
      store,
      prefix: "",
      syncIntervalMs: 1_000,
      levels: [{ intervalMs: 10_000 }],
      snapshotIntervalMs: 60_000,
      retention: { l0RetentionMs: 20_000, snapshotRetentionMs: 60_000 },
      slots: new WorkSlots(1),
      restoreMissing: true,
      adopt: false,
      acceptRollback: false,
      clock,
      random: () => random.next(),
      ltx: inPlace,
      engine: (options) => {
        this.engine = new SimEngine({ machine, clock, random, onNamed: parts.onNamed, onLeft: parts.onLeft }, options);
        return this.engine as unknown as Engine;
      },
      cluster: {
        role: "replica",
        upstream: this.peers,
        storeOnly: false,
        hold: () => Promise.resolve(),
        release: () => undefined,
        memberLagMs: MEMBER_LAG_MS,
        isForced: parts.isForced,
      },
    });
    this.database.on("state", (state) => {
      this.peers.changed();
      if (state === "protected" && this.roles.reign !== undefined) this.database.openGate();
    });
    this.database.on("deposed", (error) => this.roles.deposed(error));
    this.database.on("refused", parts.onRefused);
    this.database.on("failed", onProblem);
  }

  get databases(): readonly ProtectedDatabase[] {
    return [this.database];
  }

  get reign(): number | undefined {
    return this.roles.reign;
  }

  get primary(): PrimaryRecord | undefined {
    const { holder } = this.keeper;
    if (holder === undefined) return undefined;
    const { nodeId, nodeName: name, advertise, proxy } = holder.record;
    return { nodeId, name, advertise, proxy, isSelf: holder.isSelf };
  }

  get clusterId(): string {
    return (this.database.database ?? this.database.replica)?.logState?.logId ?? "";
  }

  deposed(reason: Error): void {
    this.roles.deposed(reason);
  }

  lookAtLease(): void {
    this.keeper.look();
  }

  placeRecords(_name: string, signal: AbortSignal): Promise<void> {
    return this.database.placeRecords(signal);
  }

  /** Databases neither come nor go here. */
  readonly appeared = (): void => undefined;
  readonly vanished = (): Promise<void> => Promise.resolve();

  start(): void {
    this.keeper.start();
    this.roles.start();
    this.database.start().catch(() => undefined);
  }

  /** It runs, and can be asked. */
  get isAwake(): boolean {
    return this.clock.isAlive && !this.clock.isPaused;
  }

  #roleChanged(): void {
    const leads = this.roles.state === "leading" || this.roles.state === "taking-over";
    const { holder } = this.keeper;
    this.peers.changed();
    this.peers.follow(leads || holder === undefined || holder.isSelf ? undefined : holder.record.advertise);
  }
}

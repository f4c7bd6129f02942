import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { isSluiceError } from "../../../src/errors/error.ts";
import { logContext, type LogEvent } from "../../../src/log/context.ts";
import { LogWriter } from "../../../src/log/log-writer.ts";
import { WorkSlots } from "../../../src/log/work-slots.ts";
import type { ObjectStore } from "../../../src/store/store.ts";
import { LifeClock, Random, VirtualClock } from "./clock.ts";
import { cloneDisk, newDisk, PAGE_SIZE, SimDatabase, type SimDisk } from "./database.ts";
import { History } from "./history.ts";
import { inPlace, type Pages } from "./ltx.ts";
import { SimBucket, type Faults } from "./store.ts";

/** Breaks one rule of the protocol on purpose, by what it puts between the log and its surroundings. */
export interface Variant {
  /** Called once for each life. */
  readonly store?: (store: ObjectStore, bucket: SimBucket, database: SimDatabase) => ObjectStore;
  readonly drawWriter?: () => bigint;
  /** Whether the damage itself has to be found, not the missing fence that leads to it. */
  readonly withoutFences?: boolean;
}

export interface WorldOptions {
  readonly seed: number;
  readonly faults: Faults;
  /** Copies of the first machine may be started beside it. */
  readonly twins: boolean;
  readonly variant?: Variant;
}

/** One run of Sluice on a machine. */
interface Life {
  readonly name: string;
  readonly clock: LifeClock;
  readonly database: SimDatabase;
  readonly abort: AbortController;
  writer: LogWriter | undefined;
  isOver: boolean;
}

interface Machine {
  readonly name: string;
  readonly disk: SimDisk;
  life: Life | undefined;
  lives: number;
}

const RETENTION = { l0RetentionMs: 60_000, snapshotRetentionMs: 10 * 60_000 };
const LEVELS = [{ intervalMs: 10_000 }, { intervalMs: 60_000 }];
const SNAPSHOT_INTERVAL_MS = 5 * 60_000;

/** Machines that write one log in a bucket, with everything that may happen to them; the same for the same seed. */
export class World {
  readonly clock = new VirtualClock();
  readonly random: Random;
  readonly bucket: SimBucket;
  readonly history: History;
  readonly events: LogEvent[] = [];
  /** What went wrong in a callback; rethrown by `run`. */
  failure: unknown;
  confirmations = 0;
  refusals = 0;
  readonly #options: WorldOptions;
  readonly #dir = mkdtempSync(path.join(tmpdir(), "sluice-sim-"));
  readonly #machines: Machine[] = [];
  readonly #slots = new WorkSlots(2);
  #commits = 0;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.random = new Random(options.seed);
    this.bucket = new SimBucket(this.clock, this.random, options.faults);
    this.history = new History(this.bucket);
    this.#machines.push(this.#machine(newDisk(path.join(this.#dir, "a"))));
  }

  dispose(): void {
    for (const machine of this.#machines) this.#kill(machine);
    rmSync(this.#dir, { recursive: true, force: true });
  }

  /** Lets `steps` things happen, then heals everything, and checks what is left. */
  async run(steps: number): Promise<void> {
    this.#start(this.#machines[0]!);
    for (let step = 0; step < steps; step++) {
      this.#act();
      await this.clock.advance(this.random.below(this.random.chance(0.1) ? 20_000 : 400));
      this.#check();
      if (step % 10 === 0) this.history.checkRestorable();
    }
    this.bucket.faults = { ...this.bucket.faults, lostAnswer: 0, lostRequest: 0, late: 0, twice: 0, read: 0 };
    for (const machine of this.#machines) machine.life?.clock.resume();
    await this.clock.advance(15 * 60_000);
    this.#check();
    this.history.checkRestorable();
    if (this.#options.variant?.withoutFences !== true) this.history.checkFences();
  }

  #check(): void {
    if (this.failure !== undefined) throw this.failure;
    this.history.records();
  }

  #act(): void {
    const { random } = this;
    const machine = this.#machines[random.below(this.#machines.length)]!;
    const dice = random.next();
    if (dice < 0.5) this.#commit(machine);
    else if (dice < 0.7) this.#wait(machine);
    else if (dice < 0.74) this.#kill(machine);
    else if (dice < 0.9) this.#start(machine);
    else if (dice < 0.94) machine.life?.clock.pause();
    else if (dice < 0.97) machine.life?.clock.resume();
    else if (dice < 0.985) machine.life?.database.giveUpSnapshots();
    else if (this.#options.twins && this.#machines.length < 3) this.#twin(machine);
  }

  #machine(disk: SimDisk): Machine {
    return { name: path.basename(disk.dir), disk, life: undefined, lives: 0 };
  }

  #twin(machine: Machine): void {
    const name = `${machine.name}${this.#machines.length}`;
    const twin = this.#machine(cloneDisk(machine.disk, path.join(this.#dir, name)));
    this.#machines.push(twin);
    this.#start(twin);
  }

  /** The application replaces one or two pages, or adds one; the content is the number of the commit. */
  #commit(machine: Machine): void {
    const database = machine.life?.database;
    if (database?.isOpen !== true) return;
    const count = machine.disk.pages.size;
    const pages: Pages = new Map();
    const pgno = 1 + this.random.below(count < 12 ? count + 1 : count);
    for (const target of pgno > count ? [1, count + 1] : [1, pgno]) {
      const page = new Uint8Array(PAGE_SIZE);
      new DataView(page.buffer).setUint32(0, ++this.#commits);
      pages.set(target, page);
    }
    // A page that is not captured yet is no page of the disk: growth waits until then.
    if (pgno > count && machine.disk.wal.length > 0) return;
    database.commit(pages);
    if (this.random.chance(0.8)) database.captureNow();
  }

  #wait(machine: Machine): void {
    const { life } = machine;
    if (life?.writer === undefined || life.isOver) return;
    const position = life.database.captureNow();
    const told = (): void => {
      this.confirmations++;
      this.#attempt(() => this.history.checkConfirmed(position, life.name));
    };
    life.writer.waitFor(position).then(told, () => undefined);
  }

  #kill(machine: Machine): void {
    machine.life?.clock.kill();
    machine.life = undefined;
  }

  #start(machine: Machine): void {
    if (machine.life !== undefined) return;
    const { variant } = this.#options;
    const name = `${machine.name}/${++machine.lives}`;
    const clock = new LifeClock(this.clock);
    const named = (position: bigint, pages: Pages): void => this.#attempt(() => this.history.named(position, pages));
    const database = new SimDatabase(machine.disk, clock, this.random, named);
    const client = this.bucket.client(name, clock);
    const store = variant?.store?.(client, this.bucket, database) ?? client;
    const context = logContext(store, {
      clock,
      random: () => this.random.next(),
      onEvent: (event) => void this.events.push(event),
    });
    const life: Life = { name, clock, database, abort: new AbortController(), writer: undefined, isOver: false };
    machine.life = life;
    const drawWriter = variant?.drawWriter ?? ((): bigint => this.random.u64());
    LogWriter.open(
      {
        context,
        database,
        nodeId: machine.name,
        ltx: inPlace,
        slots: this.#slots,
        levels: LEVELS,
        snapshotIntervalMs: SNAPSHOT_INTERVAL_MS,
        retention: RETENTION,
        drawWriter,
        onEnded: (error) => this.#over(machine, life, error),
      },
      life.abort.signal,
    ).then(
      (writer) => void (life.writer = writer),
      (error: unknown) => this.#over(machine, life, error),
    );
  }

  /** This life may not write any more: only right when there are other machines. */
  #over(machine: Machine, life: Life, error: unknown): void {
    life.isOver = true;
    this.refusals++;
    const isRefusal = isSluiceError(error, "SLU-4101") || isSluiceError(error, "SLU-4104");
    if (!isRefusal || this.#machines.length === 1) this.failure ??= error;
    if (machine.life === life) this.#kill(machine);
  }

  #attempt(run: () => void): void {
    try {
      run();
    } catch (error) {
      this.failure ??= error;
    }
  }
}

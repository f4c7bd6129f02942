import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { SluiceError } from "../../../src/errors/error.ts";
import { logContext, type LogContext, type LogEvent } from "../../../src/log/context.ts";
import { LogWriter, type LogWriterOptions } from "../../../src/log/log-writer.ts";
import { WorkSlots } from "../../../src/log/work-slots.ts";
import { LifeClock, Random, VirtualClock } from "./clock.ts";
import { cloneDisk, newDisk, PAGE_SIZE, SimDatabase, type SimDisk } from "./database.ts";
import { History } from "./history.ts";
import { inPlace } from "./ltx.ts";
import { SimBucket } from "./store.ts";

/** Nothing is left to chance: requests and disks answer at once, in turn. */
class NoChance extends Random {
  override next(): number {
    return 0;
  }
}

/** One Sluice at one database. */
export interface Run {
  readonly name: string;
  readonly clock: LifeClock;
  readonly database: SimDatabase;
  readonly context: LogContext;
  readonly events: LogEvent[];
  /** Set when the log was taken over. */
  writer: LogWriter | undefined;
  /** Set when it was refused, or ended later. */
  error: SluiceError | undefined;
}

/** A bucket, a clock and some machines, for tests that say exactly what happens when. */
export class Site {
  readonly clock = new VirtualClock();
  readonly bucket = new SimBucket(this.clock, new NoChance(1));
  readonly history = new History(this.bucket);
  readonly dir = mkdtempSync(path.join(tmpdir(), "sluice-site-"));
  readonly #random = new Random(7);
  readonly #noChance = new NoChance(1);
  #commits = 0;

  constructor() {
    this.bucket.faults = { ...this.bucket.faults, latencyMs: 0 };
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true });
  }

  disk(name: string): SimDisk {
    return newDisk(path.join(this.dir, name));
  }

  clone(disk: SimDisk, name: string): SimDisk {
    return cloneDisk(disk, path.join(this.dir, name));
  }

  /** Starts Sluice and lets it get as far as it does in 100 ms. */
  async start(disk: SimDisk, options: Partial<LogWriterOptions> = {}): Promise<Run> {
    const run = this.begin(disk, options);
    await this.clock.advance(100);
    return run;
  }

  /** Starts Sluice; nothing has happened yet when this returns. */
  begin(disk: SimDisk, options: Partial<LogWriterOptions> & { readonly prefix?: string } = {}): Run {
    const name = path.basename(disk.dir);
    const clock = new LifeClock(this.clock);
    const isMain = options.prefix === undefined;
    const named = (position: bigint, pages: Map<number, Uint8Array>): void => {
      if (isMain) this.history.named(position, pages);
    };
    const database = new SimDatabase(disk, clock, this.#noChance, named);
    const events: LogEvent[] = [];
    const context = logContext(this.bucket.client(name, clock), {
      clock,
      prefix: options.prefix ?? "",
      random: () => 0.5,
      onEvent: (event) => void events.push(event),
    });
    const run: Run = { name, clock, database, context, events, writer: undefined, error: undefined };
    LogWriter.open(
      {
        context,
        database,
        nodeId: name,
        ltx: inPlace,
        slots: new WorkSlots(2),
        drawWriter: () => this.#random.u64(),
        onEnded: (error) => void (run.error = error),
        ...options,
      },
      new AbortController().signal,
    ).then(
      (writer) => void (run.writer = writer),
      (error: unknown) => void (run.error = error as SluiceError),
    );
    return run;
  }

  /** One commit, captured. */
  commit(run: Run): bigint {
    const page = new Uint8Array(PAGE_SIZE);
    new DataView(page.buffer).setUint32(0, ++this.#commits);
    run.database.commit(new Map([[1 + (this.#commits % run.database.disk.pages.size), page]]));
    return run.database.captureNow();
  }

  /** One commit each second, and time for each to get into the log. */
  async write(run: Run, commits: number): Promise<void> {
    for (let i = 0; i < commits; i++) {
      this.commit(run);
      await this.clock.advance(1_100);
    }
  }

  /** How a promise ends within `ms`: its value, its error, or "pending". */
  async outcome<T>(promise: Promise<T>, ms = 100): Promise<unknown> {
    let outcome: unknown = "pending";
    promise.then(
      (value) => (outcome = value),
      (error: unknown) => (outcome = error),
    );
    await this.clock.advance(ms);
    return outcome;
  }

  keys(prefix = "ltx/"): string[] {
    return [...this.bucket.objects.keys()].filter((key) => key.startsWith(prefix)).sort();
  }
}

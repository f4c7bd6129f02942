import { type FSWatcher, watch } from "node:fs";
import { pollClock } from "./poll-clock.ts";

/** What a look at the database found. */
export type Activity =
  /** Commits were captured and there is more to read: look again in the next turn. */
  | "more"
  /** Commits were captured, up to the end. */
  | "moved"
  /** Nothing new, but a writer holds the WRITE lock. */
  | "writing"
  /** The wal-index header is torn and could not be repaired yet: look again soon, for as long as it takes. */
  | "torn"
  /** Nothing new, nobody writes. */
  | "still";

/** Milliseconds to the next look, by the number of looks in a row that found nothing new. */
const LADDER_MS: readonly [number, ...number[]] = [1, 2, 4, 8, 16, 20];
const FALLBACK_MS = 20;
/** Looks after which a writer that only holds its lock is left to the slow poll and to its next write. */
const PATIENCE = 24;
/** Looks in a row with something new after which the watch is closed, and their distance from then on. */
const BUSY_AFTER = 8;
const BUSY_MS = 2;
/** Looks in a row with nothing new after which a busy database gets its watch back. */
const CALM_AFTER = 12;

/**
 * Finds the moment to look for new commits (protocol section 3, "Wake-up").
 *
 * - **quiet**: the watch on the WAL is armed and no timer runs. The slow poll looks about four times a second. A file
 *   event, or a look that found something, leads to *looking*.
 * - **looking**: with `synchronous=FULL` the header moves after an fsync and without an event, so look again after
 *   1, 2, 4 … 20 ms until nothing is new and nobody writes. Then *quiet*; or *busy* when look after look finds commits.
 * - **busy**: the watch is closed, since an event for every write costs more than a look every 2 ms. When nothing was
 *   new for a while the watch is armed again: *looking*.
 * - **closed**: by `close`, for good.
 *
 * Where no watch can be had (a limit of the system), a look every 20 ms takes its place, visible in `isWatching`.
 */
export class WakeUp {
  readonly #walPath: string;
  readonly #look: (isPoll: boolean) => Activity;
  readonly #check: (all: boolean) => void;
  readonly #leave: () => void;
  #watcher: FSWatcher | undefined;
  #fallback: NodeJS.Timeout | undefined;
  #timer: NodeJS.Timeout | undefined;
  #immediate: NodeJS.Immediate | undefined;
  #lookedAtMs = 0;
  #idleLooks = 0;
  #hits = 0;
  #busy = false;
  #closed = false;

  /**
   * Neither function may throw. `check` runs before each look of the slow poll, and when the WAL was moved or deleted: are
   * the files still the ones that were opened? `all`: each of them; else it may look at one after the other.
   */
  constructor(walPath: string, look: (isPoll: boolean) => Activity, check: (all: boolean) => void) {
    this.#walPath = walPath;
    this.#look = look;
    this.#check = check;
    this.#arm();
    this.#leave = pollClock.join(() => this.#poll());
  }

  /** False where the system gave no file watch and Sluice polls instead. */
  get isWatching(): boolean {
    return this.#watcher !== undefined || this.#busy;
  }

  /** Look after look finds commits: writers leave no pause. */
  get isBusy(): boolean {
    return this.#busy;
  }

  /** Looks now, as after a file event. */
  wake(): void {
    if (this.#closed) return;
    this.#idleLooks = 0;
    this.#run();
  }

  close(): void {
    this.#closed = true;
    this.#leave();
    this.#disarm();
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
  }

  #arm(): void {
    if (this.#watcher !== undefined || this.#fallback !== undefined) return;
    try {
      const watcher = watch(this.#walPath, (event) => {
        if (event === "rename") this.#check(true);
        if (this.#closed) return;
        this.#idleLooks = 0;
        // A look this short a while ago is followed by another one soon enough; a later step of the ladder is not.
        const isRecent = performance.now() - this.#lookedAtMs < LADDER_MS[0] && this.#timer !== undefined;
        if (!isRecent && this.#immediate === undefined) this.#run();
      });
      watcher.on("error", () => this.#disarm());
      this.#watcher = watcher;
    } catch {
      this.#fallback = setInterval(() => {
        if (this.#timer === undefined && this.#immediate === undefined) this.#run();
      }, FALLBACK_MS);
    }
  }

  #disarm(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    clearInterval(this.#fallback);
    this.#fallback = undefined;
  }

  #poll(): void {
    this.#check(pollClock.isCalm);
    if (this.#closed) return;
    if (!this.#busy) this.#arm();
    if (this.#timer === undefined && this.#immediate === undefined) this.#run(true);
  }

  #run(isPoll = false): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#lookedAtMs = performance.now();
    const activity = this.#look(isPoll);
    if (this.#closed) return;
    if (activity === "more") {
      this.#immediate ??= setImmediate(() => {
        this.#immediate = undefined;
        this.#run();
      });
      return;
    }
    if (activity === "moved") this.#hit();
    else this.#miss(activity);
  }

  #hit(): void {
    this.#idleLooks = 0;
    if (!this.#busy && ++this.#hits >= BUSY_AFTER) {
      this.#busy = true;
      this.#disarm();
    }
    this.#again(this.#busy ? BUSY_MS : LADDER_MS[0]);
  }

  #miss(activity: Activity): void {
    this.#hits = 0;
    this.#idleLooks++;
    if (this.#busy) {
      if (this.#idleLooks < CALM_AFTER) return this.#again(BUSY_MS);
      this.#busy = false;
      this.#arm();
    }
    const most = activity === "torn" ? Infinity : activity === "writing" ? PATIENCE : LADDER_MS.length;
    if (this.#idleLooks <= most) this.#again(LADDER_MS[Math.min(this.#idleLooks, LADDER_MS.length) - 1] ?? FALLBACK_MS);
  }

  #again(ms: number): void {
    this.#timer = setTimeout(() => this.#run(), ms);
  }
}

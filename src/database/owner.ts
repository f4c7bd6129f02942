import type { SluiceError } from "../errors/error.ts";
import { NOTHING } from "../ltx/position.ts";
import type { Batches } from "./batches.ts";
import type { DatabaseEvent } from "./events.ts";
import type { FrameList } from "./frame-list.ts";
import type { Repair } from "./header-repair.ts";
import type { WalOwner } from "./live-wal.ts";
import type { OpenBatch } from "./open-batch.ts";
import type { WorkQueue } from "./work-queue.ts";

/** What the WAL asks for and tells: the open batch gets the commits from the first frame on, the rest when all is there. */
export class Owner implements WalOwner {
  readonly #open: OpenBatch;
  readonly #queue: WorkQueue;
  readonly #onEvent: (event: DatabaseEvent) => void;
  #onStartCommit: ((last: number, size: number) => void) | undefined;
  #batches: Batches | undefined;
  #onMoved: () => void = () => undefined;

  constructor(
    open: OpenBatch,
    queue: WorkQueue,
    onEvent: (event: DatabaseEvent) => void,
    onStartCommit: (last: number, size: number) => void,
  ) {
    this.#open = open;
    this.#queue = queue;
    this.#onEvent = onEvent;
    this.#onStartCommit = onStartCommit;
  }

  live(batches: Batches, onMoved: () => void): void {
    this.#onStartCommit = undefined;
    this.#batches = batches;
    this.#onMoved = onMoved;
  }

  commit(frames: FrameList, first: number, last: number, before: number, after: number): void {
    this.#open.commit(frames, first, last, before, after);
    this.#onStartCommit?.(last, after);
    this.#batches?.named();
  }

  moved(): void {
    this.#onMoved();
  }

  get canSeal(): boolean {
    return this.#batches?.canSeal ?? false;
  }

  get unsent(): number {
    return this.#batches?.unsent ?? 0;
  }

  get canSealNow(): boolean {
    return this.canSeal && (this.#batches?.hasRoom ?? false);
  }

  async seal(): Promise<void> {
    await this.#batches?.freeze();
  }

  sealNow(): void {
    this.#batches?.freezeNow();
  }

  restarted(): void {
    this.#open.restarted();
    this.#onEvent({ type: "wal-restarted", position: this.#batches?.position ?? NOTHING });
  }

  queue<T>(work: () => Promise<T>): Promise<T> {
    return this.#queue.run(work);
  }

  alarm(on: boolean, frames: number): void {
    this.#onEvent({ type: "backlog", on, frames });
  }

  repaired(how: Repair): void {
    this.#onEvent({ type: "index-repaired", how });
  }

  healed(): void {
    this.#onEvent({ type: "frames-healed" });
  }

  failed(error: Error): void {
    this.#onEvent({ type: "failed", error });
  }

  lost(error: SluiceError): void {
    this.#onEvent({ type: "lost", error });
  }
}

import type { SluiceError } from "../errors/error.ts";
import type { Position } from "../ltx/position.ts";
import type { CommitSink } from "./capture.ts";
import type { DatabaseEvent } from "./events.ts";
import type { FrameList } from "./frame-list.ts";
import type { Repair } from "./header-repair.ts";
import type { WalOwner } from "./live-wal.ts";
import type { WorkQueue } from "./work-queue.ts";

/** Who names what is captured, and makes it durable: `Batches` on a primary, `Followed` on a replica. */
export interface Books extends CommitSink {
  readonly position: Position;
  /** Whether captured commits can be sealed now; while they can't, nothing is backfilled. */
  readonly canSeal: boolean;
  /** Whether that is also possible at once, for the short tail under the WRITE lock. */
  readonly canSealNow: boolean;
  /** Sealed batches that wait for the store. */
  readonly unsent: number;
  /** Says with `LiveWal.sealed` up to which frame everything is durable. */
  seal(): Promise<void>;
  sealNow(): void;
  /** The WAL has begun anew. */
  restarted(): void;
}

/**
 * What the WAL asks for and tells: what the start-up capture finds goes to `atStart`, everything later to the books of
 * the role that the node has.
 */
export class Owner implements WalOwner {
  readonly #queue: WorkQueue;
  readonly #onEvent: (event: DatabaseEvent) => void;
  #sink: CommitSink;
  #books: Books | undefined;
  #onMoved: () => void = () => undefined;

  constructor(queue: WorkQueue, onEvent: (event: DatabaseEvent) => void, atStart: CommitSink) {
    this.#queue = queue;
    this.#onEvent = onEvent;
    this.#sink = atStart;
  }

  live(books: Books, onMoved: () => void): void {
    this.#sink = books;
    this.#books = books;
    this.#onMoved = onMoved;
  }

  commit(frames: FrameList, first: number, last: number, before: number, after: number): void {
    this.#sink.commit(frames, first, last, before, after);
  }

  moved(): void {
    this.#onMoved();
  }

  get canSeal(): boolean {
    return this.#books?.canSeal ?? false;
  }

  get unsent(): number {
    return this.#books?.unsent ?? 0;
  }

  get canSealNow(): boolean {
    return this.#books?.canSealNow ?? false;
  }

  async seal(): Promise<void> {
    await this.#books?.seal();
  }

  sealNow(): void {
    this.#books?.sealNow();
  }

  restarted(): void {
    if (this.#books === undefined) return;
    this.#books.restarted();
    this.#onEvent({ type: "wal-restarted", position: this.#books.position });
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

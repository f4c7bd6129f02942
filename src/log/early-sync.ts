import { fdatasync } from "node:fs";
import { promisify } from "node:util";

/** Written bytes after which the disk is made to begin. */
const EVERY_BYTES = 64 * 1024 * 1024;

/**
 * Lets the disk work while a large file is still being written: left alone, Linux begins when gigabytes are dirty, and
 * the sync at the end waits for all of it. One sync is under way at a time.
 *
 * The kernel reports a failed write to one sync only, so what fails here is kept for `settle`; it's no replacement for
 * the sync at the end.
 */
export class EarlySync {
  readonly #sync: () => Promise<void>;
  #unsyncedBytes = 0;
  #running: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(fd: number, sync: () => Promise<void> = () => promisify(fdatasync)(fd)) {
    this.#sync = sync;
  }

  /** Told of bytes after they were written. */
  wrote(bytes: number): void {
    this.#unsyncedBytes += bytes;
    if (this.#unsyncedBytes < EVERY_BYTES || this.#running !== undefined) return;
    this.#unsyncedBytes = 0;
    this.#running = this.#sync()
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => (this.#running = undefined));
  }

  /** Resolves when nothing is under way: the descriptor may be closed. */
  async idle(): Promise<void> {
    await this.#running;
  }

  /** The same; rejects with what the system said when a sync failed. */
  async settle(): Promise<void> {
    await this.#running;
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}

import { randomUUID } from "node:crypto";
import { type FileHandle, open, unlink } from "node:fs/promises";
import path from "node:path";

export interface KeepLimits {
  /** Bytes of one body in memory; the rest goes to disk. */
  readonly memoryBytes: number;
  /** Bytes of one body on disk; 0: none. */
  readonly diskBytes: number;
  readonly dir: string;
}

/** Bytes of all kept bodies together: in memory, past which they go to disk at once, and on disk. */
export class KeepBudget {
  readonly #bytesMax: number;
  usedBytes = 0;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  take(bytes: number): boolean {
    if (this.usedBytes + bytes > this.#bytesMax) return false;
    this.usedBytes += bytes;
    return true;
  }

  give(bytes: number): void {
    this.usedBytes -= bytes;
  }
}

const READ_BYTES = 64 * 1024;

/**
 * The beginning of a request's body, for a replay: first in memory, then in a temporary file that has no name, so that
 * it is gone with the process whatever happens. `keeping` → (a limit, or the disk's refusal) → `incomplete`: what was
 * kept is dropped. `release` ends both.
 */
export class KeptBody {
  readonly #limits: KeepLimits;
  readonly #budget: KeepBudget;
  readonly #disk: KeepBudget;
  readonly #failed: (error: unknown) => void;
  #chunks: Buffer[] = [];
  #memoryBytes = 0;
  #file: FileHandle | undefined;
  #fileBytes = 0;
  /** Of the disk's budget: also what is being written. */
  #diskBytes = 0;
  #complete = true;
  #released = false;

  /** `failed` hears of a disk's refusal. */
  constructor(
    limits: KeepLimits,
    { memory, disk }: { readonly memory: KeepBudget; readonly disk: KeepBudget },
    failed: (error: unknown) => void,
  ) {
    this.#limits = limits;
    this.#budget = memory;
    this.#disk = disk;
    this.#failed = failed;
  }

  /** Whether all that was added is here. */
  get isComplete(): boolean {
    return this.#complete && !this.#released;
  }

  /** Keeps a chunk; a promise where it goes to disk, to be awaited before the next one. Never rejects. */
  add(chunk: Buffer): Promise<void> | undefined {
    if (!this.isComplete) return undefined;
    const { memoryBytes, diskBytes } = this.#limits;
    const inMemory = this.#file === undefined && this.#memoryBytes + chunk.length <= memoryBytes;
    if (inMemory && this.#budget.take(chunk.length)) {
      this.#memoryBytes += chunk.length;
      this.#chunks.push(chunk);
      return undefined;
    }
    if (this.#fileBytes + chunk.length <= diskBytes && this.#disk.take(chunk.length)) {
      this.#diskBytes += chunk.length;
      return this.#spill(chunk);
    }
    this.#drop();
    return undefined;
  }

  /** What was kept, from the beginning. */
  async *read(): AsyncGenerator<Buffer, void, undefined> {
    yield* this.#chunks;
    for (let at = 0; at < this.#fileBytes;) {
      const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, this.#fileBytes - at));
      const { bytesRead } = await this.#file!.read(buffer, 0, buffer.length, at);
      if (bytesRead === 0) throw new Error("the temporary file of a kept body is shorter than what was written to it");
      at += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.#drop();
  }

  async #spill(chunk: Buffer): Promise<void> {
    try {
      this.#file ??= await openNameless(this.#limits.dir);
      for (let at = 0; at < chunk.length;) {
        const { bytesWritten } = await this.#file.write(chunk, at, chunk.length - at, this.#fileBytes + at);
        at += bytesWritten;
      }
      this.#fileBytes += chunk.length;
    } catch (error) {
      this.#drop();
      this.#failed(error);
    }
    // Released in the meantime: the file was opened for nobody.
    if (this.#released) this.#drop();
  }

  #drop(): void {
    this.#complete = false;
    this.#budget.give(this.#memoryBytes);
    this.#memoryBytes = 0;
    this.#chunks = [];
    this.#fileBytes = 0;
    this.#disk.give(this.#diskBytes);
    this.#diskBytes = 0;
    const file = this.#file;
    this.#file = undefined;
    file?.close().catch(() => undefined);
  }
}

async function openNameless(dir: string): Promise<FileHandle> {
  const name = path.join(dir, `sluice-body-${randomUUID()}`);
  const file = await open(name, "wx+", 0o600);
  try {
    await unlink(name);
  } catch (error) {
    await file.close();
    throw error;
  }
  return file;
}

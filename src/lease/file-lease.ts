import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import path from "node:path";
import { isLockedByOther, tryLock } from "../sqlite/locks.ts";
import { DirectoryStore } from "../store/directory.ts";
import type { LeaseRecord, LeaseRegister, LeaseVersion, SwapOutcome } from "./lease.ts";
import { StoreLease } from "./store-lease.ts";

/** Ends the name of the file beside the record, which is never written, only locked, and never replaced. */
const LOCK_ENDING = ".lock";
const BOOT_ID = "/proc/sys/kernel/random/boot_id";

/**
 * A lease of type `file`: a record in a file that several processes of one machine share, and a lock that tells
 * at once when the owner's process is dead (fcntl(2), open-file-description locks). Each life of a node locks a byte of
 * its own, which the kernel lets go when the process ends, in whatever way.
 *
 * A process that is stopped keeps its lock, and a lock of another machine says nothing here (network file systems lose
 * them in a partition, while the owner lives): in both cases the record's ttl decides, as with every lease.
 */
export class FileLease implements LeaseRegister {
  readonly place: string;
  readonly expires = true;
  readonly #file: string;
  readonly #record: StoreLease;
  /** Of this boot of this machine; its containers have the same. */
  readonly #machine = readFileSync(BOOT_ID, "utf8").trim();
  #descriptor: number | undefined;
  #life: string | undefined;

  /** Its directory is made when the first record is written. */
  constructor(file: string) {
    this.#file = file;
    this.#record = new StoreLease(new DirectoryStore(path.dirname(file)), path.basename(file));
    this.place = this.#record.place;
  }

  async read(signal: AbortSignal): Promise<LeaseVersion | undefined> {
    const seen = await this.#record.read(signal);
    return seen && { ...seen, isFree: this.#isDead(seen.record) };
  }

  async swap(expected: string | undefined, next: LeaseRecord, signal: AbortSignal): Promise<SwapOutcome> {
    try {
      this.#lockOwn(next.life);
    } catch (cause) {
      return { outcome: "undecided", cause };
    }
    return this.#record.swap(expected, { ...next, machine: this.#machine }, signal);
  }

  async close(): Promise<void> {
    if (this.#descriptor !== undefined) closeSync(this.#descriptor);
    this.#descriptor = undefined;
    this.#life = undefined;
    await this.#record.close();
  }

  /** Before the record names this life: nobody may find it unlocked. */
  #lockOwn(life: string): void {
    if (this.#life === life) return;
    tryLock(this.#lockFile(), "exclusive", byteOf(life));
    this.#life = life;
  }

  #isDead({ machine, life }: LeaseRecord): boolean {
    if (machine !== this.#machine || life === this.#life) return false;
    return !isLockedByOther(this.#lockFile(), "exclusive", byteOf(life));
  }

  #lockFile(): number {
    if (this.#descriptor !== undefined) return this.#descriptor;
    mkdirSync(path.dirname(this.#file), { recursive: true });
    this.#descriptor = openSync(`${this.#file}${LOCK_ENDING}`, "a+", 0o644);
    return this.#descriptor;
  }
}

/** Locks may lie beyond a file's end. */
function byteOf(life: string): number {
  return createHash("sha256").update(life).digest().readUIntBE(0, 5);
}

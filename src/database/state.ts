import { closeSync, constants, fdatasync, fdatasyncSync, fsyncSync, openSync, readFileSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { SluiceError } from "../errors/error.ts";
import { Crc64 } from "../ltx/crc64.ts";
import { NOTHING, type Position } from "../ltx/position.ts";
import { VERSION } from "../observe/version.ts";
import type { WalPlace } from "./capture.ts";
import type { FrozenBatch, LogState } from "./contract.ts";
import { makeDirectory, syncDirectory } from "./directories.ts";
import { type FileMark, fileError } from "./files.ts";
import { readAt, writeAt } from "./io.ts";
import { sealedPath } from "./seal.ts";

/** What a node remembers of one database. Everything but `frozen` and `confirmed` speaks of the last sealed batch. */
export interface PersistedState {
  readonly logId: string;
  readonly nodeId: string;
  readonly confirmed: LogState["confirmed"];
  /** The slot after this one is the next to be sealed. */
  readonly sealedTxid: number;
  readonly sealedPosition: Position;
  readonly sealedTimestampMs: number;
  /** Bytes a page; 0 where it is not known. */
  readonly pageSize: number;
  /** Pages in the database, and its checksum. */
  readonly sealedSize: number;
  readonly sealedChecksum: bigint;
  /** Where in the WAL it ended; undefined when that generation is over. */
  readonly place: WalPlace | undefined;
  /** Commits after the last sealed one are named in this epoch. */
  readonly epoch: number;
  /** The writer of `epoch`; 0 for none. */
  readonly writer: bigint;
  readonly frozen: readonly FrozenBatch[];
  /** The slot of a takeover record in `frozen` that is not decided. */
  readonly takeover: number | undefined;
  /** The boot of the machine in which it was written (proc(5), random/boot_id). */
  readonly bootId: string;
  /** After a clean stop: identifies the database file, which then holds exactly the sealed state. */
  readonly clean: FileMark | undefined;
  /** Commits that a power loss took are being put back into the database: what is in it now does not count. */
  readonly puttingBack: boolean;
  /** It is a replica's: what is said of the last sealed batch means nothing, and `epoch` is the highest it has seen. */
  readonly following: boolean;
}

export const emptyState: PersistedState = {
  logId: "",
  nodeId: "",
  confirmed: { txid: 0, position: NOTHING, timestampMs: 0 },
  sealedTxid: 0,
  sealedPosition: NOTHING,
  sealedTimestampMs: 0,
  pageSize: 0,
  sealedSize: 0,
  sealedChecksum: 0n,
  place: undefined,
  epoch: 0,
  writer: 0n,
  frozen: [],
  takeover: undefined,
  bootId: "",
  clean: undefined,
  puttingBack: false,
  following: false,
};

/** Of the document. Raised with every change of what must be in it: no version guesses at what another one meant. */
export const STATE_FORMAT = 1;
/** One of the two places in the file; a state with all its frozen batches fits into it. */
const SLOT_BYTES = 16 * 1024;
const HEAD_BYTES = 24;
const FILE = "state";
/** Whose values are u64; they stand as "0x…" in the document. */
const U64_KEYS = new Set(["position", "sealedPosition", "checksum", "sealedChecksum", "writer"]);
const datasync = promisify(fdatasync);

/**
 * The file `state` in a database's state directory: two places of 16 KiB, each with a counter (u64), a length (u64), a
 * CRC-64 of both and of the document, and a JSON document, which also says its format and who wrote it. States are written to them in turn and the newest whole one
 * counts: a write that a kill, a power loss or a full disk breaks off leaves the state before it. One write and one
 * fdatasync are all that a seal costs.
 */
export class StateFile {
  readonly dir: string;
  readonly #fd: number;
  #counter = 0;
  #state: PersistedState | undefined;

  /** Creates the directory (mode 0700) and reads what is there. Throws SLU-2008 to SLU-2010, SLU-2014, SLU-2024. */
  constructor(dir: string) {
    this.dir = dir;
    try {
      makeDirectory(dir);
      this.#fd = openSync(path.join(dir, FILE), constants.O_RDWR | constants.O_CREAT, 0o600);
    } catch (error) {
      throw fileError(error, dir, "open the state");
    }
    const bytes = Buffer.alloc(2 * SLOT_BYTES);
    const length = readAt(this.#fd, bytes, bytes.length, 0);
    const newest = newestOf(bytes, dir);
    this.#counter = newest?.counter ?? 0;
    this.#state = newest?.state;
    if (newest !== undefined && newest.state === undefined) {
      closeSync(this.#fd);
      throw new SluiceError("SLU-2024", `${path.join(dir, FILE)} was written by ${newest.writtenBy}; this is ${THIS}`);
    }
    // The first state ever (it goes to the second place) can be broken off; from then on one of the two is whole.
    if (this.#state === undefined && (bytes.readBigUInt64BE(0) !== 0n || bytes.readBigUInt64BE(SLOT_BYTES) > 1n)) {
      closeSync(this.#fd);
      throw new SluiceError("SLU-2014", `${path.join(dir, FILE)} holds no whole state`);
    }
    if (length < bytes.length) this.#reserve(length);
  }

  /** Undefined for a database that has no state yet. */
  get state(): PersistedState | undefined {
    return this.#state;
  }

  /** Replaces the state; durable when it resolves. Not to be called again before that. */
  async write(state: PersistedState): Promise<void> {
    this.#put(state);
    try {
      await datasync(this.#fd);
    } catch (error) {
      throw fileError(error, this.dir, "sync the state");
    }
    this.#accept(state);
  }

  /** The same at once. */
  writeNow(state: PersistedState): void {
    this.#put(state);
    try {
      fdatasyncSync(this.#fd);
    } catch (error) {
      throw fileError(error, this.dir, "sync the state");
    }
    this.#accept(state);
  }

  close(): void {
    closeSync(this.#fd);
  }

  /** Gives the file its whole length, so that later writes need no room on the disk. */
  #reserve(from: number): void {
    try {
      const missing = 2 * SLOT_BYTES - from;
      writeAt(this.#fd, Buffer.alloc(missing), 0, missing, from);
      fsyncSync(this.#fd);
      syncDirectory(this.dir);
    } catch (error) {
      closeSync(this.#fd);
      throw fileError(error, this.dir, "write the state");
    }
  }

  #put(state: PersistedState): void {
    const slot = encodeSlot(this.#counter + 1, state);
    try {
      writeAt(this.#fd, slot, 0, slot.length, ((this.#counter + 1) % 2) * SLOT_BYTES);
    } catch (error) {
      throw fileError(error, this.dir, "write the state");
    }
  }

  #accept(state: PersistedState): void {
    this.#counter += 1;
    this.#state = state;
  }
}

/** What the state file says, without a change to it; undefined when there's none of this format. For other processes. */
export function peekState(dir: string): PersistedState | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path.join(dir, FILE));
  } catch {
    return undefined;
  }
  if (bytes.length < 2 * SLOT_BYTES) return undefined;
  return newestOf(bytes, dir)?.state;
}

interface Found {
  readonly counter: number;
  /** Undefined for a document of another format. */
  readonly state: PersistedState | undefined;
  readonly writtenBy: string;
}

function newestOf(bytes: Buffer, dir: string): Found | undefined {
  const slots = [0, 1].map((slot) => decodeSlot(bytes.subarray(slot * SLOT_BYTES, (slot + 1) * SLOT_BYTES), dir));
  return slots.filter((slot) => slot !== undefined).toSorted((a, b) => b.counter - a.counter)[0];
}

const THIS = named(VERSION, STATE_FORMAT);

function named(version: unknown, format: unknown): string {
  return `Sluice ${typeof version === "string" ? version : "of a development version"} (state format ${Number(format ?? 0)})`;
}

/** Without the paths of frozen batches: the directory may be moved, and long ones would not fit. */
function encodeSlot(counter: number, state: PersistedState): Buffer {
  const document = JSON.stringify({ format: STATE_FORMAT, version: VERSION, ...state }, (key, value: unknown) => {
    if (key === "path") return undefined;
    return typeof value === "bigint" ? `0x${value.toString(16)}` : value;
  });
  const json = Buffer.from(document);
  const slot = Buffer.alloc(HEAD_BYTES + json.length);
  if (slot.length > SLOT_BYTES) throw new SluiceError("SLU-2000", `a state of ${slot.length} bytes`);
  slot.writeBigUInt64BE(BigInt(counter), 0);
  slot.writeBigUInt64BE(BigInt(json.length), 8);
  json.copy(slot, HEAD_BYTES);
  slot.writeBigUInt64BE(crcOf(slot), 16);
  return slot;
}

function decodeSlot(slot: Buffer, dir: string): Found | undefined {
  const counter = Number(slot.readBigUInt64BE(0));
  const length = Number(slot.readBigUInt64BE(8));
  if (counter === 0 || length > SLOT_BYTES - HEAD_BYTES) return undefined;
  const whole = slot.subarray(0, HEAD_BYTES + length);
  if (crcOf(whole) !== whole.readBigUInt64BE(16)) return undefined;
  const { format, version, ...state } = JSON.parse(whole.toString("utf8", HEAD_BYTES), (key, value: unknown) =>
    typeof value === "string" && U64_KEYS.has(key) ? BigInt(value) : value,
  ) as PersistedState & { readonly format?: unknown; readonly version?: unknown };
  const writtenBy = named(version, format);
  if (format !== STATE_FORMAT) return { counter, state: undefined, writtenBy };
  const frozen = state.frozen.map((batch) => ({ ...batch, path: sealedPath(dir, batch.txid) }));
  return { counter, state: { ...state, frozen }, writtenBy };
}

/** Of everything in a slot but the checksum itself. */
function crcOf(slot: Buffer): bigint {
  return new Crc64().update(slot, 0, 16).update(slot, HEAD_BYTES).value();
}

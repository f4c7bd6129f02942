import { closeSync, fstatSync, openSync, readdirSync, statSync } from "node:fs";
import path from "node:path";
import { SluiceError } from "../errors/error.ts";
import { decodeHeader, HEADER_BYTES, type LtxHeader, PAGE_HEADER_BYTES, TRAILER_BYTES } from "../ltx/header.ts";
import { parseIndex } from "../ltx/page-index.ts";
import { NOTHING, type Position } from "../ltx/position.ts";
import { recordFields } from "../ltx/record.ts";
import { readAt } from "./io.ts";
import { quarantineDirOf } from "./quarantine.ts";
import { peekState } from "./state.ts";

/**
 * What is in a quarantine:
 *
 * - `pages`: the pages in which a state that was left differs from the history (`COMMON-MS.ltx`)
 * - `batches`: sealed commits of a database that was deleted before they were sent (`deleted-MS/`)
 * - `file`: a whole database, put there by `--adopt` (a directory named by its time)
 */
type QuarantineKind = "pages" | "batches" | "file";

/** One LTX file of an entry. */
interface QuarantinedFile {
  readonly path: string;
  readonly header: LtxHeader;
  /** Numbers of its pages, ascending. */
  readonly pages: Uint32Array;
  /** Of the state after it. */
  readonly position: Position;
  /** Of the state after it; 0 where it's not known. */
  readonly checksum: bigint;
}

export interface Quarantined {
  readonly id: string;
  readonly kind: QuarantineKind;
  readonly path: string;
  /** When it was put there, ms since 1970. */
  readonly atMs: number;
  readonly sizeBytes: number;
  /** The last position that the history had, too; undefined where it's not known. */
  readonly common: Position | undefined;
  /** The position of the state that was left; undefined where it had none. */
  readonly own: Position | undefined;
  /** To be laid over the state after slot `files[0].header.minTxid - 1`, in this order; none for a whole file. */
  readonly files: readonly QuarantinedFile[];
  /** Of a whole file. */
  readonly databaseFile: string | undefined;
  /** Why it can't be read. */
  readonly problem: string | undefined;
}

const PAGES = /^([0-9a-f]{16})-(\d+)\.ltx$/;
const DELETED = /^deleted-(\d+)$/;
const WHOLE = /^(\d{4}-\d\d-\d\dT\d\d)-(\d\d)-(\d\d\.\d{3}Z)$/;

/** What is in the quarantine of the database whose state is in `stateDir`, oldest first. Throws SLU-2009 or SLU-2010. */
export function quarantined(stateDir: string): Quarantined[] {
  const dir = quarantineDirOf(stateDir);
  return namesIn(dir)
    .flatMap((name) => entryOf(path.join(dir, name)) ?? [])
    .toSorted((a, b) => a.atMs - b.atMs);
}

/** How much there is. */
export interface QuarantineSize {
  readonly entries: number;
  readonly bytes: number;
}

/** Without a look into the files; what can't be looked at counts as nothing. */
export function quarantineSize(stateDir: string): QuarantineSize {
  const dir = quarantineDirOf(stateDir);
  let names: string[];
  try {
    names = namesIn(dir).filter((name) => PAGES.test(name) || DELETED.test(name) || WHOLE.test(name));
  } catch {
    names = [];
  }
  return { entries: names.length, bytes: names.reduce((sum, name) => sum + bytesOf(path.join(dir, name)), 0) };
}

/** Within the clock's granularity a later change can leave the same mtime. */
const SETTLED_MS = 2000;

/** How much there is, looked at again only when entries came or went: one system call where nothing changes. */
export class QuarantineWatch {
  readonly #stateDir: string;
  #mtimeMs: number | undefined;
  #size: QuarantineSize = { entries: 0, bytes: 0 };

  constructor(stateDir: string) {
    this.#stateDir = stateDir;
  }

  get size(): QuarantineSize {
    const mtimeMs = statSync(quarantineDirOf(this.#stateDir), { throwIfNoEntry: false })?.mtimeMs;
    if (mtimeMs === undefined) return { entries: 0, bytes: 0 };
    if (mtimeMs !== this.#mtimeMs) this.#size = quarantineSize(this.#stateDir);
    this.#mtimeMs = Date.now() - mtimeMs > SETTLED_MS ? mtimeMs : undefined;
    return this.#size;
  }
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw new SluiceError("SLU-2009", `${dir}: ${(error as Error).message}`, { cause: error });
  }
}

function entryOf(at: string): Quarantined | undefined {
  const name = path.basename(at);
  const pages = PAGES.exec(name);
  if (pages !== null) {
    const common = BigInt(`0x${pages[1]}`);
    return withFiles({ id: path.basename(name, ".ltx"), kind: "pages", path: at, atMs: Number(pages[2]), common }, [
      at,
    ]);
  }
  const deleted = DELETED.exec(name);
  if (deleted !== null) {
    const files = batchesIn(path.join(at, "0"));
    return withFiles({ id: name, kind: "batches", path: at, atMs: Number(deleted[1]), common: undefined }, files);
  }
  const whole = WHOLE.exec(name);
  if (whole === null) return undefined;
  const atMs = Date.parse(`${whole[1]}:${whole[2]}:${whole[3]}`);
  const state = peekState(at);
  const databaseFile = wholeIn(at);
  return {
    id: name,
    kind: "file",
    path: at,
    atMs,
    sizeBytes: bytesOf(at),
    common: state?.confirmed.position === NOTHING ? undefined : state?.confirmed.position,
    own: state?.following === false ? state.sealedPosition : undefined,
    files: [],
    databaseFile,
    problem: databaseFile === undefined ? "there is no database in it" : undefined,
  };
}

function withFiles(
  about: Pick<Quarantined, "id" | "kind" | "path" | "atMs" | "common">,
  paths: readonly string[],
): Quarantined {
  const entry = { ...about, sizeBytes: bytesOf(about.path), databaseFile: undefined };
  try {
    const files = paths.map(readParts);
    if (files.length === 0) return { ...entry, own: undefined, files, problem: "there is no batch in it" };
    return { ...entry, own: files.at(-1)?.position, files, problem: undefined };
  } catch (error) {
    return { ...entry, own: undefined, files: [], problem: (error as Error).message };
  }
}

function batchesIn(dir: string): string[] {
  const isBatch = /^([0-9a-f]{16})-\1\.ltx$/;
  return namesIn(dir)
    .filter((name) => isBatch.test(name))
    .toSorted()
    .map((name) => path.join(dir, name));
}

/** `--adopt` moves the database under its own name, beside what was its state. */
function wholeIn(dir: string): string | undefined {
  const state = new Set(["state", "pages", "ltx"]);
  const name = namesIn(dir).find((file) => !state.has(file) && !/-(?:wal|shm|journal)$/.test(file));
  return name === undefined ? undefined : path.join(dir, name);
}

/** Header and page numbers of an LTX file, from its first and its last bytes. Throws SLU-5001. */
function readParts(file: string): QuarantinedFile {
  const fd = openSync(file, "r");
  try {
    const head = Buffer.alloc(HEADER_BYTES);
    const header = decodeHeader(head.subarray(0, readAt(fd, head, head.length, 0)), file);
    const { size } = fstatSync(fd);
    const length = Buffer.alloc(8);
    readAt(fd, length, 8, size - TRAILER_BYTES - 8);
    const indexBytes = Number(length.readBigUInt64BE());
    const from = size - TRAILER_BYTES - 8 - indexBytes;
    if (from < HEADER_BYTES + PAGE_HEADER_BYTES) throw new SluiceError("SLU-5001", `${file} is cut off`);
    const index = Buffer.alloc(indexBytes);
    readAt(fd, index, indexBytes, from);
    const { pgno } = parseIndex(index);
    const fields = recordFields(header);
    return { path: file, header, pages: pgno, position: header.nodeId, checksum: fields?.checksum ?? 0n };
  } finally {
    closeSync(fd);
  }
}

function bytesOf(at: string): number {
  const stat = statSync(at, { throwIfNoEntry: false });
  if (stat === undefined) return 0;
  if (!stat.isDirectory()) return stat.size;
  return readdirSync(at).reduce((sum, name) => sum + bytesOf(path.join(at, name)), 0);
}

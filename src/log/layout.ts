import type { ObjectStore } from "../store/store.ts";

/** Level of full snapshots; levels 1 to 8 hold compacted files, level 0 single records. */
export const SNAPSHOT_LEVEL = 9;

/** Name of the object that identifies a log, beside its levels. */
const IDENTITY = "sluice.json";
const KEPT = "kept";

/** `<min>-<max>.ltx`, 16 lower-case hex digits each (Litestream's `ltx.ParseFilename`). */
const FILE_NAME = /^([0-9a-f]{16})-([0-9a-f]{16})\.ltx$/;

/** What the key of an LTX file says. */
export interface FileName {
  readonly level: number;
  readonly minTxid: number;
  readonly maxTxid: number;
}

/**
 * Where the objects of one log lie in its store: as Litestream 0.5 lays them out, in one of its two families.
 *
 *     ltx-prefix     PREFIX/ltx/<level, decimal>/<min>-<max>.ltx      file, gs, abs, sftp, webdav, nats
 *     level-prefix   PREFIX/<level, four hex digits>/<min>-<max>.ltx  s3, oss
 *
 * PREFIX may be empty. Within a family the byte order of keys is the order of levels, then of TXIDs.
 */
export class LogLayout {
  /** Key of the object that holds the log's id. */
  readonly identityKey: string;
  /** Names of states that retention must keep (`kept-states.ts`) begin with this. */
  readonly keptPrefix: string;
  /** All LTX files, and in the level-prefix family perhaps others, begin with this. */
  readonly filesPrefix: string;
  readonly #base: string;
  readonly #family: ObjectStore["layout"];

  /** The log's folder in the store, without slashes at its ends; empty when the store is all the log's. */
  readonly prefix: string;

  constructor(family: ObjectStore["layout"], prefix = "") {
    this.prefix = prefix;
    const folder = prefix === "" ? "" : `${prefix}/`;
    this.#family = family;
    this.identityKey = folder + IDENTITY;
    this.keptPrefix = `${folder}${KEPT}/`;
    this.#base = family === "ltx-prefix" ? `${folder}ltx/` : folder;
    this.filesPrefix = family === "ltx-prefix" ? this.#base : `${this.#base}000`;
  }

  /** Prefix of all files of a level, with the slash. */
  levelPrefix(level: number): string {
    const name = this.#family === "ltx-prefix" ? String(level) : level.toString(16).padStart(4, "0");
    return `${this.#base}${name}/`;
  }

  key(level: number, minTxid: number, maxTxid: number): string {
    return `${this.levelPrefix(level)}${formatTxid(minTxid)}-${formatTxid(maxTxid)}.ltx`;
  }

  /** Key of the object of one slot. */
  slotKey(txid: number): string {
    return this.key(0, txid, txid);
  }

  /**
   * What the key of an LTX file of this log says; undefined for every other key, also where the TXIDs make no sense
   * or are beyond 2^53 − 1.
   */
  parse(key: string): FileName | undefined {
    if (!key.startsWith(this.#base)) return undefined;
    const rest = key.slice(this.#base.length);
    const slash = rest.indexOf("/");
    const level = this.#parseLevel(rest.slice(0, slash));
    const match = slash < 0 ? null : FILE_NAME.exec(rest.slice(slash + 1));
    if (level === undefined || match === null) return undefined;
    const minTxid = Number.parseInt(match[1]!, 16);
    const maxTxid = Number.parseInt(match[2]!, 16);
    if (minTxid < 1 || maxTxid < minTxid || !Number.isSafeInteger(maxTxid)) return undefined;
    return { level, minTxid, maxTxid };
  }

  #parseLevel(name: string): number | undefined {
    const pattern = this.#family === "ltx-prefix" ? /^[0-9]$/ : /^000[0-9]$/;
    return pattern.test(name) ? Number(name) : undefined;
  }
}

/** A TXID as it's written in keys and messages: 16 lower-case hex digits. */
export function formatTxid(txid: number): string {
  return txid.toString(16).padStart(16, "0");
}

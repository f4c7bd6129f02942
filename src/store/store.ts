/**
 * An object store: a directory, S3, … Keys are UTF-8, `/`-separated, relative to the store's root, without a leading
 * slash. One value of this interface is used by many logs at once; all methods may be called concurrently.
 *
 * A method throws a SluiceError of the store's codes when the store refuses or can't be reached. Reads, lists and
 * deletes were then retried inside, with limits; a conditional `put` never is: what a lost answer means is for the
 * log to decide (protocol section 7), so the store reports it as `undecided`.
 */
export interface ObjectStore {
  /** The store's URL without secrets, for messages. */
  readonly url: string;

  /** How keys of LTX files are laid out here (Litestream has two families). */
  readonly layout: "ltx-prefix" | "level-prefix";

  /**
   * All objects whose key begins with `prefix`, in ascending byte order of their keys, those after `startAfter` only.
   * Strongly consistent with completed puts and deletes of any client.
   */
  list(prefix: string, options?: ListOptions): AsyncIterable<ObjectInfo>;

  /**
   * One object, or a range of it. Throws SLU-3404 when the key doesn't exist. The body must be read to its end or
   * cancelled by returning from the iteration; a connection lost on the way is resumed inside.
   */
  get(key: string, options?: GetOptions): Promise<StoredObject>;

  /**
   * The file of this machine that an object is, where it is one: who reads all of a large object is faster there than
   * through `get`. It may be gone, or not readable: then `get` says what that means.
   */
  localFile?(key: string): string | undefined;

  /**
   * Writes a whole object. Without a condition it overwrites, and is retried inside. With a condition it's sent once:
   * `written`; `refused`, when the condition did not hold (412); or `undecided`, when the outcome is unknown (409,
   * 429, 5xx, timeout, broken connection): the write may still take effect later.
   * The body is visible to readers whole or not at all, and durable when this returns `written`.
   */
  put(key: string, body: Body, options?: PutOptions): Promise<PutOutcome>;

  /** Deletes objects; a key that doesn't exist is not an error. */
  delete(keys: readonly string[], options?: { readonly signal?: AbortSignal }): Promise<void>;

  /** Lets go of connections. Calls under way fail. */
  close(): Promise<void>;
}

export interface ListOptions {
  readonly startAfter?: string;
  readonly signal?: AbortSignal;
}

export interface GetOptions {
  /** Bytes `offset` … `offset + length - 1`; a negative offset counts from the end, and then `length` is ignored. */
  readonly range?: { readonly offset: number; readonly length?: number };
  readonly signal?: AbortSignal;
}

export interface ObjectInfo {
  readonly key: string;
  readonly sizeBytes: number;
  /** When the store says it was written (its clock), ms since 1970. */
  readonly modifiedMs: number;
  /** The time that its writer gave it, where a listing shows that: a file's modification time, which copies keep. */
  readonly statedMs?: number;
}

export interface StoredObject extends ObjectInfo {
  /** Changes whenever the object does; for `ifMatch`. */
  readonly etag: string;
  readonly body: AsyncIterable<Uint8Array>;
}

/**
 * Bytes in memory, a local file (its bytes must not change meanwhile), or a stream of unknown length, whose chunks are
 * valid only until the next is asked for.
 */
export type Body = Uint8Array | { readonly path: string; readonly sizeBytes: number } | AsyncIterable<Uint8Array>;

export interface PutOptions {
  /** `absent`: create only (`If-None-Match: *`). `{ etag }`: replace exactly this version (`If-Match`). */
  readonly condition?: "absent" | { readonly etag: string };
  /** The LTX header's time, kept as Litestream keeps it: object metadata on S3, the file's mtime in a directory. */
  readonly timestampMs?: number;
  readonly signal?: AbortSignal;
}

export type PutOutcome =
  | { readonly outcome: "written"; readonly etag: string }
  | { readonly outcome: "refused" }
  | { readonly outcome: "undecided"; readonly cause: unknown };

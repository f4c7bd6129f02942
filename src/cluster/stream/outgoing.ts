import type { CommitFeed, OutgoingChange } from "../../database/replication.ts";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import { formatPosition, type Position } from "../../ltx/position.ts";
import { damaged } from "./bytes.ts";
import type { Link } from "./link.ts";
import { ANSWER, type Content, encode, type RecordFields, WISH } from "./messages.ts";
import { OutgoingResync } from "./outgoing-resync.ts";
import { packPages } from "./page-block.ts";
import type { PublishedDatabase } from "./published.ts";
import type { ResyncSources } from "./resync-sources.ts";

/** What may be under way to a replica for one database that it has not taken: a slow one gets larger steps instead. */
export const WINDOW_BYTES = 4 * 1024 * 1024;
/** While a replica keeps up, it gets so many commits one by one; a replica that is behind gets them as one step. */
const ONE_BY_ONE = 64;
/** Confirmed records that wait until their commits are sent. */
const RECORDS_MAX = 64;

export interface OutgoingParts {
  readonly channel: number;
  readonly database: PublishedDatabase;
  readonly link: Link;
  readonly sources: ResyncSources;
  /** It has something to send: `step` is called soon. */
  readonly wake: (outgoing: Outgoing) => void;
  /** The same, within this call: what was captured must be sent before the WAL can begin anew. */
  readonly wakeNow: (outgoing: Outgoing) => void;
  /** The replica has seen a later epoch than this node's. */
  readonly onDeposed: (name: string, epoch: number) => void;
}

/**
 * One database on its way to one replica.
 *
 *     waiting ── join ─► live, when the feed goes on from the replica's position
 *        ▲         └───► waiting, when it is to place records of the log first, or to resync
 *        ├─ resync ────► resyncing ── resynced ─► live, from the picture's position
 *        └─ (told by `rejoin`) the feed no longer goes on from what was sent, or the picture was given up
 *
 * Nothing is queued here: when there is room, `step` asks the feed for what comes next and sends one message of it.
 */
export class Outgoing {
  readonly channel: number;
  readonly database: PublishedDatabase;
  readonly #parts: OutgoingParts;
  readonly #feed: CommitFeed;
  readonly #stops: (() => void)[];
  readonly #records: RecordFields[] = [];
  #state: "waiting" | "live" | "resyncing" | "left" = "waiting";
  #sent: Position = 0n;
  #change: OutgoingChange | undefined;
  #pagesLeft = 0;
  #sentBytes = 0;
  #takenBytes = 0;
  #isBehind = false;
  #resync: OutgoingResync | undefined;
  #quarantines = false;
  #sealedTxid = 0;
  #told: { newest: Position; replica: Position; store: Position } = { newest: 0n, replica: 0n, store: 0n };
  /** Whether it is in the publisher's queue. */
  isQueued = false;

  constructor(parts: OutgoingParts) {
    const { channel, database, wake, wakeNow } = parts;
    this.#parts = parts;
    this.channel = channel;
    this.database = database;
    this.#feed = database.feed;
    const sealed = (): void => {
      this.#noteRecord();
      wake(this);
    };
    this.#stops = [this.#feed.onMoved(() => this.isLive && wakeNow(this)), database.onSealed(sealed)];
  }

  get isLive(): boolean {
    return this.#state === "live";
  }

  /** Answers a `join`. */
  async join(join: Content<"join">): Promise<void> {
    this.#reset("waiting");
    this.#sentBytes = this.#takenBytes = 0;
    const { database, channel } = this;
    const { link } = this.#parts;
    const refusal = this.#refusal(join);
    if (refusal !== undefined) {
      const { code, message } = refusal;
      return link.send("refused", { channel, code, message });
    }
    const held = join.isKnown && (await database.holds(join.position, join.checksum));
    if (this.#state === "left") return;
    this.#quarantines = join.isKnown && (!held || join.wish === WISH.resync);
    const { logId, pageSize, epoch, record } = database;
    const answer = this.#answer(join, held);
    const { txid } = join.record;
    const range = answer === ANSWER.records ? { fromTxid: txid + 1, toTxid: record?.txid ?? 0 } : none;
    link.send("joined", { channel, answer, logId, pageSize, epoch, ...range, position: this.#feed.position });
    if (answer !== ANSWER.continue) return;
    this.#begin(join.position, txid);
  }

  /** The replica wants to compare itself. */
  resync(): void {
    this.#reset("resyncing");
    const { link, sources, wake } = this.#parts;
    this.#resync = new OutgoingResync({
      channel: this.channel,
      database: this.database,
      link,
      sources,
      quarantine: this.#quarantines,
      wake: () => wake(this),
      onLost: (error) => this.#askToRejoin(error),
    });
  }

  sumsWanted(blocks: Uint32Array): void {
    this.#resync?.sumsWanted(blocks);
  }

  pagesWanted(numbers: Uint32Array): void {
    this.#resync?.pagesWanted(numbers);
  }

  /** The replica has become the picture. The feed goes on from there before the picture is released. */
  resynced(): void {
    const head = this.#resync?.head;
    if (head === undefined) throw damaged("a comparison ended that was not begun");
    const { position, record } = head;
    if (this.#feed.has(position)) {
      this.#reset("live");
      this.#begin(position, record.txid);
      return;
    }
    this.#askToRejoin(new SluiceError("SLU-2018", `what came after ${formatPosition(position)} is gone`));
  }

  /** The replica has taken so many bytes since it joined. */
  taken(bytes: number): void {
    if (bytes > this.#takenBytes && bytes <= this.#sentBytes) this.#takenBytes = bytes;
    this.#parts.wake(this);
  }

  /** Sends at most one message; whether there may be more to send. */
  step(): boolean {
    if (this.#state === "resyncing") return this.#resync?.step() ?? false;
    if (this.#state !== "live") return false;
    try {
      return this.#next();
    } catch (error) {
      if (!isSluiceError(error)) throw error;
      this.#askToRejoin(error);
      return false;
    }
  }

  /** What to say of it in the next `durable`; undefined while it's known. `newest` alone is news at heartbeats only. */
  durable(atHeartbeat: boolean): Content<"durable">["entries"][number] | undefined {
    const { durable, record } = this.database;
    const now = { newest: this.#feed.position, replica: durable, store: record?.position ?? 0n };
    const told = this.#told;
    const isNews = now.replica !== told.replica || now.store !== told.store;
    if (!isNews && (!atHeartbeat || now.newest === told.newest)) return undefined;
    this.#told = now;
    return { channel: this.channel, ...now };
  }

  leave(): void {
    this.#reset("left");
    for (const stop of this.#stops) stop();
  }

  #begin(position: Position, txid: number): void {
    this.#state = "live";
    this.#sent = position;
    this.#sealedTxid = txid;
    this.#noteRecord();
    this.#parts.wake(this);
  }

  #refusal(join: Content<"join">): SluiceError | undefined {
    const { name, logId, pageSize, epoch } = this.database;
    if (join.logId !== "" && join.logId !== logId) {
      return new SluiceError("SLU-8207", `${name} is log ${logId} here, log ${join.logId} there`);
    }
    if (join.pageSize !== 0 && join.pageSize !== pageSize) {
      return new SluiceError("SLU-8207", `${name} has pages of ${pageSize} bytes here, of ${join.pageSize} there`);
    }
    if (join.epoch <= epoch) return undefined;
    this.#parts.onDeposed(name, join.epoch);
    return new SluiceError("SLU-8206", `${name}: epoch ${epoch} here, epoch ${join.epoch} was seen there`);
  }

  #answer(join: Content<"join">, held: boolean): number {
    const feed = this.#feed;
    const { record } = this.database;
    const { wish, isKnown, position } = join;
    if (position === feed.position && join.checksum !== feed.checksum) return ANSWER.resync;
    if (wish !== WISH.resync && isKnown && feed.has(position)) return ANSWER.continue;
    const isBehind = held && join.record.txid > 0 && record !== undefined && record.txid > join.record.txid;
    return wish === WISH.any && isBehind ? ANSWER.records : ANSWER.resync;
  }

  #next(): boolean {
    const { channel } = this;
    const { link } = this.#parts;
    if (this.#change !== undefined) return this.#morePages(this.#change);
    const record = this.#takeRecord();
    if (record !== undefined) {
      link.send("sealed", { channel, record });
      return true;
    }
    if (this.#sentBytes - this.#takenBytes >= WINDOW_BYTES) {
      this.#isBehind = true;
      return false;
    }
    const change = this.#feed.after(this.#sent, this.#isBehind ? 1 : ONE_BY_ONE);
    if (change === undefined) {
      this.#isBehind = false;
      return false;
    }
    return this.#firstPages(change);
  }

  #firstPages(change: OutgoingChange): boolean {
    const chunk = change.next();
    if (chunk === undefined) throw new SluiceError("SLU-2000", `${this.database.name}: a change without pages`);
    const { before, position, pageCount, checksum, pages } = change.head;
    const block = packPages(chunk);
    const content = { channel: this.channel, before, position, pageCount, checksum, pages, block };
    this.#change = change;
    this.#pagesLeft = pages;
    this.#sendPages(encode("change", content, roomFor(block)), chunk.numbers.length);
    return true;
  }

  #morePages(change: OutgoingChange): boolean {
    // A step that is begun goes on while the window is full by the chunk that fills it: its pages can't be merged.
    if (this.#sentBytes - this.#takenBytes >= WINDOW_BYTES) {
      this.#isBehind = true;
      return false;
    }
    const { channel } = this;
    let chunk;
    try {
      chunk = change.next();
    } catch (error) {
      this.#change = undefined;
      this.#parts.link.send("abort", { channel });
      if (isSluiceError(error, "SLU-2018") && this.#feed.has(this.#sent)) return true;
      throw error;
    }
    if (chunk === undefined) throw new SluiceError("SLU-2000", `${this.database.name}: a change ends too early`);
    const block = packPages(chunk);
    this.#sendPages(encode("pages", { channel, block }, roomFor(block)), chunk.numbers.length);
    return true;
  }

  #sendPages(message: Uint8Array, pages: number): void {
    this.#sentBytes += message.length;
    this.#pagesLeft -= pages;
    this.#parts.link.sendEncoded(message);
    if (this.#pagesLeft > 0 || this.#change === undefined) return;
    this.#sent = this.#change.head.position;
    this.#change = undefined;
  }

  /** Records are told behind the commits that they hold. */
  #takeRecord(): RecordFields | undefined {
    let due: RecordFields | undefined;
    while (this.#records.length > 0 && this.#records[0]!.position <= this.#sent) due = this.#records.shift();
    if (due !== undefined) this.#sealedTxid = due.txid;
    return due;
  }

  #noteRecord(): void {
    const { record } = this.database;
    const last = this.#records.at(-1)?.txid ?? this.#sealedTxid;
    if (this.#state !== "live" || record === undefined || record.txid <= last) return;
    const { txid, epoch, position, timestampMs } = record;
    this.#records.push({ txid, epoch, position, timestampMs });
    // A replica that is far behind needs not know of each.
    if (this.#records.length > RECORDS_MAX) this.#records.splice(1, 1);
  }

  #askToRejoin(error: SluiceError): void {
    if (this.#state === "left") return;
    this.#reset("waiting");
    const { code, message } = error;
    this.#parts.link.send("rejoin", { channel: this.channel, code, message });
  }

  #reset(state: "waiting" | "live" | "resyncing" | "left"): void {
    this.#state = state;
    this.#change = undefined;
    this.#resync?.release();
    this.#resync = undefined;
    this.#records.length = 0;
  }
}

const none = { fromTxid: 0, toTxid: 0 };

function roomFor(block: { readonly numbers: Uint32Array; readonly content: Uint8Array }): number {
  return 128 + 4 * block.numbers.length + block.content.length;
}

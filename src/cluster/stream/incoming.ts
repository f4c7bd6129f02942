import { setImmediate as turn } from "node:timers/promises";
import type { IncomingChange } from "../../database/replication.ts";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import type { Clock } from "../../log/clock.ts";
import { isErrorCode } from "../../errors/codes.ts";
import { epochOf, formatPosition, NOTHING, type Position } from "../../ltx/position.ts";
import { damaged } from "./bytes.ts";
import { IncomingResync } from "./incoming-resync.ts";
import type { Link } from "./link.ts";
import { ANSWER, type Content, type Message, WISH } from "./messages.ts";
import { unpackPages } from "./page-block.ts";
import type { FollowingDatabase } from "./published.ts";

/** A primary never has more than its window under way; more than this waiting here is no primary of this protocol. */
const QUEUED_BYTES_MAX = 32 * 1024 * 1024;
/** Others get their turn after so much in one go. */
const TURN_BYTES = 1024 * 1024;
/** What was taken is told at the latest after so much. */
const TAKEN_BYTES = 512 * 1024;
/** How often a database may fail to go on before its replica is opened anew. */
const FAILURES_MAX = 3;
/** A refused join is tried again after this. */
const REFUSED_MS = 1_000;

/** How durable the primary's commits are, as it has told. */
export interface Durable {
  /** The primary's newest position. */
  readonly newest: Position;
  /** The highest one acknowledged at `replica`; the highest one in the log. */
  readonly replica: Position;
  readonly store: Position;
}

export interface IncomingParts {
  readonly channel: number;
  readonly name: string;
  readonly database: FollowingDatabase;
  /** Places the log's records from the store; undefined where there's no store. */
  readonly placeRecords: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** It has something to acknowledge. */
  readonly ackSoon: (incoming: Incoming) => void;
  readonly onDurable: (durable: Durable) => void;
  readonly onProblem: (error: SluiceError) => void;
  readonly clock: Clock;
}

type Item =
  | { readonly kind: "message"; readonly message: Message; readonly sizeBytes: number; readonly link: Link }
  | { readonly kind: "join"; readonly link: Link }
  | { readonly kind: "reset" };

/**
 * One database of a replica, from `attach` to `detach`, over any number of connections.
 *
 *     away ── connect ─► joining ── continue ─► live: changes are applied as they come
 *      ▲                    │ ▲                   │
 *      │                    │ └─ rejoin, a gap ───┤
 *      │                    ├─ records ─► placing the log's records ─► joining
 *      │                    ├─ resync ──► resyncing ─► live
 *      │                    └─ refused ─► refused, joins again a second later
 *      └──── the connection ends (whatever was under way is forgotten)
 *
 * A checksum that is wrong leads to a join that wishes a resync. `failed` rejects when the database itself is at fault, or
 * when it can't go on three times in a row. Messages are worked off one after the other; how many can wait is
 * bounded by the primary's window.
 */
export class Incoming {
  readonly channel: number;
  readonly name: string;
  readonly #parts: IncomingParts;
  readonly #abort = new AbortController();
  readonly #failed = Promise.withResolvers<never>();
  readonly #items: Item[] = [];
  #queuedBytes = 0;
  #isRunning = false;
  #work: Promise<void> | undefined;
  #state: "away" | "joining" | "live" | "placing" | "resyncing" | "refused" = "away";
  #link: Link | undefined;
  #change: { readonly incoming: IncomingChange; readonly position: Position; pagesLeft: number } | undefined;
  #resync: IncomingResync | undefined;
  #failures = 0;
  #takenBytes = 0;
  #toldBytes = 0;
  #cancelRetry: () => void = () => undefined;
  #durable: Durable | undefined;

  constructor(parts: IncomingParts) {
    this.#parts = parts;
    this.channel = parts.channel;
    this.name = parts.name;
    this.#failed.promise.catch(() => undefined);
  }

  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  /** Changes come from the primary just now. */
  get isJoined(): boolean {
    if (this.#link === undefined) return false;
    return this.#state === "live" || this.#state === "resyncing" || this.#state === "placing";
  }

  get durable(): Durable | undefined {
    return this.#durable;
  }

  /** There's a connection. */
  connect(link: Link): void {
    this.#link = link;
    this.#push({ kind: "join", link });
  }

  /** The connection has ended. */
  disconnect(): void {
    this.#link = undefined;
    this.#cancelRetry();
    this.#push({ kind: "reset" });
  }

  /** The primary has a database of this name now. */
  appeared(): void {
    if (this.#state === "refused") this.#again();
  }

  /** Throws SLU-8208 when more comes than a primary may send. */
  receive(message: Message, sizeBytes: number, link: Link): void {
    this.#queuedBytes += sizeBytes;
    if (this.#queuedBytes > QUEUED_BYTES_MAX) throw damaged(`more than ${QUEUED_BYTES_MAX} bytes at once`);
    this.#push({ kind: "message", message, sizeBytes, link });
  }

  /** Resolves when nothing of it touches the database any more. */
  async detach(): Promise<void> {
    this.#abort.abort();
    this.#link?.send("leave", { channel: this.channel });
    this.disconnect();
    await this.#work;
  }

  /** What to acknowledge; undefined when it is known, or means nothing now. */
  acknowledgement(): Content<"applied">["entries"][number] | undefined {
    const { database } = this.#parts;
    if (this.#link === undefined || !this.isJoined) return undefined;
    this.#toldBytes = this.#takenBytes;
    const position = database.position ?? NOTHING;
    return { channel: this.channel, position, txid: database.record?.txid ?? 0, taken: this.#takenBytes };
  }

  #push(item: Item): void {
    this.#items.push(item);
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#work = this.#run();
  }

  async #run(): Promise<void> {
    let bytes = 0;
    for (let item = this.#items.shift(); item !== undefined; item = this.#items.shift()) {
      if (item.kind === "message") {
        this.#queuedBytes -= item.sizeBytes;
        bytes += item.sizeBytes;
      }
      try {
        await this.#do(item);
      } catch (error) {
        this.#fault(error);
      }
      if (bytes < TURN_BYTES) continue;
      bytes = 0;
      await turn();
    }
    this.#isRunning = false;
  }

  async #do(item: Item): Promise<void> {
    if (item.kind === "reset") return this.#reset("away");
    // Of a connection that has ended meanwhile.
    if (item.link !== this.#link || this.#abort.signal.aborted) return;
    if (item.kind === "join") return this.#join(WISH.any);
    const { message, sizeBytes } = item;
    const counts = this.#state === "live" && (message.type === "change" || message.type === "pages");
    await this.#receive(message);
    if (!counts || this.#state !== "live") return;
    this.#takenBytes += sizeBytes;
    if (this.#takenBytes - this.#toldBytes >= TAKEN_BYTES) this.#parts.ackSoon(this);
  }

  async #receive(message: Message): Promise<void> {
    switch (message.type) {
      case "joined":
        if (this.#state === "joining") await this.#joined(message);
        return;
      case "refused":
        return this.#refused(message);
      case "rejoin":
        if (this.#state === "joining" || this.#state === "away") return;
        return this.#join(WISH.any);
      case "change":
        if (this.#state === "live") await this.#begin(message);
        return;
      case "pages":
        if (this.#state === "live") await this.#pages(message);
        else if (this.#state === "resyncing") await this.#resyncPages(message);
        return;
      case "abort":
        this.#change?.incoming.abort();
        this.#change = undefined;
        return;
      case "sealed":
        if (this.#state === "live") await this.#sealed(message.record);
        return;
      default:
        if (this.#state === "resyncing") await this.#compare(message);
    }
  }

  async #compare(message: Message): Promise<void> {
    switch (message.type) {
      case "resyncHead":
        return this.#resync?.head(message);
      case "blockHashes":
        return this.#resync?.hashes(message);
      case "pageSums":
        return this.#resync?.sums(message);
      default:
        throw damaged(`a "${message.type}" from a primary`);
    }
  }

  #join(wish: number): void {
    this.#reset("joining");
    const { channel, name } = this;
    const { database } = this.#parts;
    const { pageSize, position, checksum, record } = database;
    this.#link?.send("join", {
      channel,
      name,
      logId: database.logState?.logId ?? "",
      pageSize,
      isKnown: position !== undefined,
      position: position ?? NOTHING,
      checksum,
      record: record ?? { txid: 0, epoch: 0, position: NOTHING, timestampMs: 0 },
      epoch: this.#epoch,
      wish,
    });
  }

  /** The highest epoch that was ever seen: a name is of the highest when its takeover record isn't placed yet. */
  get #epoch(): number {
    const { epoch, position } = this.#parts.database;
    return Math.max(epoch, epochOf(position ?? NOTHING));
  }

  async #joined(joined: Content<"joined">): Promise<void> {
    const { epoch } = joined;
    if (epoch < this.#epoch) {
      throw new SluiceError("SLU-8206", `${this.name}: epoch ${epoch} of the primary, epoch ${this.#epoch} here`);
    }
    switch (joined.answer) {
      case ANSWER.continue:
        this.#state = "live";
        this.#parts.ackSoon(this);
        return;
      case ANSWER.records:
        return this.#placeRecords();
      case ANSWER.resync: {
        this.#state = "resyncing";
        const { database } = this.#parts;
        this.#resync = new IncomingResync(this.channel, this.#link!, database);
        return;
      }
      default:
        throw damaged(`answer ${joined.answer} to a join`);
    }
  }

  async #placeRecords(): Promise<void> {
    const { placeRecords, onProblem } = this.#parts;
    this.#state = "placing";
    try {
      await placeRecords?.(this.#abort.signal);
    } catch (error) {
      if (!isSluiceError(error) || error.code.startsWith("SLU-2")) throw error;
      onProblem(error);
    }
    if (this.#link !== undefined && !this.#abort.signal.aborted) this.#join(WISH.noRecords);
  }

  #refused({ code, message }: Content<"refused">): void {
    const error = new SluiceError(isErrorCode(code) ? code : "SLU-8212", message);
    this.#reset("refused");
    this.#parts.onProblem(error);
    if (code === "SLU-8207") return this.#failed.reject(error);
    this.#retryLater();
  }

  #retryLater(): void {
    this.#cancelRetry();
    this.#cancelRetry = this.#parts.clock.schedule(REFUSED_MS, () => this.#again());
  }

  #again(): void {
    this.#cancelRetry();
    const link = this.#link;
    if (link !== undefined && !this.#abort.signal.aborted) this.#push({ kind: "join", link });
  }

  async #begin(message: Content<"change">): Promise<void> {
    const { database } = this.#parts;
    if (this.#change !== undefined) throw damaged("a change within another");
    const { before, position, pageCount, checksum, pages } = message;
    if (before !== database.position || position <= before) {
      const here = formatPosition(database.position ?? NOTHING);
      throw damaged(`${this.name}: a change from ${formatPosition(before)} to ${formatPosition(position)}, at ${here}`);
    }
    const incoming = await database.change({ before, position, pageCount, checksum, pages });
    this.#change = { incoming, position, pagesLeft: pages };
    await this.#pages(message);
  }

  async #pages({ block }: Content<"pages">): Promise<void> {
    const change = this.#change;
    if (change === undefined) throw damaged("pages without a change");
    change.pagesLeft -= block.numbers.length;
    if (change.pagesLeft < 0) throw damaged("more pages than were announced");
    change.incoming.pages(unpackPages(block, this.#parts.database.pageSize));
    if (change.pagesLeft > 0) return;
    this.#change = undefined;
    try {
      await change.incoming.commit();
    } finally {
      change.incoming.abort();
    }
    this.#failures = 0;
    this.#parts.ackSoon(this);
  }

  async #resyncPages(message: Content<"pages">): Promise<void> {
    const isDone = await this.#resync?.pages(message);
    if (isDone !== true) return;
    this.#resync = undefined;
    this.#failures = 0;
    this.#state = "live";
    this.#parts.ackSoon(this);
  }

  async #sealed(record: Content<"sealed">["record"]): Promise<void> {
    const { database, ackSoon } = this.#parts;
    // Only what is here may be placed; a record that is placed already says nothing new.
    if (record.position > (database.position ?? NOTHING) || record.txid <= (database.record?.txid ?? 0)) return;
    await database.sealed(record);
    ackSoon(this);
  }

  /** Called for messages that are told outside of the order. */
  durableIs(durable: Durable): void {
    this.#durable = durable;
    this.#parts.onDurable(durable);
  }

  #fault(error: unknown): void {
    this.#reset("refused");
    if (this.#abort.signal.aborted) return;
    const known = isSluiceError(error) ? error : new SluiceError("SLU-2000", String(error), { cause: error });
    this.#failures++;
    const isOwn = known.code.startsWith("SLU-2") && known.code !== "SLU-2019";
    if (isOwn || this.#failures > FAILURES_MAX) return this.#failed.reject(known);
    this.#parts.onProblem(known);
    if (this.#link === undefined) return this.#reset("away");
    if (known.code === "SLU-8206") return this.#retryLater();
    this.#join(known.code === "SLU-2019" || this.#failures > 1 ? WISH.resync : WISH.any);
  }

  #reset(state: "away" | "joining" | "refused"): void {
    this.#state = state;
    this.#change?.incoming.abort();
    this.#change = undefined;
    this.#resync?.abort();
    this.#resync = undefined;
    this.#takenBytes = this.#toldBytes = 0;
  }
}

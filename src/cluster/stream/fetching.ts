import { setImmediate as turn } from "node:timers/promises";
import type { IncomingChange } from "../../database/replication.ts";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import { epochOf, NOTHING, type Position } from "../../ltx/position.ts";
import { damaged } from "./bytes.ts";
import { IncomingResync, type ResyncTarget } from "./incoming-resync.ts";
import type { Link } from "./link.ts";
import { ANSWER, type Message, WISH } from "./messages.ts";
import type { FollowingDatabase } from "./published.ts";

const TURN_BYTES = 1024 * 1024;

/**
 * Whether a state of the name `position` has everything that the database has, and more. The database has placed the
 * whole log: names of the last record's epoch are of one history then, which holds every state that is a record's or has
 * such a name itself (docs/model: "receives commit … live").
 */
function goesOn(database: FollowingDatabase, position: Position): boolean {
  const { position: own, record } = database;
  if (own === undefined || record === undefined || position <= own) return false;
  const isOfHistory = own === record.position || epochOf(own) === record.epoch;
  return isOfHistory && epochOf(position) === record.epoch;
}

/**
 * What another node has more of one database, for a node that takes over (protocol section 8): a join that wishes no
 * records, and, where the other node's state goes on from this one's, a comparison whose difference is applied as one
 * step on top of it. Where the other node can't say that it had this node's state, what differs of this one goes to the
 * quarantine first. The last record stays what it is. `done` resolves with whether anything came; when it rejects
 * nothing has changed.
 */
export class Fetching {
  readonly channel: number;
  readonly name: string;
  readonly #database: FollowingDatabase;
  readonly #link: Link;
  readonly #done = Promise.withResolvers<boolean>();
  readonly #messages: Message[] = [];
  #isRunning = false;
  /** Why no more is done. */
  #end: SluiceError | undefined;
  #isDone = false;
  #resync: IncomingResync | undefined;

  constructor(channel: number, name: string, database: FollowingDatabase, link: Link) {
    this.channel = channel;
    this.name = name;
    this.#database = database;
    this.#link = link;
    this.#done.promise.catch(() => undefined);
    const { pageSize, position, checksum, record, epoch } = database;
    link.send("join", {
      channel,
      name,
      logId: database.logState?.logId ?? "",
      pageSize,
      isKnown: position !== undefined,
      position: position ?? NOTHING,
      checksum,
      record: record ?? { txid: 0, epoch: 0, position: NOTHING, timestampMs: 0 },
      epoch,
      wish: WISH.noRecords,
    });
  }

  get done(): Promise<boolean> {
    return this.#done.promise;
  }

  receive(message: Message): void {
    this.#messages.push(message);
    if (!this.#isRunning) void this.#run();
  }

  /** Gives up what isn't finished. `done` waits for a step that is under way: it may still be the last one. */
  end(error: SluiceError): void {
    this.#end ??= error;
    if (!this.#isRunning) this.#finish(this.#end);
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    let bytes = 0;
    try {
      for (let message = this.#messages.shift(); message !== undefined; message = this.#messages.shift()) {
        if (this.#isDone || this.#end !== undefined) break;
        await this.#receive(message);
        bytes += message.type === "pages" ? message.block.content.length : 0;
        if (bytes < TURN_BYTES) continue;
        bytes = 0;
        await turn();
      }
    } catch (error) {
      this.#finish(isSluiceError(error) ? error : new SluiceError("SLU-2000", String(error), { cause: error }));
    }
    this.#isRunning = false;
    if (this.#end !== undefined) this.#finish(this.#end);
  }

  async #receive(message: Message): Promise<void> {
    switch (message.type) {
      case "joined":
        if (message.answer !== ANSWER.resync || !goesOn(this.#database, message.position)) return this.#finish(false);
        this.#resync = new IncomingResync(this.channel, this.#link, this.#target());
        return;
      case "refused":
        return this.#finish(false);
      case "rejoin":
        throw new SluiceError("SLU-8213", `${this.name}: ${message.message}`);
      case "resyncHead":
        return this.#resync?.head(message);
      case "blockHashes":
        return this.#resync?.hashes(message);
      case "pageSums":
        return this.#resync?.sums(message);
      case "pages":
        if ((await this.#resync?.pages(message)) === true) this.#finish(true);
        return;
      default:
        return;
    }
  }

  /** The picture's difference is a change on top of what is here, and no record's. */
  #target(): ResyncTarget {
    const database = this.#database;
    return {
      pageSize: database.pageSize,
      pageCount: database.pageCount,
      sums: database.sums,
      resync: async (head, _record, { quarantine }): Promise<IncomingChange> => {
        if (!goesOn(database, head.position)) throw damaged(`${this.name}: a picture that doesn't go on from here`);
        const { position, record } = database;
        // The other node doesn't know this state: an application may have made it out of what a power loss left, under a
        // name that was given before. What is the record's is in the log.
        if (quarantine && position !== record!.position) return database.resync(head, record!, { quarantine });
        return database.change({ ...head, before: position! });
      },
    };
  }

  #finish(result: boolean | SluiceError): void {
    if (this.#isDone) return;
    this.#isDone = true;
    this.#resync?.abort();
    this.#link.send("leave", { channel: this.channel });
    if (typeof result === "boolean") this.#done.resolve(result);
    else this.#done.reject(result);
  }
}

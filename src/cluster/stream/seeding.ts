import { setImmediate as turn } from "node:timers/promises";
import { isSluiceError, SluiceError } from "../../errors/error.ts";
import { NOTHING } from "../../ltx/position.ts";
import { damaged } from "./bytes.ts";
import { IncomingResync } from "./incoming-resync.ts";
import type { Link } from "./link.ts";
import { ANSWER, type Message, WISH } from "./messages.ts";
import { SeedFile } from "./seed-file.ts";

const TURN_BYTES = 1024 * 1024;

/**
 * The copy of one database that this node hasn't got: a join without a state, a comparison with nothing, and a leave.
 * `done` resolves with true when the file is in place, with false when the primary has no such database.
 */
export class Seeding {
  readonly channel: number;
  readonly name: string;
  readonly #path: string;
  readonly #link: Link;
  readonly #done = Promise.withResolvers<boolean>();
  readonly #messages: Message[] = [];
  #isRunning = false;
  #isEnded = false;
  #resync: IncomingResync | undefined;

  constructor(channel: number, name: string, file: string, link: Link) {
    this.channel = channel;
    this.name = name;
    this.#path = file;
    this.#link = link;
    this.#done.promise.catch(() => undefined);
    link.send("join", {
      channel,
      name,
      logId: "",
      pageSize: 0,
      isKnown: false,
      position: NOTHING,
      checksum: 0n,
      record: { txid: 0, epoch: 0, position: NOTHING, timestampMs: 0 },
      epoch: 0,
      wish: WISH.resync,
    });
  }

  get done(): Promise<boolean> {
    return this.#done.promise;
  }

  receive(message: Message): void {
    this.#messages.push(message);
    if (!this.#isRunning) void this.#run();
  }

  /** Gives up what isn't finished. */
  end(error: SluiceError): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#link.send("leave", { channel: this.channel });
    // A change that is being finished must not be taken away from under itself.
    if (!this.#isRunning) this.#resync?.abort();
    this.#done.reject(error);
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    let bytes = 0;
    try {
      for (let message = this.#messages.shift(); message !== undefined; message = this.#messages.shift()) {
        if (this.#isEnded) break;
        await this.#receive(message);
        bytes += message.type === "pages" ? message.block.content.length : 0;
        if (bytes < TURN_BYTES) continue;
        bytes = 0;
        await turn();
      }
    } catch (error) {
      this.#resync?.abort();
      this.#finish(isSluiceError(error) ? error : new SluiceError("SLU-2000", String(error), { cause: error }));
    }
    this.#isRunning = false;
    if (this.#isEnded) this.#resync?.abort();
  }

  async #receive(message: Message): Promise<void> {
    switch (message.type) {
      case "joined":
        if (message.answer !== ANSWER.resync || message.pageSize < 512) throw damaged("no comparison for a copy");
        this.#resync = new IncomingResync(
          this.channel,
          this.#link,
          new SeedFile(this.#path, message.pageSize, message.logId),
        );
        return;
      case "refused":
        if (message.code === "SLU-8212") return this.#finish(false);
        throw new SluiceError("SLU-8210", message.message);
      case "rejoin":
        throw new SluiceError("SLU-8213", `${this.name}: ${message.message}`);
      case "resyncHead":
        return this.#resync?.head(message);
      case "blockHashes":
        return this.#resync?.hashes(message);
      case "pages":
        if ((await this.#resync?.pages(message)) === true) this.#finish(true);
        return;
      default:
        return;
    }
  }

  #finish(result: boolean | SluiceError): void {
    this.#isEnded = true;
    this.#link.send("leave", { channel: this.channel });
    if (typeof result === "boolean") this.#done.resolve(result);
    else this.#done.reject(result);
  }
}

import { isSluiceError, SluiceError } from "../../errors/error.ts";
import type { Clock } from "../../log/clock.ts";
import type { AckTable } from "./acks.ts";
import { damaged } from "./bytes.ts";
import type { Link } from "./link.ts";
import type { Content, Message, MessageType } from "./messages.ts";
import { Outgoing } from "./outgoing.ts";
import type { PublishedDatabase, PublishedDatabases } from "./published.ts";
import type { ResyncSources } from "./resync-sources.ts";

/** Databases that one replica may follow. */
const CHANNELS_MAX = 16_384;
/** After so much in one go others get their turn. */
const TURN_BYTES = 1024 * 1024;
const ENTRIES_MAX = 4_096;

export interface PublisherParts {
  readonly link: Link;
  /** Of the replica. */
  readonly life: bigint;
  readonly databases: PublishedDatabases;
  readonly sources: ResyncSources;
  readonly acks: AckTable;
  readonly onDeposed: (name: string, epoch: number) => void;
  /** What a heartbeat says about this node's lease. */
  readonly lease: () => string;
  readonly clock: Clock;
}

/**
 * The primary's side of one replica's connection, after the greeting: which databases there are, who follows which, and
 * whose turn it is to send. Databases with something to send take turns, a message each; nothing is read from a feed
 * while the connection has no room.
 */
export class Publisher {
  readonly #parts: PublisherParts;
  readonly #channels = new Map<number, Outgoing>();
  readonly #announced = new Map<string, string>();
  readonly #stop: () => void;
  readonly #queue: Outgoing[] = [];
  #isScheduled = false;
  #isPumping = false;
  #isEnded = false;

  constructor(parts: PublisherParts) {
    this.#parts = parts;
    this.#stop = parts.databases.onChanged(() => this.#announce());
    this.#announce();
  }

  /** A message of the replica's. */
  receive(message: Message): void {
    switch (message.type) {
      case "heartbeat":
        return;
      case "join":
        return this.#join(message);
      case "applied":
        return this.#applied(message.entries);
      case "leave":
        return this.#with(message, (outgoing) => this.#leave(outgoing));
      case "resync":
        return this.#with(message, (outgoing) => outgoing.resync());
      case "sumsWanted":
        return this.#with(message, (outgoing) => outgoing.sumsWanted(message.blocks));
      case "pagesWanted":
        return this.#with(message, (outgoing) => outgoing.pagesWanted(message.numbers));
      case "resynced":
        return this.#with(message, (outgoing) => outgoing.resynced());
      default:
        throw unexpected(message.type);
    }
  }

  /** The database of a message, unless it has gone while that was on its way. */
  #with({ channel }: { readonly channel: number }, act: (outgoing: Outgoing) => void): void {
    const outgoing = this.#channels.get(channel);
    if (outgoing !== undefined) act(outgoing);
  }

  /** Once a heartbeat interval. */
  beat(): void {
    const { link, lease, clock } = this.#parts;
    link.send("heartbeat", { sentAtMs: clock.now(), role: 1, lease: lease() });
    this.#tellDurable(true);
  }

  /** Sends as long as there is room and something to send. */
  readonly pump = (): void => {
    this.#isPumping = true;
    try {
      this.#pump();
    } finally {
      this.#isPumping = false;
    }
  };

  #pump(): void {
    if (this.#isEnded) return;
    const { link } = this.#parts;
    this.#tellDurable(false);
    const until = link.sentBytes + TURN_BYTES;
    while (this.#queue.length > 0 && link.hasRoom) {
      if (link.sentBytes >= until) return this.#schedule();
      const outgoing = this.#queue.shift()!;
      if (outgoing.step()) this.#queue.push(outgoing);
      else outgoing.isQueued = false;
    }
  }

  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#stop();
    for (const outgoing of this.#channels.values()) outgoing.leave();
    this.#channels.clear();
    this.#queue.length = 0;
    this.#parts.acks.forget(this.#parts.life);
  }

  /** Databases that came, went, or were opened anew. */
  #announce(): void {
    const { databases, link } = this.#parts;
    const now = new Map<string, PublishedDatabase>();
    for (const database of databases.list()) {
      const { name, logId, pageSize, pageCount } = database;
      now.set(name, database);
      if (this.#announced.get(name) === logId) continue;
      this.#announced.set(name, logId);
      link.send("database", { name, logId, pageSize, pageCount });
    }
    for (const name of this.#announced.keys()) {
      if (now.has(name)) continue;
      this.#announced.delete(name);
      link.send("gone", { name });
    }
    for (const outgoing of this.#channels.values()) {
      const { channel, database } = outgoing;
      if (now.get(database.name) === database) continue;
      this.#leave(outgoing);
      link.send("rejoin", { channel, code: "SLU-8212", message: `${database.name} was closed` });
    }
  }

  #join(join: Content<"join">): void {
    const { channel, name } = join;
    const { databases, link, sources, onDeposed } = this.#parts;
    const database = databases.get(name);
    let outgoing = this.#channels.get(channel);
    if (outgoing !== undefined && outgoing.database !== database) {
      this.#leave(outgoing);
      outgoing = undefined;
    }
    if (database === undefined) {
      return link.send("refused", { channel, code: "SLU-8212", message: `${name} is not here` });
    }
    if (outgoing === undefined) {
      if (this.#channels.size >= CHANNELS_MAX) throw damaged(`more than ${CHANNELS_MAX} databases`);
      outgoing = new Outgoing({
        channel,
        database,
        link,
        sources,
        wake: this.#wake,
        wakeNow: this.#wakeNow,
        onDeposed,
      });
      this.#channels.set(channel, outgoing);
    }
    outgoing.join(join).catch((error: unknown) => {
      const code = isSluiceError(error) ? error.code : "SLU-8212";
      link.send("refused", { channel, code, message: String(error) });
    });
  }

  #applied(entries: Content<"applied">["entries"]): void {
    const { acks, life } = this.#parts;
    for (const { channel, position, txid, taken } of entries) {
      const outgoing = this.#channels.get(channel);
      if (outgoing === undefined) continue;
      outgoing.taken(taken);
      if (outgoing.isLive) acks.applied(outgoing.database.name, life, { position, txid });
    }
  }

  #leave(outgoing: Outgoing): void {
    outgoing.leave();
    this.#channels.delete(outgoing.channel);
    this.#parts.acks.forget(this.#parts.life, outgoing.database.name);
  }

  readonly #wakeNow = (outgoing: Outgoing): void => {
    this.#wake(outgoing);
    if (!this.#isPumping) this.pump();
  };

  readonly #wake = (outgoing: Outgoing): void => {
    if (outgoing.isQueued || this.#isEnded) return;
    outgoing.isQueued = true;
    this.#queue.push(outgoing);
    this.#schedule();
  };

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      this.pump();
    });
  }

  #tellDurable(atHeartbeat: boolean): void {
    const entries: Content<"durable">["entries"][number][] = [];
    for (const outgoing of atHeartbeat ? this.#channels.values() : this.#queue) {
      const entry = outgoing.isLive ? outgoing.durable(atHeartbeat) : undefined;
      if (entry !== undefined) entries.push(entry);
    }
    for (let at = 0; at < entries.length; at += ENTRIES_MAX) {
      this.#parts.link.send("durable", { entries: entries.slice(at, at + ENTRIES_MAX) });
    }
  }
}

function unexpected(type: MessageType): SluiceError {
  return damaged(`a "${type}" from a replica`);
}

import { rmSync } from "node:fs";
import type { Server, Socket } from "node:net";
import path from "node:path";
import { randomBytes } from "node:crypto";
import { stateDirOf } from "../../database/database.ts";
import { STATE_FORMAT } from "../../database/state.ts";
import { SluiceError, systemErrorCode } from "../../errors/error.ts";
import { formatPosition, type Position } from "../../ltx/position.ts";
import { VERSION } from "../../observe/version.ts";
import { Ancestor } from "./ancestor.ts";
import { Heir, parsed } from "./heir.ts";
import { Link, type Question } from "./link.ts";
import { connectTo, listenAt } from "./socket.ts";

/** What the note beside a database says of the Sluice that looks after it; that may have ended. */
export interface OwnerNote {
  readonly pid: number;
  /** The database, as that process calls it: in its container it may be somewhere else. */
  readonly path?: string;
  /** Its socket, from the state directory. */
  readonly succession?: string;
}

/** A database that can be asked for by another Sluice. */
export interface Passable {
  readonly path: string;
  /** Its log, without secrets. */
  readonly log: string;
  /** Another process has it, or is about to. */
  readonly isAway: boolean;
  /** Resolves when it's neither being restored nor opened. */
  settled(signal: AbortSignal): Promise<void>;
  /** `heir` has all that two can hold, and asks for the rest: it's offered, or declined. */
  passTo(heir: Heir): void;
  positionNow(signal: AbortSignal): Promise<Position>;
  sync(wait: "local" | "replica" | "store", signal: AbortSignal): Promise<Position>;
  waitDurable(position: Position, level: "replica" | "store", signal: AbortSignal): Promise<void>;
}

export interface SuccessionOptions {
  /** A state directory, for the socket. */
  readonly dir: string;
  /** Whether this process takes databases over from others: not with `--no-takeover`. */
  readonly takesOver: boolean;
  /** Nodes of a cluster are neither taken over nor take over: their lease and gate belong to one process. */
  readonly isLone: boolean;
  readonly noteOf: (file: string) => OwnerNote | undefined;
  readonly databaseAt: (file: string) => Passable | undefined;
}

/**
 * Overlap on one host: of two Sluices with the same database the later one takes it over from the earlier one, over a
 * socket in a state directory, while applications write. For each database:
 *
 *     successor                                  predecessor (`ProtectedDatabase`)
 *     finds the note and the socket
 *     succeed: version, state format, log  ───►  protected, waiting, failed, or taking over
 *                                          ◄───  refused (SLU-6012), or its pid
 *     opens; SHARED, DMS and the pin beside it:
 *     from here on nobody can restart the WAL
 *     pass                                 ───►  everything captured, sealed and appended (as far as the store
 *                                                answers within a while); sends nothing more: *passing*
 *                                                holds writers up, captures the rest, releases CKPT
 *                                          ◄───  offered
 *     takes CKPT: it's the owner now
 *     taken                                ───►  lets writers go, closes everything: *succeeded*
 *     reads the state that the other has left
 *     on disk, captures from there, begins an
 *     epoch of the log
 *                                          ◄───  position? durable? for as long as its application runs
 *
 * **CKPT says who the owner is**, and the kernel keeps it: there are never two. Ends before *taken*: the predecessor takes
 * it back and goes on (`passCheckpoint`). Ends after it: the link breaks, and the predecessor opens the database as after
 * any other end of a Sluice, with what the successor left on disk and in the log. The predecessor ends: the successor
 * opens as after any end of a Sluice; since SHARED, DMS and the pin are held, the WAL has everything.
 * A process that has passed a database on takes none from others: it only asks whoever has it.
 */
export class Succession {
  readonly #options: SuccessionOptions;
  readonly #links = new Set<Link>();
  readonly #file: string;
  #server: Server | undefined;
  /** A database was passed on. */
  isRetired = false;

  constructor(options: SuccessionOptions) {
    this.#options = options;
    this.#file = path.join(options.dir, `${randomBytes(4).toString("hex")}.sock`);
  }

  /** What the note beside `file` says, so that a successor finds this process. */
  noteFor(file: string): Pick<OwnerNote, "path" | "succession"> {
    return { path: file, succession: path.relative(stateDirOf(file), this.#file) };
  }

  async listen(): Promise<void> {
    this.#server = await listenAt(this.#file, (socket) => this.#accept(socket));
  }

  /** All links end: whoever has passed a database to this process may take it back. */
  close(): void {
    this.#server?.close();
    for (const link of this.#links) link.close();
  }

  /**
   * The Sluice that looks after `database` now: one to take it from, or, where this process has passed databases on, one
   * to be asked only. Undefined when there is none. Throws SLU-6004 when this process doesn't take over, SLU-6012 when
   * that one can't be taken over.
   */
  async find(database: Passable, signal: AbortSignal): Promise<Ancestor | Heir | undefined> {
    const { noteOf, takesOver, isLone } = this.#options;
    const note = noteOf(database.path);
    if (note?.succession === undefined || note.path === undefined) return undefined;
    const socket = await this.#connect(path.join(stateDirOf(database.path), note.succession));
    if (socket === undefined) return undefined;
    const link = this.#keep(new Link(socket, (question, asked) => answer(database, question, asked)));
    try {
      if (this.isRetired) {
        const owner = await link.ask({ do: "watch", db: note.path }, signal);
        if (isOwner(owner)) return new Heir(link, owner);
        link.close();
        return undefined;
      }
      if (!takesOver) throw new SluiceError("SLU-6004", `${database.path} is looked after by process ${note.pid}`);
      if (!isLone) throw refused(database.path, "this is a node of a cluster, which takes nothing over");
      const owner = await link.ask(
        { do: "succeed", db: note.path, pid: process.pid, version: VERSION, format: STATE_FORMAT, log: database.log },
        signal,
      );
      if (isOwner(owner)) return new Ancestor(link, database.path, owner.pid);
      link.close();
      return undefined;
    } catch (error) {
      if (link.isGone) return undefined;
      link.close();
      throw error;
    }
  }

  async #connect(file: string): Promise<Socket | undefined> {
    if (file === this.#file) return undefined;
    try {
      return await connectTo(file);
    } catch (error) {
      // Of a process that was killed.
      if (systemErrorCode(error) === "ECONNREFUSED") rmSync(file, { force: true });
      return undefined;
    }
  }

  #keep(link: Link): Link {
    this.#links.add(link);
    void link.gone.then(() => this.#links.delete(link));
    return link;
  }

  #accept(socket: Socket): void {
    const link = this.#keep(
      new Link(socket, async (question, signal) => {
        const database = this.#options.databaseAt(String(question["db"]));
        if (database === undefined) return undefined;
        if (question.do === "watch") link.answerer = (next, asked) => answer(database, next, asked);
        else if (question.do === "succeed") await this.#greet(link, database, question, signal);
        else return undefined;
        return { pid: process.pid, version: VERSION };
      }),
    );
  }

  /** Throws SLU-6012. */
  async #greet(link: Link, database: Passable, question: Question, signal: AbortSignal): Promise<void> {
    const { pid, version, format, log } = question;
    const { path: file } = database;
    if (!this.#options.isLone) throw refused(file, "it belongs to a node of a cluster");
    if (format !== STATE_FORMAT) {
      throw refused(
        file,
        `its state has format ${STATE_FORMAT}, of version ${VERSION}; ${String(version)} has another`,
      );
    }
    if (log !== database.log) throw refused(file, `its log is ${database.log}, not ${String(log)}`);
    await database.settled(signal);
    const heir = new Heir(link, { pid: Number(pid), version: String(version) });
    link.answerer = async (next) => {
      if (next.do === "taken") return heir.answers(next["isTaken"] === true);
      if (next.do !== "pass") return undefined;
      const offered = heir.asks();
      database.passTo(heir);
      return offered;
    };
  }
}

/** What the present owner says to the one before it. */
async function answer(database: Passable, question: Question, signal: AbortSignal): Promise<unknown> {
  switch (question.do) {
    case "position":
      return formatPosition(await database.positionNow(signal));
    case "sync":
      return formatPosition(await database.sync(question["wait"] === "store" ? "store" : "local", signal));
    case "durable":
      return database.waitDurable(
        parsed(question["position"]),
        question["level"] === "replica" ? "replica" : "store",
        signal,
      );
    default:
      return undefined;
  }
}

function isOwner(value: unknown): value is { readonly pid: number; readonly version: string } {
  return typeof value === "object" && value !== null && "pid" in value && "version" in value;
}

function refused(file: string, why: string): SluiceError {
  return new SluiceError("SLU-6012", `${file} is looked after by another Sluice here: ${why}`);
}

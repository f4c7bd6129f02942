import { constants } from "node:os";
import type { Logger } from "pino";
import { isSluiceError, SluiceError } from "../errors/error.ts";
import { entriesFor, type ExecEntry, findCommand, type Role } from "./exec-list.ts";
import type { Command, Exit, Guardian } from "./guardian-client.ts";
import type { Environment } from "./messages.ts";

export interface ApplicationOptions {
  readonly guardian: Guardian;
  /** What runs in any role, in order. */
  readonly entries: readonly ExecEntry[];
  /** The node's role when the application starts. */
  readonly role: Role;
  /** The environment of every command. */
  readonly env: Environment;
  /** From the request to stop until what is left is killed. */
  readonly stopLimitMs: number;
  readonly log: Logger;
}

/** The exit status of a command as a shell gives it: its own, or 128 + the number of the signal that ended it. */
function exitStatus(exit: Exit): number {
  return exit.code ?? 128 + (exit.signal === null ? 0 : constants.signals[exit.signal]);
}

/** A command that runs, for the entry that it came from. */
interface Running {
  readonly entry: ExecEntry;
  readonly command: Command;
  /** Its role is over: that it ends says nothing about the application. */
  isLeaving: boolean;
}

/**
 * The application: the commands of the `exec` list, under a guardian.
 *
 * starting: runs the role's entries in order; one with `wait` to its end, the others go on. Left when all are started,
 *   when a waited one fails, when a long-running one ends, or by `stop`.
 * running: until the first long-running command ends, or `stop`. Without a long-running command only `stop` ends it.
 *   A change of the role stops what runs in the other role only, and starts what runs in the new one only; an entry with
 *   `wait` runs to its end once in the life of this process.
 * stopping: every command that still runs was sent the signal; SIGKILL to all after the limit. Then the guardian ends
 *   what the commands left behind, within the rest of the limit.
 */
export class Application {
  readonly #options: ApplicationOptions;
  readonly #running = new Set<Running>();
  readonly #waited = new Set<ExecEntry>();
  #changes: Promise<void> = Promise.resolve();
  readonly #stop = Promise.withResolvers<void>();
  /** The first of the long-running commands that ended by itself: its status is the application's. */
  readonly #ended = Promise.withResolvers<number>();
  #stopSignal: NodeJS.Signals | undefined;
  #stopEndsMs = 0;
  #killTimer: NodeJS.Timeout | undefined;
  /** Status of the last entry in the list that was started: what counts after a stop. */
  #lastStatus: Promise<number> = Promise.resolve(0);

  constructor(options: ApplicationOptions) {
    this.#options = options;
  }

  /**
   * Runs the list to its end and returns the exit status that the whole run has: that of the command that ended it, 127
   * or 126 for one that was not found or could not be executed (after logging why). Nothing of the application is left
   * then, and the guardian is gone.
   */
  async run(): Promise<number> {
    let status: number;
    try {
      status = await this.#runList();
    } catch (error) {
      if (!isSluiceError(error)) throw error;
      this.#options.log.error({ code: error.code, hint: error.hint }, error.message);
      status = startStatus(error);
    }
    if (this.#stopSignal === undefined) this.stop("SIGTERM");
    const [last] = await Promise.all([this.#lastStatus, ...[...this.#running].map(({ command }) => command.exited)]);
    await this.#options.guardian.end(Math.max(0, this.#stopEndsMs - Date.now()));
    clearTimeout(this.#killTimer);
    return Number.isNaN(status) ? last : status;
  }

  /** Begins to stop: every command gets `name` (SIGINT goes to its whole process group, as from a terminal). */
  stop(name: NodeJS.Signals): void {
    const { log, stopLimitMs } = this.#options;
    this.forward(name);
    if (this.#stopSignal !== undefined) return;
    if (this.#running.size > 0) log.info({ signal: name, commands: this.#running.size }, "stopping the application");
    this.#stopSignal = name;
    this.#stopEndsMs = Date.now() + stopLimitMs;
    this.#killTimer = setTimeout(() => {
      if (this.#running.size === 0) return;
      log.warn({ code: "SLU-6010" }, `the application did not end within ${stopLimitMs / 1000} s; killing it`);
      this.forward("SIGKILL", true);
    }, stopLimitMs);
    this.#stop.resolve();
  }

  /** Passes a signal on to every command that runs. */
  forward(name: NodeJS.Signals, group = name === "SIGINT"): void {
    for (const { command } of this.#running) command.signal(name, group);
  }

  /** The node has another role now. What fails to start is logged; the application goes on. */
  setRole(role: Role): void {
    this.#changes = this.#changes
      .then(() => this.#change(role))
      .catch((error: unknown) => {
        const fields = isSluiceError(error) ? { code: error.code, hint: error.hint } : { err: error };
        this.#options.log.error(fields, error instanceof Error ? error.message : String(error));
      });
  }

  async #change(role: Role): Promise<void> {
    const wanted = new Set(entriesFor(role, this.#options.entries));
    const over = [...this.#running].filter(({ entry }) => !wanted.has(entry));
    for (const running of over) {
      running.isLeaving = true;
      // It didn't get to its end: whoever is the primary next runs it, this node too.
      this.#waited.delete(running.entry);
      running.command.signal("SIGTERM", false);
      const kill = setTimeout(() => running.command.signal("SIGKILL", true), this.#options.stopLimitMs);
      void running.command.exited.then(() => clearTimeout(kill));
    }
    await Promise.all(over.map(({ command }) => command.exited));
    const there = new Set([...this.#running].map(({ entry }) => entry));
    for (const entry of wanted) {
      if (this.#stopSignal !== undefined) return;
      if (there.has(entry) || this.#waited.has(entry)) continue;
      const { status } = await this.#start(entry);
      if (!entry.wait) void status.then((value) => this.#ended.resolve(value));
      else if ((await status) > 0) this.#options.log.error({ code: "SLU-6008" }, `${entry.argv[0]} failed`);
    }
  }

  /** The status, or NaN when the application was stopped. */
  async #runList(): Promise<number> {
    const stopped = this.#stop.promise.then(() => Number.NaN);
    const { entries, role } = this.#options;
    for (const entry of entriesFor(role, entries)) {
      if (this.#stopSignal !== undefined) return stopped;
      const { status } = await this.#start(entry);
      if (!entry.wait) {
        void status.then((value) => this.#ended.resolve(value));
        continue;
      }
      const first = await Promise.race([stopped, this.#ended.promise.then((other) => ({ other })), status]);
      if (typeof first === "object") return first.other;
      if (first === 0) continue;
      if (!Number.isNaN(first)) {
        this.#options.log.error({ code: "SLU-6008" }, `${entry.argv[0]} ended with status ${first}`);
      }
      return first;
    }
    return Promise.race([stopped, this.#ended.promise]);
  }

  async #start(entry: ExecEntry): Promise<{ status: Promise<number> }> {
    const { guardian, env, log } = this.#options;
    const { argv, wait } = entry;
    findCommand(argv[0] ?? "", env);
    if (wait) this.#waited.add(entry);
    const command = guardian.run(argv, env);
    const running: Running = { entry, command, isLeaving: false };
    this.#running.add(running);
    const pid = await command.started.catch((error: unknown) => {
      this.#running.delete(running);
      throw error;
    });
    log.info({ pid, command: argv[0], wait }, "command started");
    const never = new Promise<number>(() => {});
    const ended = command.exited.then((exit) => {
      this.#running.delete(running);
      const status = exitStatus(exit);
      log.info({ pid, status }, "command ended");
      return running.isLeaving ? never : status;
    });
    this.#lastStatus = ended;
    return { status: ended };
  }
}

function startStatus(error: SluiceError): number {
  if (error.code === "SLU-6001") return 127;
  return error.code === "SLU-6002" ? 126 : 1;
}

import { once } from "node:events";
import { constants } from "node:os";
import type { Logger } from "pino";
import { logFailure } from "../observe/failure.ts";
import { Application } from "./application.ts";
import type { ExecEntry, Role } from "./exec-list.ts";
import { Guardian } from "./guardian-client.ts";
import { endOldGuardian } from "./guardian-file.ts";
import type { Environment } from "./messages.ts";

/** Holds open files, and with them their locks, until the application is dead. */
export interface LockHolder {
  hold(key: string, descriptors: readonly number[]): Promise<void>;
  release(key: string): void;
}

/** The databases of this node, as `run` needs them. */
export interface RunNode {
  /** The role now. */
  readonly role: Role;
  /** Calls `listener` whenever the role may have changed. */
  onRole(listener: () => void): void;
  /**
   * Restores what is missing, opens what is there, and replicates from then on. Resolves when the application may
   * start. Rejects when it must not. When `stopping` aborts first, nobody waits for it any more: `stop` comes next.
   * `holder` keeps locks for as long as any process of the application lives; undefined where there is no application.
   */
  start(stopping: AbortSignal, holder: LockHolder | undefined): Promise<void>;
  /**
   * A stop was asked for, and the application still runs: hands over to another node and lets requests end, within its own
   * limits. Undefined where there is nothing of that kind.
   */
  readonly leave?: () => Promise<void>;
  /**
   * Drains: captures what is there, appends it, and lets go, within its own limit. Also called after a `start` that
   * failed. Resolves with one sentence for each database whose last commits are not in the store, which names the
   * database and how much is missing.
   */
  stop(): Promise<readonly string[]>;
}

export interface RunOptions {
  readonly node: RunNode;
  readonly entries: readonly ExecEntry[];
  /** Where the guardian is noted, so that the next start finds it: beside the databases. */
  readonly guardianFile: string;
  /** Whether another Sluice that runs here is taken over from; default: it's refused. */
  readonly takesOver?: boolean;
  /** The environment of the application. */
  readonly env: Environment;
  readonly log: Logger;
  /** From SIGTERM until the application is killed. */
  readonly stopLimitMs?: number;
  /** Aborted with an error when the node can't go on: the application is ended then. */
  readonly fatal?: AbortSignal;
}

const STOP_LIMIT_MS = 30_000;

/** Ask Sluice to stop; the first goes to the application as it is, a second ends Sluice at once. */
const STOPPING = ["SIGTERM", "SIGINT"] as const;
/** Are the application's business: reload, reopen logs, more or fewer workers, another window size. */
const FORWARDED = ["SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTTIN", "SIGTTOU"] as const;
/** One Ctrl-C can arrive twice, from the terminal and from a wrapper that passes it on. */
const SAME_SIGNAL_MS = 200;

/**
 * What `sluice run` does, once the configuration is read: the databases first, then the application, then the drain.
 *
 * preparing: an earlier life's guardian is ended, a new one starts, and then the node. A stop signal, or the guardian's loss,
 *   ends it without the application.
 * running: the application runs under its guardian. Left when it ends, by a stop signal (after the node has left), when the guardian is lost, or
 *   when the node can't go on. Without a command, only the last three.
 * draining: nothing of the application is left; the node drains.
 *
 * Resolves with the exit status: the application's; without a command 0 after a stop signal, or 1 when not everything
 * is in the store; 128 + the signal's number when one came before the application had started, and after a second one;
 * 1 when Sluice itself failed. The caller exits with it at once. What went wrong was logged.
 */
export async function runApplication(options: RunOptions): Promise<number> {
  const signals = new Signals();
  try {
    return await Promise.race([signals.second, new Run(options, signals).run()]);
  } finally {
    signals[Symbol.dispose]();
  }
}

class Run {
  readonly #options: RunOptions;
  readonly #signals: Signals;
  #failed = false;
  /** Until the application has it. */
  #guardian: Guardian | undefined;

  constructor(options: RunOptions, signals: Signals) {
    this.#options = options;
    this.#signals = signals;
  }

  async run(): Promise<number> {
    const { guardianFile, entries, takesOver = false } = this.#options;
    let status = 0;
    try {
      await endOldGuardian(guardianFile, { takesOver });
      // Before the node: closed gates must be held from before the application starts.
      if (entries.length > 0) this.#guardian = await Guardian.start(guardianFile);
    } catch (error) {
      // Before the node was touched: another Sluice may be looking after it.
      this.#fail(error);
      return 1;
    }
    try {
      await this.#prepared();
      const guardian = this.#guardian;
      status = guardian === undefined ? await this.#waitForStop() : await this.#runCommands(guardian);
    } catch (error) {
      if (this.#signals.stopping.aborted) status = this.#signals.status;
      else this.#fail(error);
    }
    await this.#guardian?.end(0);
    const drained = await this.#drain();
    if (this.#failed) return 1;
    return status === 0 && !drained && entries.length === 0 ? 1 : status;
  }

  /**
   * Until the node is ready, or a stop signal comes: a restore may take long, and `stop` breaks it off. Throws SLU-6006 when
   * the guardian is lost meanwhile: nobody could hold a closed gate.
   */
  async #prepared(): Promise<void> {
    const { stopping } = this.#signals;
    const started = this.#options.node.start(stopping, this.#guardian);
    started.catch(() => {});
    const lost = this.#guardian?.lost.then((error) => {
      throw error;
    });
    lost?.catch(() => {});
    await Promise.race([started, stopping.aborted ? undefined : once(stopping, "abort"), ...(lost ? [lost] : [])]);
    stopping.throwIfAborted();
  }

  async #runCommands(guardian: Guardian): Promise<number> {
    const { node, entries, env, log, stopLimitMs = STOP_LIMIT_MS } = this.#options;
    // The application ends it with itself.
    this.#guardian = undefined;
    const application = new Application({ guardian, entries, role: node.role, env, log, stopLimitMs });
    node.onRole(() => application.setRole(node.role));
    void guardian.lost.then((error) => (guardian.closing ? undefined : this.#fail(error)));
    this.#onFatal(() => application.stop("SIGTERM"));
    this.#signals.handle({
      stop: (name) => {
        if (node.leave === undefined) application.stop(name);
        else void node.leave().finally(() => application.stop(name));
      },
      forward: (name) => application.forward(name),
      suspend: () => application.forward("SIGSTOP", true),
      resume: () => application.forward("SIGCONT", true),
    });
    // A second signal makes the caller exit: the guardian then kills what is left.
    return application.run();
  }

  async #waitForStop(): Promise<number> {
    const { promise, resolve } = Promise.withResolvers<number>();
    this.#onFatal(() => resolve(1));
    const stop = (): void => resolve(0);
    // Nobody else would want these: a terminal that is closed, or Ctrl-\.
    const forward = (name: NodeJS.Signals): void => {
      if (name === "SIGHUP" || name === "SIGQUIT") resolve(0);
    };
    this.#signals.handle({ stop, forward, suspend: () => {}, resume: () => {} });
    // A signal listener alone doesn't keep Node.js alive, and an idle node need not either.
    const alive = setInterval(() => {}, 1 << 30);
    return promise.finally(() => clearInterval(alive));
  }

  #onFatal(end: () => void): void {
    const { fatal } = this.#options;
    const onAbort = (): void => {
      this.#fail(fatal?.reason);
      end();
    };
    if (fatal?.aborted) onAbort();
    else fatal?.addEventListener("abort", onAbort, { once: true });
  }

  /** Whether everything is in the store. */
  async #drain(): Promise<boolean> {
    try {
      const missing = await this.#options.node.stop();
      for (const sentence of missing) this.#options.log.error({ code: "SLU-6009" }, sentence);
      return missing.length === 0;
    } catch (error) {
      this.#fail(error);
      return false;
    }
  }

  #fail(error: unknown): void {
    this.#failed = true;
    logFailure(this.#options.log, error);
  }
}

interface SignalHandler {
  stop(name: NodeJS.Signals): void;
  forward(name: NodeJS.Signals): void;
  /** Sluice is about to be stopped by the terminal (Ctrl-Z). */
  suspend(): void;
  resume(): void;
}

/** The signals that this process gets, from the beginning of `run` to its end. */
class Signals {
  readonly #stopping = new AbortController();
  readonly #second = Promise.withResolvers<number>();
  readonly #listeners: [NodeJS.Signals, () => void][] = [];
  #handler: SignalHandler | undefined;
  #first: { readonly name: NodeJS.Signals; readonly atMs: number } | undefined;

  constructor() {
    for (const name of STOPPING) this.#on(name, () => this.#stop(name));
    for (const name of FORWARDED) this.#on(name, () => this.#handler?.forward(name));
    this.#on("SIGTSTP", () => {
      this.#handler?.suspend();
      process.kill(process.pid, "SIGSTOP");
    });
    this.#on("SIGCONT", () => this.#handler?.resume());
  }

  /** Aborted by the first stop signal. */
  get stopping(): AbortSignal {
    return this.#stopping.signal;
  }

  /** 128 + the number of the signal that asked to stop; 0 before. */
  get status(): number {
    return this.#first === undefined ? 0 : 128 + constants.signals[this.#first.name];
  }

  /** Resolves with the exit status when a second stop signal comes. */
  get second(): Promise<number> {
    return this.#second.promise;
  }

  /** Who gets the signals from now on; told at once when a stop was asked for already. */
  handle(handler: SignalHandler): void {
    this.#handler = handler;
    if (this.#first !== undefined) handler.stop(this.#first.name);
  }

  [Symbol.dispose](): void {
    for (const [name, listener] of this.#listeners) process.removeListener(name, listener);
  }

  #on(name: NodeJS.Signals, listener: () => void): void {
    this.#listeners.push([name, listener]);
    process.on(name, listener);
  }

  #stop(name: NodeJS.Signals): void {
    const now = performance.now();
    if (this.#first === undefined) {
      this.#first = { name, atMs: now };
      this.#handler?.stop(name);
      this.#stopping.abort();
    } else if (name !== this.#first.name || now - this.#first.atMs >= SAME_SIGNAL_MS) {
      this.#second.resolve(128 + constants.signals[name]);
    }
  }
}

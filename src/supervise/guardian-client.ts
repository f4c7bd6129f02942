import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync } from "node:fs";
import { getCompileCacheDir } from "node:module";
import type { Socket } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { SluiceError } from "../errors/error.ts";
import { children, killDescendants } from "./descendants.ts";
import { removeGuardianFile, writeGuardianFile } from "./guardian-file.ts";
import { applicationEnvironment, openFilesLimit } from "./inherited.ts";
import { becomeSubreaper, sendDescriptors, socketPair } from "./libc.ts";
import { type Environment, lineReader, type Report, type Request } from "./messages.ts";

/** A file of the same kind as this one: TypeScript in a checkout, JavaScript in the package. */
const GUARDIAN = fileURLToPath(new URL(`./guardian${path.extname(import.meta.filename)}`, import.meta.url));
const START_LIMIT_MS = 30_000;
const EXIT_LIMIT_MS = 2_000;

/** How a command ended: with a status, or by a signal. */
export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A command of the application, a child of the guardian. */
export interface Command {
  /** Resolves with its pid. Rejects when it can't be started: SLU-6001, SLU-6002, SLU-6006. */
  readonly started: Promise<number>;
  /** Resolves at its end; never, when it wasn't started. */
  readonly exited: Promise<Exit>;
  /**
   * To the command alone, or with `group` to its whole process group. One that comes early is not lost: the guardian
   * takes requests in their order. Nothing happens when it has ended.
   */
  signal(name: NodeJS.Signals, group?: boolean): void;
}

interface Starting {
  readonly done: (pid: number) => void;
  readonly fail: (error: SluiceError) => void;
}

/**
 * Sluice's side of the guardian (see `guardian.ts`). A process has one at a time, and starts no other long-lived
 * processes after it: should the guardian be killed, everything that falls to this process, itself a subreaper, is the
 * application, and is killed.
 */
export class Guardian {
  readonly #process: ChildProcess;
  readonly #channel: Socket;
  readonly #files: number;
  readonly #file: string;
  /** Children of this process from before the guardian. */
  readonly #spared: ReadonlySet<number>;
  readonly #starting = new Map<number, Starting>();
  readonly #running = new Map<number, (exit: Exit) => void>();
  #holding: Promise<void> = Promise.resolve();
  #held: { readonly done: () => void; readonly fail: (error: SluiceError) => void } | undefined;
  #ready: () => void = () => {};
  #ended: () => void = () => {};
  #nextId = 1;
  #closing = false;
  #isEnding = false;
  /** It has ended, for this reason. */
  #gone: SluiceError | undefined;
  /** Resolves when the guardian ended without being asked, and after the application was killed (SLU-6006). */
  readonly lost: Promise<SluiceError>;

  /** Whether this process has let go of the guardian. */
  get closing(): boolean {
    return this.#closing;
  }

  /**
   * Starts a guardian and notes it in `file`; its standard input, output and error, and so those of every command, are
   * this process's own. Throws SLU-6007 when it does not come up.
   */
  static async start(file: string): Promise<Guardian> {
    const guardian = new Guardian(file);
    try {
      await guardian.#start();
      return guardian;
    } catch (error) {
      guardian.kill();
      throw new SluiceError(
        "SLU-6007",
        `the guardian did not start: ${error instanceof Error ? error.message : String(error)}`,
        {
          cause: error,
        },
      );
    }
  }

  private constructor(file: string) {
    this.#file = file;
    this.#spared = new Set(children(process.pid));
    becomeSubreaper();
    const [mine, its] = socketPair();
    this.#files = mine;
    const flags = ["--no-warnings", "--max-old-space-size=32", "--max-semi-space-size=1", "--v8-pool-size=0"];
    this.#process = spawn(process.execPath, [...flags, GUARDIAN], {
      stdio: ["inherit", "inherit", "inherit", "pipe", its],
      // Its own session: it must outlive a terminal's Ctrl-C and hang-up.
      detached: true,
      env: guardianEnvironment(),
    });
    closeSync(its);
    this.#channel = this.#process.stdio[3] as Socket;
    this.#channel.setEncoding("utf8");
    this.#channel.on(
      "data",
      lineReader((report) => this.#handle(report as Report)),
    );
    // The end of the process says what there is to say.
    this.#channel.on("error", () => {});
    this.lost = new Promise((resolve) => {
      const over = (why: string): void => void this.#over(why).then(resolve);
      this.#process.once("exit", (code, signal) => over(signal ?? `status ${code}`));
      this.#process.once("error", (error) => over(error.message));
    });
  }

  async #start(): Promise<void> {
    const ready = new Promise<void>((resolve) => {
      this.#ready = resolve;
    });
    const late = AbortSignal.timeout(START_LIMIT_MS);
    const failed = Promise.race([this.lost, once(late, "abort")]).then(() => {
      throw new Error(late.aborted ? `not ready after ${START_LIMIT_MS} ms` : "it ended at once");
    });
    await Promise.race([ready, failed]);
    failed.catch(() => {});
    await writeGuardianFile(this.#file, this.#process.pid ?? 0);
  }

  /**
   * Starts `argv[0]` with the other words as its arguments and `env` as the user gave it, without what `bin/sluice`
   * added.
   */
  run(argv: readonly string[], env: Environment): Command {
    const id = this.#nextId++;
    const started = Promise.withResolvers<number>();
    const exited = new Promise<Exit>((done) => this.#running.set(id, done));
    this.#starting.set(id, { done: started.resolve, fail: started.reject });
    if (this.#process.exitCode !== null || this.#process.signalCode !== null)
      this.#fail(id, new SluiceError("SLU-6006", "the guardian ended"));
    else this.#ask({ do: "start", id, argv, env: applicationEnvironment(env), openFiles: openFilesLimit(env) });
    const signal: Command["signal"] = (name, group = false) => this.#ask({ do: "signal", id, signal: name, group });
    return { started: started.promise, exited, signal };
  }

  /**
   * Lets the guardian hold the open files of `descriptors`, too, under `key` (instead of those it has there), so that
   * their locks live until the application is dead. Nothing happens once it's being ended. Throws SLU-6006 when the
   * guardian is gone, SLU-6011.
   */
  hold(key: string, descriptors: readonly number[]): Promise<void> {
    if (this.#isEnding) return Promise.resolve();
    const held = this.#holding.then(
      () =>
        new Promise<void>((done, fail) => {
          if (this.#gone !== undefined) return fail(this.#gone);
          this.#held = { done, fail };
          try {
            sendDescriptors(this.#files, descriptors);
            this.#ask({ do: "hold", key });
          } catch (error) {
            fail(new SluiceError("SLU-6011", `${key}: ${String(error)}`, { cause: error }));
          }
        }),
    );
    // One at a time: the socket's buffer is bounded, and a failure belongs to its own key.
    this.#holding = held.catch(() => {});
    return held;
  }

  /** Lets the guardian close what it holds under `key`. */
  release(key: string): void {
    this.#ask({ do: "release", key });
  }

  /**
   * Ends whatever is left of the application: asked to (SIGTERM), given `graceMs`, then killed. Resolves when nothing
   * is left of it and the guardian is gone as well.
   */
  async end(graceMs: number): Promise<void> {
    this.#isEnding = true;
    const ended = new Promise<void>((resolve) => {
      this.#ended = resolve;
    });
    this.#ask({ do: "end", graceMs });
    await Promise.race([ended, this.lost]);
    this.kill();
    const late = AbortSignal.timeout(EXIT_LIMIT_MS);
    await Promise.race([this.lost, once(late, "abort")]);
    await removeGuardianFile(this.#file, this.#process.pid ?? 0);
  }

  /** Lets go of the guardian: it kills the application and exits, as if this process had died. */
  kill(): void {
    this.#closing = true;
    this.#channel.destroy();
  }

  #ask(request: Request): void {
    if (!this.#channel.destroyed) this.#channel.write(`${JSON.stringify(request)}\n`);
  }

  #handle(report: Report): void {
    if (report.is === "ready") this.#ready();
    else if (report.is === "started") {
      this.#starting.get(report.id)?.done(report.pid);
      this.#starting.delete(report.id);
    } else if (report.is === "failed") this.#fail(report.id, startError(report.code));
    else if (report.is === "exited") {
      this.#running.get(report.id)?.({ code: report.code, signal: report.signal });
      this.#running.delete(report.id);
    } else if (report.is === "held") {
      if (report.error === undefined) this.#held?.done();
      else this.#held?.fail(new SluiceError("SLU-6011", `${report.key}: ${report.error}`));
    } else this.#ended();
  }

  #fail(id: number, error: SluiceError): void {
    this.#running.delete(id);
    this.#starting.get(id)?.fail(error);
    this.#starting.delete(id);
  }

  /** The guardian is gone: whatever it left behind has fallen to this process. */
  async #over(why: string): Promise<SluiceError> {
    const error = new SluiceError("SLU-6006", `the guardian ended (${why})`);
    this.#gone = error;
    if (!this.#closing) await killDescendants(this.#spared, this.#spared);
    closeSync(this.#files);
    for (const id of this.#starting.keys()) this.#fail(id, error);
    for (const exited of this.#running.values()) exited({ code: null, signal: "SIGKILL" });
    this.#running.clear();
    this.#held?.fail(error);
    this.#channel.destroy();
    return error;
  }
}

function startError(code: string): SluiceError {
  const missing = code === "ENOENT" || code === "ENOTDIR";
  return new SluiceError(missing ? "SLU-6001" : "SLU-6002", `the command was not started: ${code}`);
}

/** Nothing of the user's environment matters to the guardian, and options for Node.js there could harm it. */
function guardianEnvironment(): NodeJS.ProcessEnv {
  const cache = getCompileCacheDir();
  return {
    PATH: process.env["PATH"],
    // With a cache the guardian needs no compiler for TypeScript, which costs 10 MB.
    ...(cache === undefined ? {} : { NODE_COMPILE_CACHE: path.dirname(cache) }),
  };
}

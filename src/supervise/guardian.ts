import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, writeSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { Socket } from "node:net";
import { systemErrorCode } from "../errors/error.ts";
import { dropCleanPages } from "../observe/clean-pages.ts";
import { deathSignalPrefix } from "./death-signal.ts";
import { children, descendants, killDescendants, reapOrphans, signal } from "./descendants.ts";
import { becomeSubreaper, receiveDescriptors, withOpenFilesLimit } from "./libc.ts";
import { CHANNEL_FD, FILES_FD, lineReader, type Report, type Request } from "./messages.ts";

type StartRequest = Extract<Request, { do: "start" }>;

/** Signals that reach a whole process group or control group: Sluice decides what they mean, not its guardian. */
const LEFT_TO_SLUICE = ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;

/**
 * The guardian: the small process between Sluice and the application (protocol section 2, "A closed gate outlives
 * Sluice"). It has no SQLite in it. It is the parent of the application's commands and the subreaper of all that they
 * start, and it shares open file descriptions, with their locks, with Sluice.
 *
 * serving: from its start. Starts commands and signals them on request, reports their ends, holds descriptors, removes
 *   the zombies of orphans. Ends by the request `end`, or when its channel to Sluice closes, which the kernel does in
 *   whatever way Sluice died.
 * ending: asks all descendants to end, waits for them for the time it was given, kills the rest, says `ended`. Sluice
 *   closes the channel then.
 * alone: Sluice is gone. Kills every descendant until `waitid` says that there is none, and exits: the last to hold the
 *   descriptors, so their locks stand for as long as anything of the application lives.
 */
class Guardian {
  readonly #channel = new Socket({ fd: CHANNEL_FD, readable: true, writable: true });
  readonly #commands = new Map<number, ChildProcess>();
  /** Pids of `#commands`: libuv waits for them itself. */
  readonly #own = new Set<number>();
  readonly #held = new Map<string, number[]>();
  #alone = false;

  serve(): void {
    becomeSubreaper();
    for (const name of LEFT_TO_SLUICE) process.on(name, () => {});
    process.on("SIGCHLD", () => reapOrphans(this.#own));
    this.#channel.setEncoding("utf8");
    this.#channel.on(
      "data",
      lineReader((request) => this.#handle(request as Request)),
    );
    // Also after an error: the channel has nobody at its other end then.
    this.#channel.on("error", () => {});
    this.#channel.on("close", () => void this.#endAlone());
    this.#report({ is: "ready" });
    flushCompileCache();
    setTimeout(dropCleanPages, 1000).unref();
  }

  #handle(request: Request): void {
    if (request.do === "start") this.#start(request);
    else if (request.do === "signal") this.#signal(request.id, request.signal, request.group);
    else if (request.do === "hold") this.#hold(request.key);
    else if (request.do === "release") this.#release(request.key);
    else void this.#end(request.graceMs);
  }

  #start({ id, argv, env, openFiles }: StartRequest): void {
    // A second net below the first.
    const [file = "", ...args] = [...deathSignalPrefix(), ...argv];
    let child: ChildProcess;
    try {
      // Its own session: a terminal's Ctrl-C reaches Sluice alone, which passes it on once.
      child = withOpenFilesLimit(openFiles, () => spawn(file, args, { stdio: "inherit", detached: true, env }));
    } catch (error) {
      this.#report({ is: "failed", id, code: codeOf(error) });
      return;
    }
    child.once("error", (error) => {
      if (child.pid === undefined) this.#report({ is: "failed", id, code: codeOf(error) });
    });
    const { pid } = child;
    if (pid === undefined) return;
    this.#commands.set(id, child);
    this.#own.add(pid);
    child.once("exit", (code, name) => {
      this.#commands.delete(id);
      this.#own.delete(pid);
      this.#report({ is: "exited", id, code, signal: name });
    });
    this.#report({ is: "started", id, pid });
  }

  #signal(id: number, name: NodeJS.Signals, group: boolean): void {
    const pid = this.#commands.get(id)?.pid;
    if (pid !== undefined) signal(group ? -pid : pid, name);
  }

  #hold(key: string): void {
    try {
      const received = receiveDescriptors(FILES_FD, closeSync);
      this.#release(key);
      this.#held.set(key, received);
      this.#report({ is: "held", key });
    } catch (error) {
      this.#report({ is: "held", key, error: error instanceof Error ? error.message : String(error) });
    }
  }

  #release(key: string): void {
    for (const fd of this.#held.get(key) ?? []) closeSync(fd);
    this.#held.delete(key);
  }

  async #end(graceMs: number): Promise<void> {
    for (const pid of descendants(process.pid)) signal(pid, "SIGTERM");
    for (const end = Date.now() + graceMs; Date.now() < end && children(process.pid).length > 0;) {
      await new Promise((done) => setTimeout(done, 20));
      reapOrphans(this.#own);
    }
    await killDescendants(this.#own);
    this.#report({ is: "ended" });
  }

  async #endAlone(): Promise<void> {
    if (this.#alone) return;
    this.#alone = true;
    const left = descendants(process.pid);
    if (left.length > 0) say(`Sluice is gone; killing the application (${left.length} processes)`);
    await killDescendants(this.#own);
    process.exit(0);
  }

  #report(report: Report): void {
    if (!this.#channel.destroyed) this.#channel.write(`${JSON.stringify(report)}\n`);
  }
}

function codeOf(error: unknown): string {
  return systemErrorCode(error) ?? String(error);
}

function say(message: string): void {
  try {
    writeSync(2, `sluice guardian: ${message}\n`);
  } catch {
    // Nobody listens.
  }
}

process.title = "sluice-guardian";
new Guardian().serve();

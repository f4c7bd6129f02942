import { spawn } from "node:child_process";
import { constants } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { isatty } from "node:tty";
import { SluiceError } from "../errors/error.ts";
import { deathSignalPrefix } from "./death-signal.ts";
import { children, descendants, killDescendants, reapOrphans, signal } from "./descendants.ts";
import { findCommand } from "./exec-list.ts";
import { applicationEnvironment, openFilesLimit } from "./inherited.ts";
import { becomeSubreaper, withOpenFilesLimit } from "./libc.ts";
import type { Environment } from "./messages.ts";

const PASSED_ON = ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2"] as const;
/** From SIGTERM to SIGKILL. */
const GRACE_MS = 10_000;
const POLL_MS = 20;

/**
 * Runs one command as a shell would, on this process's terminal: with its standard streams, in its process group.
 * Signals are passed on, but those that a terminal sends to the whole group by itself. When `stop` is aborted the
 * command and everything it started gets SIGTERM, and SIGKILL ten seconds later. Resolves with its exit status as a shell
 * has it; after `stop`, when nothing of it is left. Rejects with SLU-6001, SLU-6002. Once in a process.
 */
export async function runInForeground(argv: readonly string[], env: Environment, stop: AbortSignal): Promise<number> {
  findCommand(argv[0] ?? "", env);
  becomeSubreaper();
  const [file = "", ...args] = [...deathSignalPrefix(), ...argv];
  const own = applicationEnvironment(env);
  const child = withOpenFilesLimit(openFilesLimit(env), () => spawn(file, args, { stdio: "inherit", env: own }));
  const ended = Promise.withResolvers<number>();
  child.once("error", (cause) => {
    if (child.pid !== undefined) return;
    ended.reject(new SluiceError("SLU-6002", `${argv[0]} can't be started: ${cause.message}`, { cause }));
  });
  child.once("exit", (code, name) => ended.resolve(code ?? 128 + (name === null ? 0 : constants.signals[name])));
  let ending: Promise<void> | undefined;
  const end = (): void => {
    if (child.pid !== undefined) ending ??= endAll(new Set([child.pid]));
  };
  const isTerminal = [0, 1, 2].some((fd) => isatty(fd));
  const handlers = PASSED_ON.map((name) => ({
    name,
    pass: (): void => {
      if (!isTerminal || (name !== "SIGINT" && name !== "SIGQUIT")) child.kill(name);
    },
  }));
  for (const { name, pass } of handlers) process.on(name, pass);
  stop.addEventListener("abort", end, { once: true });
  if (stop.aborted) end();
  try {
    const status = await ended.promise;
    await ending;
    return status;
  } finally {
    stop.removeEventListener("abort", end);
    for (const { name, pass } of handlers) process.off(name, pass);
  }
}

async function endAll(own: ReadonlySet<number>): Promise<void> {
  for (const pid of descendants(process.pid)) signal(pid, "SIGTERM");
  for (const end = Date.now() + GRACE_MS; Date.now() < end && children(process.pid).length > 0;) {
    await sleep(POLL_MS);
    reapOrphans(own);
  }
  await killDescendants(own);
}

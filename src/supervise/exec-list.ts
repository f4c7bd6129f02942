import { accessSync, constants, statSync } from "node:fs";
import path from "node:path";
import { parse } from "shell-quote";
import { SluiceError } from "../errors/error.ts";
import type { Environment } from "./messages.ts";

export type Role = "primary" | "replica";

/** One command of the application: an entry of `exec` in the configuration, or what stands behind `--`. */
export interface ExecEntry {
  readonly argv: readonly string[];
  /** The role in which it runs. */
  readonly on: "any" | Role;
  /** Whether it must end, with status 0, before the next entry starts. Otherwise it runs as long as Sluice does. */
  readonly wait: boolean;
}

/** An entry as it stands in the configuration: a command line alone, or with when and how. */
export type ExecConfig = string | { readonly cmd: string; readonly on?: ExecEntry["on"]; readonly wait?: boolean };

/** Reads the `exec` list. Throws SLU-6003 for a command line that {@link splitCommand} refuses. */
export function execEntries(list: readonly ExecConfig[]): ExecEntry[] {
  return list.map((entry) => {
    const { cmd, on = "any", wait = false } = typeof entry === "string" ? { cmd: entry } : entry;
    return { argv: splitCommand(cmd), on, wait };
  });
}

/**
 * Splits a command line into words, with the quotes and backslashes of a shell. It is no shell: variables stay as they
 * stand (the configuration has expanded its own), and operators, wildcards and comments are refused (SLU-6003), rather
 * than passed to the program as words.
 */
export function splitCommand(line: string): string[] {
  const words: string[] = [];
  for (const part of parse(line, (name) => `$${name}`)) {
    if (typeof part === "string") words.push(part);
    else throw new SluiceError("SLU-6003", `${JSON.stringify(line)} needs a shell: ${syntaxOf(part)}`);
  }
  if (!words[0]) throw new SluiceError("SLU-6003", `${JSON.stringify(line)} names no command`);
  return words;
}

function syntaxOf(part: object): string {
  if ("pattern" in part) return `the pattern ${String(part.pattern)}`;
  return "op" in part ? `the operator ${String(part.op)}` : "a comment";
}

/** The entries that run in `role`, in their order. */
export function entriesFor(role: Role, entries: readonly ExecEntry[]): ExecEntry[] {
  return entries.filter(({ on }) => on === "any" || on === role);
}

/**
 * The file that `execvp` would run for `command`. Throws SLU-6001 when there is none, and SLU-6002 when what is there
 * may not be executed.
 */
export function findCommand(command: string, env: Environment): string {
  const candidates = command.includes("/")
    ? [command]
    : (env["PATH"] ?? "/usr/bin:/bin").split(":").map((folder) => path.join(folder || ".", command));
  let refused: string | undefined;
  for (const candidate of candidates) {
    const state = executable(candidate);
    if (state === "yes") return candidate;
    if (state === "no") refused ??= candidate;
  }
  if (refused !== undefined) throw new SluiceError("SLU-6002", `${refused} is no executable file`);
  const where = command.includes("/") ? "" : " in PATH";
  throw new SluiceError("SLU-6001", `there is no ${command}${where}`);
}

function executable(file: string): "yes" | "no" | "missing" {
  try {
    if (!statSync(file).isFile()) return "no";
    accessSync(file, constants.X_OK);
    return "yes";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EACCES" ? "no" : "missing";
  }
}

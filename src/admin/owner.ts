import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { stateDirOf } from "../database/database.ts";

/** What `.NAME-sluice/owner.json` says: the process that looks after the database, and where it listens. */
export interface Owner {
  readonly pid: number;
  /** Field 22 of /proc/PID/stat: tells the process from another one that got its number later. */
  readonly startTime: string;
  readonly socket: string;
}

/** A path for this process's control socket; short, because a socket's name has room for 107 bytes only. */
export function socketPath(): string {
  const dir = path.join(os.tmpdir(), `sluice-${process.getuid?.() ?? 0}`);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  return path.join(dir, `${process.pid}-${startTimeOf(process.pid)}.sock`);
}

/** Notes this process as the one that looks after a database. */
export function writeOwner(file: string, socket: string): void {
  const dir = stateDirOf(file);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const owner: Owner = { pid: process.pid, startTime: startTimeOf(process.pid) ?? "", socket };
  const target = path.join(dir, "owner.json");
  writeFileSync(`${target}.tmp`, JSON.stringify(owner), { mode: 0o600 });
  renameSync(`${target}.tmp`, target);
}

/** The living process that looks after a database; undefined when there's none, or it has ended. */
export function readOwner(file: string): Owner | undefined {
  try {
    const owner = JSON.parse(readFileSync(path.join(stateDirOf(file), "owner.json"), "utf8")) as Owner;
    return startTimeOf(owner.pid) === owner.startTime ? owner : undefined;
  } catch {
    return undefined;
  }
}

/** Removes the note when it's this process's. */
export function removeOwner(file: string): void {
  if (readOwner(file)?.pid === process.pid) rmSync(path.join(stateDirOf(file), "owner.json"), { force: true });
}

function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command's name, in parentheses, may hold spaces.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

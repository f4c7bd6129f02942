import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
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

/**
 * A path for this process's control socket; short, because a socket's name has room for 107 bytes only. Sockets of
 * processes that were killed are removed; of another container that shares the folder it can't be told, and they stay.
 */
export function socketPath(): string {
  const dir = socketFolder();
  const container = /\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0] ?? "0";
  for (const name of readdirSync(dir)) {
    const [, where, pid, startTime] = /^(\d+)-(\d+)-(\d+)\.sock$/.exec(name) ?? [];
    const isGone = where === container && startTimeOf(Number(pid)) !== startTime;
    if (isGone) rmSync(path.join(dir, name), { force: true });
  }
  return path.join(dir, `${container}-${process.pid}-${startTimeOf(process.pid)}.sock`);
}

/** Control sockets of this user's processes, as far as they are still there. */
export function socketsHere(): string[] {
  const dir = socketFolder();
  return readdirSync(dir)
    .filter((name) => name.endsWith(".sock"))
    .map((name) => path.join(dir, name));
}

/** In a directory that all can write to, a folder that was there before is believed only when it's this user's alone. */
function socketFolder(): string {
  const uid = process.getuid?.() ?? 0;
  const dir = path.join(os.tmpdir(), `sluice-${uid}`);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const found = lstatSync(dir);
  const isOurs = found.isDirectory() && found.uid === uid && (found.mode & 0o077) === 0;
  return isOurs ? dir : mkdtempSync(`${dir}-`);
}

/** Notes this process as the one that looks after a database, unless another one that is alive does. */
export function writeOwner(file: string, socket: string): boolean {
  const other = readOwner(file);
  if (other !== undefined && other.pid !== process.pid) return false;
  const dir = stateDirOf(file);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const owner: Owner = { pid: process.pid, startTime: startTimeOf(process.pid) ?? "", socket };
  const target = path.join(dir, "owner.json");
  writeFileSync(`${target}.tmp`, JSON.stringify(owner), { mode: 0o600 });
  renameSync(`${target}.tmp`, target);
  return true;
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

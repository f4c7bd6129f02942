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
import type { OwnerNote } from "../cluster/succession/succession.ts";
import { stateDirOf } from "../database/database.ts";
import { pidScope } from "../supervise/guardian-file.ts";

/** What `.NAME-sluice/owner.json` says: the process that looks after the database, and where it listens. */
export interface Owner extends OwnerNote {
  readonly pid: number;
  /** Boot and pid namespace in which the pid means anything; several containers can share the directory. */
  readonly scope?: string;
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

/**
 * Notes this process as the one that looks after a database. With `hasIt` the locks are its own, and so is the note; without,
 * another one's stays as long as that may be alive.
 */
export function writeOwner(
  file: string,
  socket: string,
  { hasIt = false, ...where }: { readonly hasIt?: boolean } & Pick<OwnerNote, "path" | "succession"> = {},
): boolean {
  if (!hasIt && mayBeAnothers(file)) return false;
  const dir = stateDirOf(file);
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const owner: Owner = {
    pid: process.pid,
    startTime: startTimeOf(process.pid) ?? "",
    scope: pidScope(),
    socket,
    ...where,
  };
  const target = path.join(dir, "owner.json");
  writeFileSync(`${target}.tmp`, JSON.stringify(owner), { mode: 0o600 });
  renameSync(`${target}.tmp`, target);
  return true;
}

/** The living process that looks after a database; undefined when there's none here, or it has ended. */
export function readOwner(file: string): Owner | undefined {
  const owner = readNote(file);
  return owner !== undefined && isAlive(owner) ? owner : undefined;
}

/** What is noted, of whichever process: it may have ended, or be in another container. */
export function readNote(file: string): Owner | undefined {
  try {
    return JSON.parse(readFileSync(path.join(stateDirOf(file), "owner.json"), "utf8")) as Owner;
  } catch {
    return undefined;
  }
}

function isAlive({ pid, startTime, scope = pidScope() }: Owner): boolean {
  return scope === pidScope() && startTimeOf(pid) === startTime;
}

/** Of a process in another container of this boot nothing is known from here. */
function mayBeAnothers(file: string): boolean {
  const note = readNote(file);
  if (note === undefined) return false;
  const { pid, scope = pidScope() } = note;
  if (scope === pidScope()) return pid !== process.pid && isAlive(note);
  return scope.split(" ")[0] === pidScope().split(" ")[0];
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

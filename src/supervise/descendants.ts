import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { hasChildren, reapChild } from "./libc.ts";

/** The processes that `pid` started and that are still there (also as zombies), in no order. */
export function children(pid: number): number[] {
  const found: number[] = [];
  try {
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const list = readFileSync(`/proc/${pid}/task/${task}/children`, "latin1");
      for (const child of list.split(" ")) if (child.length > 0) found.push(Number(child));
    }
  } catch {
    // The process or one of its threads ended meanwhile: what it had started belongs to somebody else by now.
  }
  return found;
}

/** All descendants of `pid`, each after its parent. */
export function descendants(pid: number): number[] {
  const found = children(pid);
  for (let i = 0; i < found.length; i++) found.push(...children(found[i] ?? 0));
  return found;
}

/** Sends a signal; false when the process is gone or not ours to signal. */
export function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}

/**
 * A process's start in clock ticks since the boot (proc(5), stat, field 22): with the pid it names one process, though
 * pids are used again. Undefined when there is no such process, or only its zombie.
 */
export function startTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name in field 2 may hold anything, also ")"; field 3 stands after the last one.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** Removes the zombies that were handed to this process as subreaper, but not `own`, whose end libuv waits for. */
export function reapOrphans(own: ReadonlySet<number>): void {
  for (const pid of children(process.pid)) if (!own.has(pid)) reapChild(pid);
}

/**
 * Kills every descendant of this process but those in `spared`, again and again, until there is none: a process whose
 * parent dies comes to this process, its subreaper. Ends only then, so never while one can't be killed (other user,
 * waiting for a disk). `own` are the children that libuv waits for.
 */
export async function killDescendants(
  own: ReadonlySet<number>,
  spared: ReadonlySet<number> = new Set(),
): Promise<void> {
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, 100)) {
    const left = children(process.pid).filter((pid) => !spared.has(pid));
    for (const pid of left) left.push(...children(pid));
    if (left.length === 0 && (spared.size > 0 || !hasChildren())) return;
    for (const pid of left) signal(pid, "SIGKILL");
    await delay(pauseMs);
    for (const pid of children(process.pid)) if (!own.has(pid) && !spared.has(pid)) reapChild(pid);
  }
}

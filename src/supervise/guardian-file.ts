import { readFileSync, readlinkSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { isNativeError } from "node:util/types";
import { SluiceError } from "../errors/error.ts";
import { descendants, signal, startTime } from "./descendants.ts";

interface ProcessName {
  readonly pid: number;
  /** {@link startTime} of the process. */
  readonly start: string;
}

/** What the guardian's file says: which Sluice runs here with which guardian. */
interface GuardianFile {
  /** Boot and pid namespace in which the pids mean anything. */
  readonly scope: string;
  readonly sluice: ProcessName;
  readonly guardian: ProcessName;
}

/** Boot and pid namespace: two processes with the same one can tell each other by their pids. */
export function pidScope(): string {
  return `${readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim()} ${readlinkSync("/proc/self/ns/pid")}`;
}

function name(pid: number): ProcessName | undefined {
  const start = startTime(pid);
  return start === undefined ? undefined : { pid, start };
}

function isAlive(process: ProcessName): boolean {
  return startTime(process.pid) === process.start;
}

/** Notes this Sluice and its guardian, so that the next one finds them. Replaces the file as a whole. */
export async function writeGuardianFile(file: string, guardianPid: number): Promise<void> {
  const sluice = name(process.pid);
  const guardian = name(guardianPid);
  if (!sluice || !guardian) throw new Error(`process ${guardianPid} ended`);
  const content: GuardianFile = { scope: pidScope(), sluice, guardian };
  const stateDir = path.dirname(file);
  await mkdir(path.dirname(stateDir), { recursive: true });
  // Often the first that is made of a state directory: it holds pages, and is this user's alone.
  await mkdir(stateDir, { recursive: true, mode: 0o700 });
  await writeFile(`${file}.tmp`, `${JSON.stringify(content)}\n`);
  await rename(`${file}.tmp`, file);
}

/** Removes the file after an orderly end, unless a successor has noted its own guardian there. */
export async function removeGuardianFile(file: string, guardianPid: number): Promise<void> {
  const noted = await readGuardianFile(file);
  if (noted === undefined || noted.guardian.pid === guardianPid) await rm(file, { force: true });
}

/**
 * Before Sluice opens a database: makes sure that nothing of an earlier life is left. A guardian whose Sluice died
 * kills the application and exits by itself; this waits for it, and after `limitMs` kills both.
 * Throws SLU-6004 when the Sluice that the file names is alive and isn't to be taken over, SLU-6005 when something of the earlier life can't be
 * killed. A file from before the last boot, from another container or damaged says nothing and is ignored.
 */
export async function endOldGuardian(
  file: string,
  { takesOver = false, limitMs = 10_000 }: { readonly takesOver?: boolean; readonly limitMs?: number } = {},
): Promise<void> {
  const old = await readGuardianFile(file);
  if (!old || old.scope !== pidScope()) return;
  if (old.sluice.pid !== process.pid && isAlive(old.sluice)) {
    if (takesOver) return;
    throw new SluiceError("SLU-6004", `${path.dirname(file)} is looked after by process ${old.sluice.pid}`);
  }
  // It may have been stopped, and would then never notice that its Sluice died.
  if (isAlive(old.guardian)) signal(old.guardian.pid, "SIGCONT");
  if (await gone(old.guardian, limitMs)) return;
  const left = descendants(old.guardian.pid);
  for (const pid of [...left, old.guardian.pid]) signal(pid, "SIGKILL");
  if (await gone(old.guardian, limitMs)) return;
  throw new SluiceError("SLU-6005", `still there: guardian ${old.guardian.pid}, application ${left.join(", ")}`);
}

async function gone(guardian: ProcessName, limitMs: number): Promise<boolean> {
  for (const end = Date.now() + limitMs; isAlive(guardian); await delay(20)) if (Date.now() >= end) return false;
  return true;
}

async function readGuardianFile(file: string): Promise<GuardianFile | undefined> {
  try {
    const content = JSON.parse(await readFile(file, "utf8")) as GuardianFile;
    const whole = [content.sluice, content.guardian].every((one) => Number.isSafeInteger(one.pid) && one.pid > 1);
    return whole ? content : undefined;
  } catch (error) {
    // Missing or damaged (a syntax error, or a field that isn't there) says nothing; anything else must be seen.
    if (isNativeError(error) && ["ENOENT", "ENOTDIR", undefined].includes((error as NodeJS.ErrnoException).code))
      return undefined;
    throw error;
  }
}

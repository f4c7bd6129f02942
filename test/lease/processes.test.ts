import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { bootMs } from "../../src/lease/boot-clock.ts";
import { FileLease } from "../../src/lease/file-lease.ts";
import { LeaseKeeper } from "../../src/lease/keeper.ts";
import type { LeaseRegister } from "../../src/lease/lease.ts";
import { StoreLease } from "../../src/lease/store-lease.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { untilTrue } from "./conformance.ts";

const TTL_MS = 2_500;
let dir: string;
const children: ChildProcess[] = [];
const keepers: LeaseKeeper[] = [];

beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-lease-"));
});
afterEach(async () => {
  await Promise.all(keepers.splice(0).map((keeper) => keeper.close()));
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }
  rmSync(dir, { recursive: true, force: true });
});

/** A process that wants the lease, and what it said. */
function start(kind: "file" | "store", place: string, ttlMs = TTL_MS): { child: ChildProcess; lines: string[] } {
  const program = path.join(import.meta.dirname, "child.ts");
  const child = spawn(process.execPath, [program, kind, place, String(ttlMs), "child"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  const lines: string[] = [];
  child.stdout.on("data", (chunk: Buffer) => lines.push(...chunk.toString().trim().split("\n")));
  return { child, lines };
}

function keep(register: LeaseRegister): LeaseKeeper {
  const node = { id: "test", name: "test", advertise: "" };
  const keeper = new LeaseKeeper({ register, node, ttlMs: TTL_MS, events: {} });
  keepers.push(keeper);
  keeper.start();
  return keeper;
}

test("the boot clock goes on with time, in ms", async () => {
  const before = [bootMs(), performance.now()] as const;
  await sleep(120);
  const passedMs = bootMs() - before[0];
  expect(Math.abs(passedMs - (performance.now() - before[1]))).toBeLessThan(50);
  // Since the machine's boot, not since the process's start.
  expect(Math.abs(bootMs() / 1000 - os.uptime())).toBeLessThan(5);
});

describe("a process that has the lease", () => {
  test("stopped beyond the ttl and resumed, it holds nothing from its first look on", async () => {
    const { child, lines } = start("store", dir);
    await untilTrue(() => lines.includes("acquired 1"));
    const keeper = keep(new StoreLease(new DirectoryStore(dir)));
    child.kill("SIGSTOP");
    expect((await keeper.acquire())!.generation).toBe(2);
    expect(lines).toEqual(["acquired 1"]);
    const resumedMs = performance.now();
    child.kill("SIGCONT");
    await untilTrue(() => lines.length > 1);
    expect(performance.now() - resumedMs).toBeLessThan(2_000);
    await untilTrue(() => lines.length > 2);
    expect(lines).toEqual(["acquired 1", "lost expired", "held false"]);
    expect(keeper.isHeld()).toBe(true);
  });

  test("killed, a lock file makes way at once", async () => {
    const file = path.join(dir, "primary");
    // Nobody waits for this ttl.
    const { child, lines } = start("file", file, 3_600_000);
    await untilTrue(() => lines.includes("acquired 1"));
    const keeper = keep(new FileLease(file));
    const acquired = keeper.acquire();
    await untilTrue(() => keeper.holder !== undefined);
    await sleep(100);
    expect(keeper.isHeld()).toBe(false);
    child.kill("SIGKILL");
    await once(child, "exit");
    expect((await acquired)!.generation).toBe(2);
  });

  test("stopped, it keeps its lock, and a lock file passes after the ttl all the same", async () => {
    const file = path.join(dir, "primary");
    const { child, lines } = start("file", file);
    await untilTrue(() => lines.includes("acquired 1"));
    child.kill("SIGSTOP");
    const keeper = keep(new FileLease(file));
    const beganMs = performance.now();
    await keeper.acquire();
    expect(performance.now() - beganMs).toBeGreaterThan(TTL_MS * 0.9);
    child.kill("SIGCONT");
    await untilTrue(() => lines.includes("held false"));
    // What the other process lets go is not what this one stands on.
    const third = keep(new FileLease(file));
    await untilTrue(() => third.holder !== undefined);
    child.kill("SIGKILL");
    await once(child, "exit");
    void third.acquire();
    await sleep(300);
    expect([keeper.isHeld(), third.isHeld()]).toEqual([true, false]);
  });
});

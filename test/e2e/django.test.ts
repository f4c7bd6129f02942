import { existsSync, mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { lacks } from "../peers/peers.ts";
import { faults, Ledger } from "./ledger.ts";
import { randomFrom } from "./random.ts";
import { Site, sluiceCommand, users } from "./site.ts";

let base: string;
let storeUrl: string;
let ledger: Ledger;

beforeEach(() => {
  base = mkdtempSync(path.join(os.tmpdir(), "sluice-e2e-"));
  storeUrl = `file://${base}/store`;
  ledger = new Ledger(path.join(base, "journal"));
});

afterEach(() => {
  rmSync(base, { recursive: true, force: true });
});

function machine(name: string): { dir: string; storeUrl: string } {
  return { dir: path.join(base, name), storeUrl };
}

async function sync(site: Site): Promise<boolean> {
  const { status } = await sluiceCommand("sync", "--wait", "store", site.database);
  return status === 0;
}

describe.skipIf(lacks("django"))("Django with gunicorn", () => {
  test("a clean stop sends everything; another machine goes on with it", async () => {
    await using site = await Site.start(machine("one"));
    ledger.start(() => site.url, 4);
    await delay(2000);
    await ledger.stop();
    const visit = await fetch(`${site.url}/`);
    const cookie = visit.headers.getSetCookie()[0]?.split(";")[0] ?? "";
    expect(await visit.json()).toEqual({ visits: 1 });
    expect(await site.stop()).toBe(0);
    expect(faults(site.database, ledger, "acknowledged")).toEqual([]);
    rmSync(path.dirname(site.database), { recursive: true });

    await using next = await Site.start(machine("two"));
    expect(faults(next.database, ledger, "acknowledged")).toEqual([]);
    expect(ledger.known.size).toBeGreaterThan(10);
    // The session lives on, too.
    expect(await (await fetch(`${next.url}/`, { headers: { cookie } })).json()).toEqual({ visits: 2 });
    expect(await next.stop()).toBe(0);
  });

  test(
    "random kills lose nothing on the disk; without the disk, nothing that was durable",
    { timeout: 300_000 },
    async () => {
      const seed = Number(process.env["SEED"] ?? Date.now() % 1_000_000);
      console.log(`seed ${seed} (SEED=${seed} runs the same kills)`);
      const random = randomFrom(seed);
      const cycles = Number(process.env["CYCLES"] ?? 2);
      for (let cycle = 0; cycle < cycles; cycle++) {
        let site = await Site.start(machine(`machine-${cycle}`));
        try {
          ledger.start(() => (site.isOver ? undefined : site.url), 4);
          for (let kill = 0; kill < 4; kill++) {
            for (const end = Date.now() + 500 + random() * 2000; Date.now() < end;)
              await ledger.durableBy(() => sync(site));
            const victim = pick(site, random());
            console.log(`cycle ${cycle}, kill ${kill}: ${victim.name}`);
            for (const pid of victim.pids) process.kill(pid, "SIGKILL");
            if (victim.name === "worker") continue;
            await site.allGone();
            expect(faults(site.database, ledger, "acknowledged")).toEqual([]);
            site = await Site.start(machine(`machine-${cycle}`));
          }
          await ledger.durableBy(() => sync(site));
          // The machine dies while clients write, and its disk is gone.
          process.kill(site.processes.sluice, "SIGKILL");
          await site.allGone();
          await ledger.stop();
          rmSync(path.dirname(site.database), { recursive: true });
        } finally {
          await ledger.stop();
          await site[Symbol.asyncDispose]();
        }
        const restored = path.join(base, `restored-${cycle}.db`);
        expect(await sluiceCommand("restore", "-o", restored, storeUrl)).toMatchObject({ status: 0 });
        expect(faults(restored, ledger, "durable")).toEqual([]);
        expect([...ledger.known.values()].filter(({ durable }) => durable).length).toBeGreaterThan(10);
        console.log(
          `cycle ${cycle}: ${ledger.known.size} sent, ${ledger.forgetLost(restored)} lost with the disk, none of them durable`,
        );
      }
    },
  );

  test("on an empty disk with the store out of reach, nothing starts", async () => {
    const unreachable = {
      dir: path.join(base, "one"),
      storeUrl: "s3://bucket/app?endpoint=http://127.0.0.1:1&region=x",
    };
    await expect(Site.start(unreachable)).rejects.toThrow(/SLU-4113/);
    expect(existsSync(path.join(unreachable.dir, "app.db"))).toBe(false);
    expect(users(unreachable.dir)).toEqual([]);
  });
});

function pick(site: Site, random: number): { name: string; pids: number[] } {
  const { sluice, guardian, master, workers } = site.processes;
  const victims = [
    { name: "worker", pids: [workers[Math.floor(random * 1000) % workers.length] ?? 0] },
    { name: "gunicorn", pids: [master] },
    { name: "sluice", pids: [sluice] },
    { name: "guardian", pids: [guardian] },
    { name: "everything", pids: [sluice, guardian, master, ...workers] },
  ];
  const victim = victims[Math.floor(random * victims.length)];
  if (victim?.pids.every((pid) => pid > 1) !== true) throw new Error(`no victim: ${JSON.stringify(site.processes)}`);
  return victim;
}

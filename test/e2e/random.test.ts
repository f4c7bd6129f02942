import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { Place, type Running } from "../cli/sluice.ts";
import { runApp, until } from "../database/apps.ts";
import { BankJournal } from "./bank-journal.ts";
import { randomFrom } from "./random.ts";

const seed = Number(process.env["SLUICE_SEED"] ?? Date.now() % 1_000_000);
const SECONDS = Number(process.env["SLUICE_SECONDS"] ?? (process.env["CI"] ? 25 : 12));
const BANK = path.resolve(import.meta.dirname, "../apps/bank.py");
const PROTECTED = '"message":"protected"';

/** One machine after another with a bank and Sluice on it, and the store, which outlives them. */
class World {
  readonly place = new Place();
  readonly journal = new BankJournal(this.place.path("journal"));
  readonly db = this.place.path("disk/app.db");
  readonly random = randomFrom(seed);
  #sluice: Running | undefined;
  #life = seed;

  constructor() {
    mkdirSync(path.dirname(this.db));
    runApp("bank", this.db, "--create");
  }

  pick<T>(...some: readonly [T, ...T[]]): T {
    return some[Math.floor(this.random() * some.length)] ?? some[0];
  }

  /** Sluice, and two of the bank's processes: beside it, or below it. */
  async start(how: "run" | "replicate"): Promise<void> {
    const bank = (): string[] => ["python3", BANK, this.db, this.journal.path, "--seed", String(this.#life++)];
    if (how === "run") {
      const exec = [bank(), bank()].map((words) => `  - cmd: ${words.join(" ")}\n`).join("");
      const config = this.place.path("sluice.yml");
      writeFileSync(config, `dbs:\n  - path: ${this.db}\n    store: ${this.place.store}\nexec:\n${exec}`);
      this.#sluice = await this.place.start(PROTECTED, "run", "--config", config);
      return;
    }
    const args = ["--restore-if-db-not-exists", this.db, this.place.store];
    this.#sluice = await this.place.start(PROTECTED, "replicate", ...args);
    // Those of the last life may still be there, when only Sluice was killed.
    while (this.bankers.length < 2) {
      const before = this.bankers.length;
      const [command = "", ...words] = bank();
      spawn(command, words, { stdio: "ignore" });
      await until(() => this.bankers.length > before, "another process of the bank", 20_000);
    }
  }

  /** The bank's processes that are alive. */
  get bankers(): number[] {
    return [...this.journal.story.pids].filter((pid) => {
      try {
        return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
      } catch {
        return false;
      }
    });
  }

  async killSluice(): Promise<void> {
    await this.#sluice?.end("SIGKILL");
  }

  async killBankers(some: readonly number[] = this.bankers): Promise<void> {
    for (const pid of some) {
      try {
        process.kill(pid, "SIGKILL");
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
      }
    }
    await until(() => !this.bankers.some((pid) => some.includes(pid)), "the end of what was killed", 20_000);
  }

  async sync(): Promise<boolean> {
    return this.journal.durableBy(
      async () => (await this.place.sluice("sync", "--wait", "store", "--timeout", "30s", this.db)).status === 0,
    );
  }

  /** Restores elsewhere and compares; returns the number of commits. */
  async restored(): Promise<number> {
    const copy = this.place.path("restored.db");
    rmSync(copy, { force: true });
    const { status, stderr } = await this.place.sluice("restore", "-o", copy, this.place.store);
    if (status !== 0) throw new Error(`restore: ${status}: ${stderr}`);
    return this.journal.check(copy, "durable");
  }

  loseDisk(): void {
    rmSync(path.dirname(this.db), { recursive: true });
    mkdirSync(path.dirname(this.db));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.killSluice();
    await this.killBankers();
    await this.place[Symbol.asyncDispose]();
  }
}

test(
  `a bank, killed at random with Sluice or without, its disk deleted: what was durable comes back (seed ${seed})`,
  { timeout: SECONDS * 1000 + 180_000 },
  async () => {
    console.log(`seed ${seed} (SLUICE_SEED=${seed} makes the same choices)`);
    await using world = new World();
    const { journal } = world;
    const end = Date.now() + SECONDS * 1000;
    let disks = 0;
    for (let cycle = 0; cycle < 3 || disks === 0 || Date.now() < end; cycle++) {
      const how = world.pick("run", "replicate");
      // A process of `run` never begins beside one that nobody guards.
      if (how === "run") await world.killBankers();
      await world.start(how);
      for (let i = world.pick(1, 2); i > 0; i--) {
        await delay(200 + world.random() * 600);
        expect(await world.sync()).toBe(true);
      }
      await delay(world.random() * 400);
      const victim = cycle === 2 ? "disk" : world.pick("banker", "sluice", "everything", "disk");
      if (victim === "banker") {
        await world.killBankers(world.bankers.slice(0, 1));
        await delay(200);
      }
      await world.killSluice();
      if (how === "run") await expect.poll(() => world.bankers, { timeout: 20_000 }).toEqual([]);
      // Without Sluice, the bank goes on, and merges its WAL.
      if (victim === "sluice") await delay(world.random() * 500);
      else await world.killBankers();
      const commits = await world.restored();
      if (victim === "disk") {
        disks++;
        const lost = journal.last - commits;
        world.loseDisk();
        journal.lostAfter(commits);
        console.log(
          `cycle ${cycle}: ${how}, disk lost after ${commits}, with ${Math.max(0, lost)} that were not durable`,
        );
      } else {
        const there = world.bankers.length > 0 ? "more" : journal.check(world.db, "committed");
        console.log(`cycle ${cycle}: ${how}, ${victim} killed, ${commits} in the store, ${there} on the disk`);
      }
    }
    await world.killBankers();
    await world.start("replicate");
    expect(await world.sync()).toBe(true);
    await world.killSluice();
    await world.killBankers();
    expect(journal.check(world.db, "committed")).toBeGreaterThan(50);
    expect(await world.restored()).toBeGreaterThan(50);
  },
);

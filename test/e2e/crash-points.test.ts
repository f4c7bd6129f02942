import { spawn } from "node:child_process";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { test } from "vitest";
import { ask } from "../../src/admin/client.ts";
import { environment, launcher, Place, Running } from "../cli/sluice.ts";
import { runApp, until } from "../database/apps.ts";
import { BankJournal } from "./bank-journal.ts";
import type { KillPoint } from "./kill-in-call.ts";

const BANK = path.resolve(import.meta.dirname, "../apps/bank.py");
const KILL = path.resolve(import.meta.dirname, "kill-in-call.ts");
const PROTECTED = '"message":"protected"';

const points: readonly (KillPoint & { readonly name: string })[] = [
  { name: "while the local LTX file is written", call: "writeSync", file: "-sluice/.*ltx", nth: 60, when: "half" },
  { name: "frozen, not sent", call: "link", file: "/0/[^/]*$", nth: 5, when: "before" },
  { name: "appended, the answer not seen", call: "link", file: "/0/[^/]*$", nth: 5, when: "after" },
  { name: "a takeover's record appended, the answer not seen", call: "link", file: "/0/[^/]*$", nth: 1, when: "after" },
  { name: "at the first page of a backfill", call: "writeSync", file: "/app.db$", nth: 1, when: "half" },
  { name: "in the middle of a backfill", call: "writeSync", file: "/app.db$", nth: 20, when: "half" },
  { name: "before a merged file is in place", call: "link", file: "/1/[^/]*$", nth: 2, when: "before" },
  { name: "when a merged file has just been put in place", call: "link", file: "/1/[^/]*$", nth: 2, when: "after" },
  { name: "before a record that is covered goes", call: "rm", file: "/0/[^/]*ltx$", nth: 1, when: "before" },
  { name: "in the middle of the deletions", call: "rm", file: "/0/[^/]*ltx$", nth: 3, when: "after" },
];

/** Every file of the log, and what is in it. */
function slots(store: string): Map<string, Buffer> {
  const names = readdirSync(store, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ltx"));
  return new Map(names.map((name) => [name, readFileSync(path.join(store, name))]));
}

// Most of it is waiting, so some of them wait together.
test.concurrent.for(points)(
  "Sluice killed $name: what was acknowledged is there",
  { timeout: 120_000 },
  async (point, { expect }) => {
    await using place = new Place();
    const db = place.path("app.db");
    const store = place.path("store");
    const journal = new BankJournal(place.path("journal"));
    const config = place.path("sluice.yml");
    writeFileSync(
      config,
      `dbs:\n  - path: ${db}\n    store: ${place.store}\n    sync-interval: 100ms\nl0-retention: 1s\nlevels:\n  - interval: 1s\n  - interval: 1h\n`,
    );
    runApp("bank", db, "--create");
    const restored = async (): Promise<number> => {
      rmSync(place.path("copy.db"), { force: true });
      const { status, stderr } = await place.sluice("restore", "-o", place.path("copy.db"), place.store);
      expect(status, stderr).toBe(0);
      return journal.check(place.path("copy.db"), "durable");
    };
    const bank = spawn("python3", [BANK, db, journal.path], { stdio: "ignore" });
    try {
      const env = { ...environment(), NODE_OPTIONS: `--import=${KILL}`, SLUICE_KILL: JSON.stringify(point) };
      const stdio: ["ignore", "pipe", "pipe"] = ["ignore", "pipe", "pipe"];
      const killed = new Running(spawn(launcher, ["replicate", "--config", config], { env, stdio, cwd: place.dir }));
      const { child } = killed;
      const question = { method: "POST", path: "/v1/sync", body: { db, wait: "store", timeoutMs: 5_000 } } as const;
      const sync = (): Promise<boolean> =>
        ask(db, question).then(
          () => true,
          () => false,
        );
      for (const end = Date.now() + 80_000; child.signalCode === null && child.exitCode === null;) {
        if (Date.now() > end) {
          await killed.end("SIGKILL");
          throw new Error(`never there: ${killed.output.slice(-2000)}`);
        }
        await Promise.all([journal.durableBy(sync), delay(50)]);
      }
      expect({ signal: child.signalCode, output: child.signalCode ? "" : killed.output }).toEqual({
        signal: "SIGKILL",
        output: "",
      });
      const before = slots(store);
      await restored();

      const next = await place.start(PROTECTED, "replicate", "--config", config);
      const { last } = journal;
      await until(() => journal.last > last + 5, "the bank to go on", 20_000);
      expect(await journal.durableBy(sync)).toBe(true);
      expect(await restored()).toBeGreaterThan(last);
      // No slot ever has two contents.
      const after = slots(store);
      for (const [name, bytes] of before) if (after.has(name)) expect(after.get(name)!.equals(bytes), name).toBe(true);
      await next.end("SIGKILL");
    } finally {
      bank.kill("SIGKILL");
    }
    expect(journal.check(db, "committed")).toBeGreaterThan(5);
  },
);

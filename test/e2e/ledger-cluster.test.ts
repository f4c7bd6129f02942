import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { expect, test } from "vitest";
import { Ledger, Load } from "../../src/cli/demo/ledger.ts";
import { FrontedNodes } from "./fronted.ts";
import { root } from "./site.ts";

const names = ["a", "b", "c"] as const;
const CLIENTS = 4;
const HANDOVERS = 6;
const LIMIT_MS = 30_000;

test(
  "written and read over all nodes, through handovers and the loss of a primary: nothing stale, nothing acknowledged lost",
  { timeout: 180_000 },
  async () => {
    await using nodes: FrontedNodes = new FrontedNodes((name, port) => {
      const application = path.join(root, "src/cli/demo/application.ts");
      return {
        exec: [`{ cmd: "${process.execPath} ${application} ${nodes.db(name)} ${port}" }`],
        env: { DATABASE_PATH: nodes.db(name) },
      };
    });
    await nodes.up(names.slice(0, 1), "/entries/none");
    expect(await new Ledger().write(nodes.door("a"))).toBeDefined();
    await nodes.up(names.slice(1), "/entries/none");
    const ledger = new Ledger();
    const doors = names.map((name) => nodes.door(name));

    // Steady, then handed over: no request fails.
    const calm = new Load(ledger, doors, CLIENTS);
    await expect.poll(() => calm.requests, { timeout: LIMIT_MS }).toBeGreaterThan(100);
    for (let i = 0; i < HANDOVERS; i++) {
      await nodes.allFollow(names);
      const primary = await nodes.primary(names);
      await nodes.promote(names.filter((name) => name !== primary)[i % 2]!);
      await delay(100);
    }
    await calm.stop();
    expect({ failed: ledger.failed, stale: calm.stale }).toEqual({ failed: 0, stale: 0 });

    // A primary that dies takes its requests with it, and nothing that it had acknowledged.
    await nodes.allFollow(names);
    const primary = await nodes.primary(names);
    const others = names.filter((name) => name !== primary);
    const left = others.map((name) => nodes.door(name));
    const load = new Load(ledger, left, CLIENTS);
    await expect.poll(() => load.requests, { timeout: LIMIT_MS }).toBeGreaterThan(20);
    await nodes.lose(primary);
    expect(others).toContain(await nodes.primary(others));
    const before = ledger.count;
    await expect.poll(() => ledger.count, { timeout: LIMIT_MS }).toBeGreaterThan(before + 20);
    await nodes.up([primary], "/entries/none");
    await load.stop();
    expect(load.stale).toBe(0);
    await nodes.allFollow(names);
    for (const name of names) await expect.poll(() => ledger.missing(nodes.door(name)), { timeout: LIMIT_MS }).toBe(0);
  },
);

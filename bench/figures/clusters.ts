import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import Sqlite from "better-sqlite3";
import { applications } from "../../test/faults/cluster/applications.ts";
import { entriesOf, inStep } from "../../test/faults/cluster/checks.ts";
import { Loopback } from "../../test/faults/cluster/network.ts";
import { FaultyNode } from "../../test/faults/cluster/nodes.ts";
import { DirectoryPlace, type FaultyStore, S3Place } from "../../test/faults/cluster/stores.ts";
import { S3Proxy } from "../../test/faults/s3-proxy.ts";
import { peers } from "../../test/peers/peers.ts";
import { type Figure, quantile } from "../lib/report.ts";
import { folder } from "../lib/sluice.ts";
import { perMonth } from "./requests.ts";

const RESUMES = 20;
/** Tries in a row that say that a gate is closed; one may meet Sluice's own work. */
const REFUSED = 50;
const PAUSED_TTL_MS = 2_000;
const IDLE_TTL_MS = 10_000;
const SETTLE_SECONDS = 30;
const IDLE_SECONDS = 180;
const FAILOVERS = 5;
const FAILOVER_TTL_MS = 5_000;

/** Three real nodes with front doors and a small application. */
class Three implements AsyncDisposable {
  readonly #resources = new AsyncDisposableStack();
  readonly nodes: FaultyNode[] = [];

  async start(dir: string, ttlMs: number, store: Pick<FaultyStore, "url" | "env">): Promise<this> {
    const network = this.#resources.use(new Loopback());
    const parts = { dir, ttlMs, network, store, application: applications.ledger, faketime: undefined };
    for (const name of ["a", "b", "c"]) this.nodes.push(this.#resources.use(await FaultyNode.make(name, parts)));
    for (const node of this.nodes) node.start();
    for (let i = 0; (await add(this.nodes[i % 3]!, "first", "local")) !== 201; i++) await sleep(100);
    await inStep(this.nodes);
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources[Symbol.asyncDispose]();
  }
}

async function add(node: FaultyNode, key: string, level: string): Promise<number | undefined> {
  const body = JSON.stringify({ key, value: key });
  const signal = AbortSignal.timeout(30_000);
  const headers = { "sluice-durability": level };
  const asked = fetch(`${node.door}/entries`, { method: "POST", body, headers, signal });
  return (await asked.catch(() => undefined))?.status;
}

/**
 * From SIGCONT until the application can't begin a transaction, and stays so; what it wrote until then is nobody's promise.
 */
async function untilClosed(node: FaultyNode): Promise<number> {
  const db = new Sqlite(node.db, { timeout: 0 });
  try {
    const sinceMs = performance.now();
    node.signal("SIGCONT");
    let closedMs = sinceMs;
    for (let refused = 0; refused < REFUSED; await sleep(1)) {
      try {
        db.exec("begin immediate; rollback");
        refused = 0;
      } catch {
        if (refused++ === 0) closedMs = performance.now();
      }
    }
    return closedMs - sinceMs;
  } finally {
    db.close();
  }
}

/** Processes that were stopped for longer than their lease. */
export function resumed(): Figure {
  return {
    name: "resumed",
    section: "clusters",
    seconds: RESUMES * 7,
    async run(scratch) {
      const dir = folder(scratch, "resumed");
      await using store = new DirectoryPlace(dir);
      await using three = await new Three().start(dir, PAUSED_TTL_MS, store);
      const { nodes } = three;
      const closedMs: number[] = [];
      const acknowledged: string[] = [];
      for (let i = 0; i < RESUMES; i++) {
        const primary = await inStep(nodes);
        primary.signal("SIGSTOP");
        // They are in its front door when it goes on.
        const writes = Array.from({ length: 4 }, async (_, n) => {
          await sleep(PAUSED_TTL_MS * 1.5);
          const key = `${i}-${n}`;
          if ((await add(primary, key, "store")) === 201) acknowledged.push(key);
        });
        await sleep(PAUSED_TTL_MS * 2);
        closedMs.push(await untilClosed(primary));
        await Promise.all(writes);
      }
      const there = entriesOf((await inStep(nodes)).db, applications.ledger.table);
      const lost = acknowledged.filter((key) => !there.has(key)).length;
      return {
        rows: [
          {
            figure: "resumed after `SIGSTOP` beyond the TTL → gate closed",
            measures: [
              { label: "p50", unit: "ms", values: [quantile(closedMs, 0.5)] },
              { label: "longest", unit: "ms", values: [Math.max(...closedMs)], atMost: 100, worst: true },
              { label: "acknowledged at `store` and not in the log", values: [lost], atMost: 0, worst: true },
            ],
            note: `${RESUMES} times, TTL ${PAUSED_TTL_MS / 1000} s, stopped for twice that; of ${4 * RESUMES} writes in its front door meanwhile ${acknowledged.length} were acknowledged, by the new primary`,
          },
        ],
      };
    },
  };
}

/** Primaries that are killed; a client writes to another node's front door from that moment on. */
export function failover(): Figure {
  return {
    name: "failover",
    section: "clusters",
    seconds: FAILOVERS * 10,
    async run(scratch) {
      const dir = folder(scratch, "failover");
      await using store = new DirectoryPlace(dir);
      await using three = await new Three().start(dir, FAILOVER_TTL_MS, store);
      const { nodes } = three;
      const took: number[] = [];
      for (let i = 0; i < FAILOVERS; i++) {
        const primary = await inStep(nodes);
        const other = nodes.find((node) => node !== primary)!;
        const sinceMs = performance.now();
        primary.signal("SIGKILL");
        while ((await add(other, `after-${i}`, "local")) !== 201) await sleep(10);
        took.push((performance.now() - sinceMs) / 1000);
      }
      return {
        rows: [
          {
            figure: "primary killed → writes accepted elsewhere, lease `store`, TTL 5 s",
            measures: [{ unit: "s", digits: 2, values: took, atMost: FAILOVER_TTL_MS / 1000 + 1, worst: true }],
            note: `\`kill -9\`, ${FAILOVERS} times; the longest counts`,
          },
        ],
      };
    },
  };
}

/** Three nodes without a write, around an S3 server: what they ask of it, and what that costs. */
export function idleCluster(): Figure {
  return {
    name: "idle cluster",
    section: "clusters",
    seconds: SETTLE_SECONDS + IDLE_SECONDS + 20,
    async run(scratch) {
      if (!existsSync(peers.weed)) return { rows: [] };
      await using server = await S3Place.start({ address: "127.0.0.1", via: [] });
      const proxy = await S3Proxy.start(server.port);
      const url = server.url.replace(`:${server.port}`, `:${proxy.port}`);
      const store = { url, env: server.env };
      try {
        await using _three = await new Three().start(folder(scratch, "idle-cluster"), IDLE_TTL_MS, store);
        await sleep(SETTLE_SECONDS * 1000);
        proxy.take();
        await sleep(IDLE_SECONDS * 1000);
        const { perHour, dollars } = perMonth(proxy.take(), IDLE_SECONDS);
        return {
          rows: [
            {
              figure: "requests to the store by an idle three-node cluster, an hour; their price on S3 a month",
              measures: [
                ...Array.from(perHour, ([label, count]) => ({ label, values: [count] })),
                { unit: "$", digits: 2, values: [dollars] },
              ],
              note: `counted for ${IDLE_SECONDS} s before SeaweedFS; lease \`store\`, TTL ${IDLE_TTL_MS / 1000} s; list price of S3 Standard in us-east-1`,
            },
          ],
        };
      } finally {
        await proxy.stop();
      }
    },
  };
}

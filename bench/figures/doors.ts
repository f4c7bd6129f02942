import { writeFileSync } from "node:fs";
import path from "node:path";
import Database from "better-sqlite3";
import { FrontedNodes } from "../../test/e2e/fronted.ts";
import { freePort } from "../../test/e2e/site.ts";
import { CONNECTIONS, durableWrites, latency, Process, RATE, throughput, upload } from "../lib/door-load.ts";
import { entriesNode } from "../lib/entries.ts";
import { LedgerLoad } from "../lib/ledger-load.ts";
import { Background, root, sluice, writer } from "../lib/processes.ts";
import { type Figure, quantile } from "../lib/report.ts";
import { s3Server } from "../lib/s3.ts";
import { folder } from "../lib/sluice.ts";

const HANDOVERS = 100;
const STALE_READS = 100_000;
const GROUP_SECONDS = 5;
const WRITERS = 500;
const CAPTURE_MEGABYTES = 64;
const names = ["a", "b", "c"] as const;

/** Front doors alone: requests, latency, and a large upload through a replica. */
export function doors(): Figure {
  return {
    name: "front door",
    section: "front door",
    seconds: 40,
    async run() {
      await using app = await new Process("small-app.ts").ready();
      await using primary = await new Process("door.ts", "primary", app.port).ready();
      await using replica = await new Process("door.ts", "replica", app.port, primary.port).ready();
      const rate = await throughput(replica);
      const [p50, p99] = await addedLatency(app.port, replica.port);
      const { grown, seconds } = await upload(primary, replica);
      return {
        rows: [
          {
            figure: "small GET through the front door: requests/s on one core",
            measures: [{ values: [rate.perCore], atLeast: 4000 }],
            note: `requests for each second of its processor time, ${CONNECTIONS} connections; ${rate.perSecond.toFixed(0)}/s as they came, beside application and load`,
          },
          {
            figure: `its added latency at ${RATE}/s`,
            measures: [
              { label: "p50", unit: "ms", digits: 2, values: [p50], atMost: 0.5 },
              { label: "p99", unit: "ms", digits: 2, values: [p99], atMost: 3 },
            ],
            note: "against the application itself, in turns",
          },
          {
            figure: "1 GB upload forwarded from a replica: RSS growth",
            measures: [
              { label: "replica", unit: "MB", digits: 1, values: [grown[1]!], atMost: 30 },
              { label: "primary", unit: "MB", digits: 1, values: [grown[0]!], atMost: 30 },
            ],
            note: `in ${seconds.toFixed(1)} s; the highest while it ran`,
          },
        ],
      };
    },
  };
}

async function addedLatency(app: number, door: number): Promise<[p50: number, p99: number]> {
  const { direct, through } = await latency({ port: app }, { port: door });
  const added = [0.5, 0.99].map((q) => quantile(through, q) - quantile(direct, q));
  return [added[0]!, added[1]!];
}

/** The front door of a node that captures, snapshots and uploads meanwhile. */
export function doorWhileCapturing(): Figure {
  return {
    name: "front door while capturing",
    section: "front door",
    seconds: 25,
    async run(scratch) {
      const dir = folder(scratch, "door");
      const db = path.join(dir, "app.db");
      await writer("init", db, CAPTURE_MEGABYTES);
      await using app = await new Process("small-app.ts").ready();
      const [api, door] = [await freePort(), await freePort()];
      const config = path.join(dir, "sluice.yml");
      const settings = {
        dbs: [{ path: db, store: `file://${path.join(dir, "store")}` }],
        snapshot: { interval: "5s" },
        node: { listen: `127.0.0.1:${api}` },
        proxy: { listen: `127.0.0.1:${door}`, app: `http://127.0.0.1:${app.port}` },
      };
      writeFileSync(config, JSON.stringify(settings));
      await using node = new Background(sluice, ["run", "--config", config], { LOG_LEVEL: "info" });
      await node.printed(/protected/);
      const writing = writer<{ perSecond: number }>("run", db, 16, RATE, "normal");
      const [, p99] = await addedLatency(app.port, door);
      const { perSecond } = await writing;
      return {
        rows: [
          {
            figure: `the same while the node captures ${RATE} commits/s, snapshots and uploads: p99`,
            measures: [{ unit: "ms", digits: 2, values: [p99], atMost: 10 }],
            note: `added latency at ${RATE}/s; ${perSecond} commits/s to ${CAPTURE_MEGABYTES} MB, a snapshot every 5 s, a directory`,
          },
        ],
      };
    },
  };
}

/** The demo's application on three nodes, with one entry. */
async function ledgerNodes(): Promise<FrontedNodes> {
  const nodes: FrontedNodes = new FrontedNodes((name, port) => {
    const application = path.join(root, "src/cli/demo/application.ts");
    const exec = [`{ cmd: "${process.execPath} ${application} ${nodes.db(name)} ${port}" }`];
    return { exec, env: { DATABASE_PATH: nodes.db(name) } };
  });
  await nodes.up(names.slice(0, 1), "/entries/none");
  const first = new LedgerLoad([nodes.door("a")], { clients: 1, durability: "store", reads: false });
  await first.stop();
  await nodes.up(names.slice(1), "/entries/none");
  await nodes.allFollow(names);
  return nodes;
}

/** Reads after writes through other nodes; then handovers under the same load. */
export function ledger(): Figure {
  return {
    name: "ledger over three nodes",
    section: "front door",
    seconds: 400,
    async run() {
      await using nodes = await ledgerNodes();
      const doors = names.map((name) => nodes.door(name));
      const steady = new LedgerLoad(doors, { clients: 12, durability: "local", reads: true });
      const startMs = performance.now();
      while (steady.reads < STALE_READS) await wait(100);
      await steady.stop();
      const seconds = (performance.now() - startMs) / 1000;
      const load = new LedgerLoad(doors, { clients: 6, durability: "store", reads: true });
      const took: number[] = [];
      for (let i = 0; i < HANDOVERS; i++) {
        await nodes.allFollow(names);
        const primary = await nodes.primary(names);
        took.push(await nodes.promote(names.filter((name) => name !== primary)[i % 2]!));
        await wait(100);
      }
      await load.stop();
      const missing = await missingOf(nodes, [steady, load]);
      return {
        rows: [
          {
            figure: "reads after writes through another node: stale",
            measures: [
              { values: [steady.stale], atMost: 0, worst: true },
              { label: "of", values: [steady.reads], atLeast: STALE_READS, worst: true },
            ],
            note: `12 clients, each write read at once on both other nodes with its position; ${(steady.reads / seconds).toFixed(0)} reads/s, ${steady.failed} failed`,
          },
          {
            figure: `${HANDOVERS} handovers under load of reads and writes on all nodes: failed requests`,
            measures: [
              { values: [load.failed], atMost: 0, worst: true },
              { label: "of", values: [load.acknowledged.size + load.reads + load.failed] },
              { label: "stale", values: [load.stale], atMost: 0, worst: true },
              { label: "acknowledged and missing", values: [missing], atMost: 0, worst: true },
            ],
            note: "6 clients, writes durable in the store",
          },
          {
            figure: "a planned handover, asked for → the new primary leads, under that load",
            measures: [
              { label: "p50", unit: "ms", values: [quantile(took, 0.5)] },
              { label: "p99", unit: "ms", values: [quantile(took, 0.99)], atMost: 300 },
            ],
            note: `${HANDOVERS} handovers, a directory as store`,
          },
        ],
      };
    },
  };
}

/** Acknowledged entries that some node doesn't have, in its file. */
async function missingOf(nodes: FrontedNodes, loads: readonly LedgerLoad[]): Promise<number> {
  const primary = await nodes.primary(names);
  await nodes.inStep(primary, ...names.filter((name) => name !== primary));
  let missing = 0;
  for (const name of names) {
    const db = new Database(nodes.db(name), { readonly: true });
    const there = new Map(db.prepare("select key, value from entry").raw().all() as [string, string][]);
    db.close();
    for (const { acknowledged } of loads)
      for (const [key, value] of acknowledged) if (there.get(key) !== value) missing++;
  }
  return missing;
}

/** Writers that wait for the store, many at once against one: they share appends. */
export function groupCommit(): Figure {
  return {
    name: "group commit",
    section: "front door",
    seconds: 2 * GROUP_SECONDS + 10,
    async run(scratch) {
      await using server = await s3Server(scratch);
      if (server === undefined) return { rows: [] };
      const { node, door } = await entriesNode(scratch, server);
      await using _node = node;
      await durableWrites(door, WRITERS, 2);
      const one = await durableWrites(door, 1, GROUP_SECONDS);
      const many = await durableWrites(door, WRITERS, GROUP_SECONDS);
      return {
        rows: [
          {
            figure: `${WRITERS} writers at durability \`store\` against one at a time, S3: commits/s`,
            measures: [
              { unit: "×", digits: 1, values: [many.perSecond / one.perSecond], atLeast: 20 },
              { label: "failed", values: [many.failed + one.failed], atMost: 0, worst: true },
            ],
            note: `${many.perSecond.toFixed(0)}/s against ${one.perSecond.toFixed(0)}/s; SeaweedFS on this machine, ${GROUP_SECONDS} s each; group commit`,
          },
        ],
      };
    },
  };
}

async function wait(ms: number): Promise<void> {
  await new Promise((done) => setTimeout(done, ms));
}

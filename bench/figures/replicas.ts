import { connect, createServer, type Server, type Socket } from "node:net";
import { once } from "node:events";
import { mkdirSync, rmSync, statSync, truncateSync } from "node:fs";
import { Nodes } from "../../test/e2e/nodes.ts";
import { residentMb, writer } from "../lib/processes.ts";
import { type Figure, median, quantile, type Row } from "../lib/report.ts";
import { app, follow, lead, shown, visibleMs } from "../lib/cluster-load.ts";

const ROUNDS = 3;
const SECONDS = 6;
const RATE = 500;
const LARGE_MEGABYTES = 64;
const GIBIBYTE_MEGABYTES = 1024;
const PAGES = 100;
/** The size of a database that is written and read, in megabytes. */
const SMALL_MEGABYTES = 128;

/** The largest memory of a replica's process in each thing that was measured. */
class Memory {
  readonly #most = new Map<string, number>();

  async during<T>(what: string, nodes: Nodes, name: string, work: () => Promise<T>): Promise<T> {
    const timer = setInterval(() => {
      if (nodes.isOver(name)) return;
      this.#most.set(what, Math.max(this.#most.get(what) ?? 0, residentMb([nodes.pid(name)])));
    }, 100);
    try {
      return await work();
    } finally {
      clearInterval(timer);
    }
  }

  get row(): Row {
    const each = Array.from(this.#most, ([what, mb]) => `${what} ${mb.toFixed(0)}`);
    return {
      figure: "RSS of a replica while all that happens",
      measures: [{ unit: "MB", values: [Math.max(...this.#most.values())], atMost: 150, worst: true }],
      note: `the largest value of the replica's process, ten looks a second: ${each.join(", ")}; some 60 of it are Node.js' own executable, mapped`,
    };
  }
}

/** Passes bytes on, and counts those towards the replica. */
class Meter implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  bytes = 0;

  private constructor(server: Server, port: number) {
    this.#server = server;
    server.on("connection", (near) => {
      const far = connect(port, "127.0.0.1");
      for (const one of [near, far]) {
        this.#sockets.add(one);
        one.on("error", () => undefined);
        one.on("close", () => (one === near ? far : near).destroy());
      }
      far.on("data", (data) => (this.bytes += data.length));
      near.pipe(far);
      far.pipe(near);
    });
  }

  static async to(url: string): Promise<Meter> {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    return new Meter(server, Number(new URL(url).port));
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

/** Commits at a rate, two replicas; when each is seen in another process. */
async function visible(memory: Memory): Promise<Row> {
  await using nodes = new Nodes();
  await lead(nodes, SMALL_MEGABYTES);
  await follow(nodes, "b", "c");
  const took = await memory.during("500 commits/s", nodes, "b", () => visibleMs(nodes, "b", SECONDS, RATE));
  const [p50, p99] = [quantile(took, 0.5), quantile(took, 0.99)];
  return {
    figure: `commit on the primary → visible to a reader on the replica, ${RATE} commits/s, two replicas`,
    measures: [
      { label: "p50", unit: "ms", digits: 1, values: [p50], atMost: 3 },
      { label: "p99", unit: "ms", digits: 1, values: [p99], atMost: 20 },
    ],
    note: `${took.length} commits, from the return of the commit; the reader, another process, looks once a millisecond`,
  };
}

/** A saturating writer: alone, and on a primary with a replica beside. */
async function saturated(memory: Memory): Promise<Row> {
  interface Run {
    readonly perSecond: number;
  }
  const bare: number[] = [];
  const followed: number[] = [];
  const ratios: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    await using nodes = new Nodes();
    mkdirSync(nodes.at("a"));
    await writer("init", nodes.db("a"), 16);
    bare.push((await writer<Run>("run", nodes.db("a"), SECONDS, 0, "normal")).perSecond);
    await nodes.start("a");
    await nodes.reaches("a", "protected");
    await follow(nodes, "b");
    const work = (): Promise<Run> => writer<Run>("run", nodes.db("a"), SECONDS, 0, "normal");
    followed.push((await memory.during("a saturating writer", nodes, "b", work)).perSecond);
    ratios.push(followed.at(-1)! / bare.at(-1)!);
  }
  return {
    figure: "commits/s of a saturating writer on the primary with one replica attached ÷ bare",
    measures: [{ values: ratios, digits: 2, atLeast: 0.6 }],
    note: `replica on the same two cores; ${ROUNDS} pairs of ${SECONDS} s: ${median(bare).toFixed(0)}/s bare, ${median(followed).toFixed(0)}/s`,
  };
}

/** Reads of one database by a process of their own, beside commits to the same one or to its primary's, and without. */
async function readsBeside(db: string, written: string): Promise<{ ratios: number[]; idlePerSecond: number }> {
  const reads = (): Promise<number> => app<number>("reads", db, SECONDS);
  const ratios: number[] = [];
  const idle: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    idle.push(await reads());
    const writing = app("commit", written, SECONDS + 1, RATE);
    ratios.push((await reads()) / idle.at(-1)!);
    await writing;
  }
  return { ratios, idlePerSecond: median(idle) };
}

/** Large commits, from their return on the primary until the replica shows them; and reads beside commits. */
async function applyAndReads(memory: Memory): Promise<Row[]> {
  await using nodes = new Nodes();
  mkdirSync(nodes.at("a"), { recursive: true });
  await writer("init", nodes.db("a"), SMALL_MEGABYTES);
  const bare = await readsBeside(nodes.db("a"), nodes.db("a"));
  await nodes.start("a");
  await nodes.reaches("a", "protected");
  await follow(nodes, "b");
  return await memory.during("large commits", nodes, "b", async () => {
    const beside = await readsBeside(nodes.db("b"), nodes.db("a"));
    const rates: number[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const atMs = await app<number>("large", nodes.db("a"), LARGE_MEGABYTES);
      await shown(nodes, "b");
      rates.push((LARGE_MEGABYTES * 1.048576 * 1000) / (Date.now() - atMs));
    }
    return [
      {
        figure: "apply on a replica",
        measures: [{ unit: "MB/s", values: rates, atLeast: 100 }],
        note: `a commit of ${LARGE_MEGABYTES} MiB, from its return on the primary until a reader of the replica sees it: capture, stream and the primary's own batch included`,
      },
      {
        figure: `reads/s on a replica under ${RATE} commits/s ÷ the same reads on an idle database`,
        measures: [
          { values: beside.ratios, digits: 2, atLeast: 0.9 },
          { label: "SQLite alone", values: bare.ratios, digits: 2 },
        ],
        note: `one reader of single rows; ${beside.idlePerSecond.toFixed(0)}/s idle. SQLite alone: a writer and a reader on one database`,
      },
    ];
  });
}

/** A gibibyte: the first copy, and a rejoin after a power loss has taken the replica's knowledge of its position. */
async function gibibyte(memory: Memory): Promise<Row[]> {
  await using nodes = new Nodes();
  await lead(nodes, GIBIBYTE_MEGABYTES);
  await nodes.sql("a", "insert into log(t) values(0)");
  // The log has everything when the first snapshot is there.
  await nodes.sync("a");
  await using meter = await Meter.to(await nodes.url("a"));
  const copied: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    if (round > 0) {
      await nodes.stop("b");
      rmSync(nodes.at("b"), { recursive: true });
    }
    const start = performance.now();
    await nodes.start("b", { primary: meter.url });
    await memory.during("first copy of 1 GiB", nodes, "b", async () => {
      await nodes.reaches("b", "following");
      await shown(nodes, "b");
    });
    copied.push(statSync(nodes.db("b")).size / 1000 / (performance.now() - start));
  }
  const times: number[] = [];
  const bytes: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    nodes.kill("b");
    await nodes.over("b");
    await app("pages", nodes.db("a"), PAGES);
    await nodes.sync("a");
    truncateSync(nodes.at("b", ".app.db-sluice", "applied"));
    const before = meter.bytes;
    const start = performance.now();
    await nodes.start("b", { primary: meter.url });
    await memory.during("rejoin with 1 GiB", nodes, "b", async () => {
      await nodes.reaches("b", "following");
      await shown(nodes, "b");
    });
    times.push((performance.now() - start) / 1000);
    bytes.push((meter.bytes - before) / 1e6);
  }
  return [
    {
      figure: "first copy of 1 GiB",
      measures: [{ unit: "MB/s", values: copied, atLeast: 100 }],
      note: "from the start of the replica's process until it follows; from the log in a directory",
    },
    {
      figure: `rejoin of 1 GiB with ${PAGES} changed pages: bytes moved, time`,
      measures: [
        { unit: "MB", digits: 2, values: bytes, atMost: 2 },
        { unit: "s", digits: 1, values: times, atMost: 3 },
      ],
      note: "after a kill and without its journal, so that it compares itself with the primary; from the start of the process until a reader sees the last commit",
    },
  ];
}

/** Nodes that are processes of this machine, with static roles and a directory store. The last figure is of all others. */
export function replicas(): Figure[] {
  const memory = new Memory();
  const figure = (what: string, seconds: number, rows: () => Promise<Row[]>): Figure => ({
    name: `replicas: ${what}`,
    section: "replicas",
    seconds,
    run: async () => ({ rows: await rows() }),
  });
  return [
    figure("visible", 15, async () => [await visible(memory)]),
    figure("saturating writer", 60, async () => [await saturated(memory)]),
    figure("apply and reads", 60, () => applyAndReads(memory)),
    figure("1 GiB", 120, () => gibibyte(memory)),
    figure("memory", 0, () => Promise.resolve([memory.row])),
  ];
}

import { randomUUID } from "node:crypto";
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { request as send } from "node:http";
import { connect, type Socket } from "node:net";
import path from "node:path";
import { createInterface, type Interface } from "node:readline";
import type { Readable, Writable } from "node:stream";

export const CONNECTIONS = 32;
const SECONDS = 6;
export const RATE = 500;
const UPLOAD_BYTES = 1e9;

/** A script of `bench/apps` that prints its port, and what it used on each line that it reads. */
export class Process implements AsyncDisposable {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;
  port = 0;

  constructor(script: string, ...args: readonly (string | number)[]) {
    const file = path.join(import.meta.dirname, "../apps", script);
    this.#child = spawn(process.execPath, ["--expose-gc", "--max-semi-space-size=4", file, ...args.map(String)], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#reader = createInterface(this.#child.stdout);
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  get pid(): number {
    return this.#child.pid!;
  }

  async ready(): Promise<this> {
    this.port = Number((await this.#line()).split(" ")[1]);
    return this;
  }

  async measure(what = ""): Promise<{ rss: number; most: number; cpu: { user: number; system: number } }> {
    this.#child.stdin.write(`${what}\n`);
    return JSON.parse(await this.#line()) as Awaited<ReturnType<Process["measure"]>>;
  }

  async #line(): Promise<string> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("a process of the benchmark ended");
    return value;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    await exited;
    this.#reader.close();
  }
}

const GET = Buffer.from(`GET /items/1?x=1 HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\nCookie: s=1\r\n\r\n`);

/** A client with little work of its own: one request at a time on one connection. */
class Client {
  readonly #socket: Socket;
  #status = 0;
  #left = 0;
  #done: ((status: number) => void) | undefined;

  constructor(port: number) {
    this.#socket = connect(port, "127.0.0.1");
    this.#socket.setNoDelay(true);
    this.#socket.on("data", (data: Buffer) => {
      if (this.#left === 0) {
        const end = data.indexOf("\r\n\r\n");
        const head = data.toString("latin1", 0, end);
        const length = /content-length: (\d+)/i.exec(head)?.[1];
        if (end === -1 || length === undefined) throw new Error(`not an answer: ${data.toString()}`);
        this.#status = Number(head.slice(9, 12));
        this.#left = Number(length) + end + 4;
      }
      this.#left -= data.length;
      if (this.#left === 0) this.#done?.(this.#status);
    });
  }

  /** The answer's status. */
  async ask(request: Buffer | string = GET): Promise<number> {
    return new Promise((resolve) => {
      this.#done = resolve;
      this.#socket.write(request);
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}

/** As many requests as come through, and the processor time that the front door took for each. */
export async function throughput(door: Process): Promise<{ perSecond: number; perCore: number }> {
  const clients = Array.from({ length: CONNECTIONS }, () => new Client(door.port));
  let count = 0;
  let end = performance.now() + 1500;
  const work = async (client: Client): Promise<void> => {
    while (performance.now() < end) {
      await client.ask();
      count++;
    }
  };
  await Promise.all(clients.map(work));
  count = 0;
  const before = await door.measure();
  const start = performance.now();
  end = start + SECONDS * 1000;
  await Promise.all(clients.map(work));
  const seconds = (performance.now() - start) / 1000;
  const after = await door.measure();
  for (const client of clients) client.close();
  const cpu = (after.cpu.user - before.cpu.user + after.cpu.system - before.cpu.system) / 1e6;
  return { perSecond: count / seconds, perCore: count / cpu };
}

/** Clients that write one entry after the other, each durable in the store when it's answered. */
export async function durableWrites(
  port: number,
  clients: number,
  seconds: number,
): Promise<{ perSecond: number; failed: number }> {
  const start = performance.now();
  const end = start + seconds * 1000;
  let [written, failed] = [0, 0];
  const work = async (): Promise<void> => {
    const client = new Client(port);
    while (performance.now() < end) {
      const body = JSON.stringify({ key: randomUUID(), value: randomUUID() });
      const head = `POST /entries HTTP/1.1\r\nHost: example.org\r\nSluice-Durability: store\r\nContent-Length: ${body.length}`;
      const status = await client.ask(`${head}\r\n\r\n${body}`);
      if (status === 201) written++;
      else failed++;
    }
    client.close();
  };
  await Promise.all(Array.from({ length: clients }, work));
  return { perSecond: (1000 * written) / (performance.now() - start), failed };
}

export interface Listens {
  readonly port: number;
}

/** Latency at a fixed rate, directly and through the front door in turns; a late answer delays no other request. */
export async function latency(app: Listens, door: Listens): Promise<{ direct: number[]; through: number[] }> {
  const pools = [app, door].map((process) => ({ free: [] as Client[], port: process.port, took: [] as number[] }));
  const start = performance.now();
  const total = RATE * SECONDS * 2;
  const running: Promise<void>[] = [];
  for (let i = 0; i < total;) {
    const due = start + (i * 1000) / (2 * RATE);
    const wait = due - performance.now();
    if (wait > 0.5) {
      await new Promise((resolve) => setTimeout(resolve, Math.max(1, wait - 0.5)));
      continue;
    }
    const pool = pools[i++ % 2]!;
    const client = pool.free.pop() ?? new Client(pool.port);
    const sent = performance.now();
    const counts = i > RATE;
    const work = async (): Promise<void> => {
      await client.ask();
      if (counts) pool.took.push(performance.now() - sent);
      pool.free.push(client);
    };
    running.push(work());
    await new Promise(setImmediate);
  }
  await Promise.all(running);
  for (const { free } of pools) for (const client of free) client.close();
  return { direct: pools[0]!.took, through: pools[1]!.took };
}

/** Uploads through a replica's front door; both front doors' growth at its highest. */
export async function upload(primary: Process, replica: Process): Promise<{ grown: number[]; seconds: number }> {
  await put(replica.port, 50e6);
  const before = await Promise.all([primary, replica].map(async (door) => (await door.measure("gc")).rss));
  for (const door of [primary, replica]) await door.measure("reset");
  const start = performance.now();
  const answer = await put(replica.port, UPLOAD_BYTES);
  if (answer !== String(UPLOAD_BYTES)) throw new Error(`the application has seen ${answer}`);
  const seconds = (performance.now() - start) / 1000;
  const after = await Promise.all([primary, replica].map(async (door) => (await door.measure()).most));
  return { grown: after.map((rss, i) => (rss - before[i]!) / 1e6), seconds };
}

async function put(port: number, bytes: number): Promise<string> {
  const chunk = Buffer.alloc(64 * 1024, "x");
  const headers = { "content-length": bytes };
  const request = send({ host: "127.0.0.1", port, method: "PUT", path: "/upload", headers });
  const answered = once(request, "response") as Promise<[Readable]>;
  for (let left = bytes; left > 0; left -= chunk.length)
    if (!request.write(left < chunk.length ? chunk.subarray(0, left) : chunk)) await once(request, "drain");
  request.end();
  const [response] = await answered;
  let text = "";
  for await (const part of response) text += String(part);
  return text;
}

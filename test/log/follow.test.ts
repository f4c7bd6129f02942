import Database from "better-sqlite3";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isSluiceError, SluiceError } from "../../src/errors/error.ts";
import { follow, type FollowOptions } from "../../src/log/follow.ts";
import { headerStamp, unstampHeader } from "../../src/log/follow-header.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { MadeLog } from "./make-log.ts";

let directory: string;
let copy: string;
let log: MadeLog;
let running: Following[];

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), "sluice-follow-"));
  mkdirSync(path.join(directory, "out"));
  copy = path.join(directory, "out", "copy.db");
  log = new MadeLog(directory, { pageSize: 1024 });
  running = [];
});
afterEach(async () => {
  for (const following of running) await following.stop().catch(() => {});
  log.close();
  rmSync(directory, { recursive: true });
});

/** A follower in this process, and what it has said. */
class Following {
  readonly txids: number[] = [];
  readonly problems: unknown[] = [];
  readonly ended: Promise<void>;
  readonly #stop = new AbortController();

  constructor(options: Partial<FollowOptions> = {}) {
    this.ended = follow({
      store: new DirectoryStore(log.bucket),
      prefix: "",
      path: copy,
      intervalMs: 5,
      signal: this.#stop.signal,
      onState: ({ txid }) => this.txids.push(txid),
      onProblem: (error) => this.problems.push(error),
      ...options,
    });
    this.ended.catch(() => {});
    running.push(this);
  }

  async until(txid: number): Promise<void> {
    let failure: unknown;
    this.ended.catch((error: unknown) => (failure = error));
    while (this.txids.at(-1) !== txid) {
      if (failure !== undefined) throw failure;
      await sleep(5);
    }
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.ended;
  }
}

/** That the copy is the state after `txid`, but for the ten bytes that are the follower's. */
function expectState(txid: number): void {
  const state = log.states[txid]!;
  const file = readFileSync(copy);
  expect(file.subarray(18, 20)).toEqual(Buffer.of(1, 1));
  unstampHeader(file, headerStamp(state));
  expect(file.equals(state), `the state after ${txid}`).toBe(true);
}

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => "ended",
    (error: unknown) => (isSluiceError(error) ? error.code : error),
  );

test("a followed file is each state of the log in turn, and says which", async () => {
  log.commit(50);
  const following = new Following();
  for (const rows of [300, 20, 21, 500, 10]) {
    await following.until(log.head);
    expectState(log.head);
    expect(readFileSync(`${copy}-txid`, "utf8")).toBe(`${log.head.toString(16).padStart(16, "0")}\n`);
    log.commit(rows);
  }
  await following.until(6);
  expectState(6);
  expect(following.txids).toEqual([1, 2, 3, 4, 5, 6]);
  await following.stop();
});

test("a follower that comes back goes on, over higher levels where level 0 is gone", async () => {
  log.commit(100);
  log.commit(130);
  let following = new Following();
  await following.until(2);
  await following.stop();
  for (const rows of [90, 200, 210]) log.commit(rows, { record: false });
  log.put(1, 2, 4);
  log.put(0, 5, 5);
  rmSync(log.file(0, 1, 1));
  rmSync(log.file(0, 2, 2));
  following = new Following();
  await following.until(5);
  expectState(5);
  // It has not restored anew: the first it knew was the state that it was left in.
  expect(following.txids[0]).toBe(2);
  await following.stop();
});

test("an empty journal that a kill has left doesn't stop it", async () => {
  log.commit(100);
  const following = new Following();
  await following.until(1);
  await following.stop();
  writeFileSync(`${copy}-journal`, "");
  log.commit(110);
  const link = path.join(directory, "link.db");
  symlinkSync(copy, link);
  const again = new Following({ path: link });
  await again.until(2);
  await again.stop();
  expect(again.txids).toEqual([1, 2]);
  expectState(2);
});

test("a gap that nothing bridges ends it with an error, and leaves the file as it is", async () => {
  log.commit(100);
  const following = new Following();
  await following.until(1);
  log.commit(110, { record: false });
  log.commit(120);
  expect(await codeOf(following.ended)).toBe("SLU-4513");
  expectState(1);
});

test("a record that doesn't fit is not applied", async () => {
  log.commit(100);
  const following = new Following();
  await following.until(1);
  log.commit(110, { record: false });
  const reserved = new Uint8Array(20);
  reserved[0] = 1;
  reserved[19] = 1;
  log.put(0, 2, 2, { reserved });
  expect(await codeOf(following.ended)).toBe("SLU-4508");
  expectState(1);
  expect(existsSync(`${copy}-journal`)).toBe(false);
});

test("a file that somebody wrote to is left alone, at once and after a restart", async () => {
  log.commit(100);
  const following = new Following();
  await following.until(1);
  const writer = new Database(copy);
  writer.exec("DELETE FROM meta");
  writer.close();
  const written = readFileSync(copy);
  log.commit(110);
  expect(await codeOf(following.ended)).toBe("SLU-4514");
  expect(await codeOf(new Following().ended)).toBe("SLU-4514");
  expect(readFileSync(copy).equals(written)).toBe(true);
  // Also where only the content differs.
  const again = new Following({ force: true });
  await again.until(2);
  await again.stop();
  const file = readFileSync(copy);
  file[file.length - 1]! ^= 1;
  writeFileSync(copy, file);
  expect(await codeOf(new Following().ended)).toBe("SLU-4514");
});

test("a file that was never followed is not touched", async () => {
  log.commit(10);
  writeFileSync(copy, "mine");
  expect(await codeOf(new Following().ended)).toBe("SLU-4505");
  expect(readFileSync(copy, "utf8")).toBe("mine");
});

test("a store that is away is waited for", async () => {
  log.commit(10);
  const store = new DirectoryStore(log.bucket);
  const following = new Following({ store });
  await following.until(1);
  const list = store.list.bind(store);
  store.list = () => {
    throw new SluiceError("SLU-3103", "away");
  };
  while (following.problems.length < 2) await sleep(5);
  expect(following.problems[0]).toMatchObject({ code: "SLU-3103" });
  log.commit(20);
  store.list = list;
  await following.until(2);
  expectState(2);
  await following.stop();
});

function child(script: string, ...args: string[]): ChildProcess {
  const file = fileURLToPath(new URL(`./children/${script}`, import.meta.url));
  return spawn(process.execPath, [file, ...args], { stdio: ["pipe", "pipe", "inherit"] });
}

async function ended(process: ChildProcess): Promise<number | null> {
  if (process.exitCode === null && process.signalCode === null) await once(process, "exit");
  return process.exitCode;
}

test("an update's journal holds the pages as they are in the file, with the follower's own page 1", async () => {
  log.commit(200);
  const following = new Following();
  await following.until(1);
  const before = readFileSync(copy);
  // Keeps the update from its end: the journal is complete then, and the file untouched.
  const reader = new Database(copy);
  reader.exec("BEGIN");
  reader.prepare("SELECT count(*) FROM kv").get();
  log.commit(300);
  const journal = (): Buffer => (existsSync(`${copy}-journal`) ? readFileSync(`${copy}-journal`) : Buffer.alloc(512));
  const pageSize = before.readUInt16BE(16);
  const records = (): [page: number, content: Buffer][] => {
    const bytes = journal();
    return Array.from({ length: bytes.length === 0 ? 0 : bytes.readUInt32BE(8) }, (_, i) => {
      const at = 512 + i * (pageSize + 8);
      return [bytes.readUInt32BE(at), bytes.subarray(at + 4, at + 4 + pageSize)];
    });
  };
  await expect.poll(() => records().length, { timeout: 20_000, interval: 5 }).toBeGreaterThan(1);
  const found = records();
  reader.exec("COMMIT");
  reader.close();
  for (const [page, content] of found)
    expect(content.equals(before.subarray((page - 1) * pageSize, page * pageSize)), `page ${page}`).toBe(true);
  expect(found.map(([page]) => page)).toContain(1);
  await following.until(2);
  await following.stop();
  expectState(2);
});

test("readers see whole states only while followers are killed at random, and it ends at the newest", async () => {
  log.commit(200);
  const first = new Following();
  await first.until(1);
  await first.stop();
  const reader = child("reader.ts", copy);
  let seen = "";
  reader.stdout!.on("data", (chunk: Buffer) => (seen += chunk.toString()));
  for (let kill = 0; kill < 8; kill++) {
    const follower = child("follower.ts", log.bucket, copy);
    await Promise.race([once(follower.stdout!, "data"), once(follower, "exit")]);
    expect(follower.exitCode, "the follower ended by itself").toBe(null);
    for (let i = 0; i < 4; i++) {
      log.commit([600, 30, 350, 351, 5, 480, 90][log.head % 7]!);
      await sleep(Math.random() * 60);
    }
    follower.kill("SIGKILL");
    await ended(follower);
  }
  const last = new Following();
  await last.until(log.head);
  await last.stop();
  reader.stdin!.end();
  expect(await ended(reader)).toBe(0);
  expectState(log.head);
  expect(Number(seen)).toBeGreaterThan(0);
});

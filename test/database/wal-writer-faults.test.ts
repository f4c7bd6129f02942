import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { cleanupIndex, SharedIndex } from "../../src/database/shared-index.ts";
import { WalIndexHeader } from "../../src/sqlite/wal-index.ts";
import { toBigEndian } from "../sqlite/big-endian.ts";
import { runPython, scratch } from "./apps.ts";
import { killedAtWrite, watchingWrites, type Write, type WriteSync } from "./faults.ts";
import { LiveReplica } from "./live-replica.ts";
import { merged, type PageSet, Source } from "./page-sets.ts";
import { random, testSeed } from "./random.ts";

const schema = "create table item(id integer primary key, body blob)";
const BLOCK = 32768;
const HASH = 16384;

let dir: ReturnType<typeof scratch>;
let path: string;
let source: Source;
let replica: LiveReplica;
const lives: LiveReplica[] = [];
beforeEach(() => {
  dir = scratch("wal-writer-faults");
  path = dir.path("replica.db");
});
afterEach(() => {
  source.close();
  for (const life of lives.splice(0)) life.close();
  dir.remove();
});

/** A replica of an empty database. */
async function begin(pageSize = 512): Promise<void> {
  source = new Source(dir.path("source.db"), pageSize, schema);
  copyFileSync(source.path, path);
  await open();
}

async function open(): Promise<void> {
  replica = await LiveReplica.open(path);
  lives.push(replica);
}

/** Ends the replica as if killed, and begins its next life. */
async function reopen(): Promise<void> {
  replica.kill();
  await open();
}

/** A commit of SQLite's with about this many pages. */
function commit(pages: number): PageSet {
  source.db
    .prepare(`with n(i) as (select 1 union all select i + 1 from n where i < ?) insert into item(body)
select randomblob(?) from n`)
    .run(pages, source.pageSize - 100);
  return merged(source.take(), source.pageSize);
}

function read(file = path): Buffer {
  const db = new Sqlite(file);
  try {
    expect(db.pragma("integrity_check", { simple: true })).toBe("ok");
    return db.serialize();
  } finally {
    db.close();
  }
}

function expectSame(): void {
  expect(read().equals(source.bytes)).toBe(true);
}

/** Hash slots and page numbers of a block that belong to no published frame. */
function leftovers(block: number, first: number): number {
  const index = readFileSync(`${path}-shm`).subarray(block * BLOCK, (block + 1) * BLOCK);
  const place = replica.capture.frame - first;
  let count = 0;
  for (let at = HASH; at < BLOCK; at += 2) if (index.readUInt16LE(at) > place) count++;
  for (let at = (block === 0 ? 136 : 0) + 4 * place; at < HASH; at += 4) if (index.readUInt32LE(at) !== 0) count++;
  return count;
}

interface Call {
  readonly file: "wal" | "shm" | "db";
  readonly what: "write" | "sync";
  readonly from: number;
  readonly length: number;
}

async function recorded(work: () => Promise<unknown>): Promise<Call[]> {
  const calls: Call[] = [];
  const { wal, shm } = replica.files;
  const file = (fd: number): Call["file"] => (fd === wal ? "wal" : fd === shm ? "shm" : "db");
  await watchingWrites(
    ({ fd, bytes, position }) => {
      calls.push({ file: file(fd), what: "write", from: position, length: bytes.length });
      return undefined;
    },
    work,
    (fd) => calls.push({ file: file(fd), what: "sync", from: 0, length: 0 }),
  );
  return calls;
}

describe("what is written in which order", () => {
  test("frames, page numbers, hash slots that no reader can see torn, and the header in one write", async () => {
    await begin();
    await replica.apply(commit(30));
    const set = commit(40);
    const { change } = replica.capture.header;
    const calls = await recorded(() => replica.apply(set));
    const frame = replica.capture.frame - set.numbers.length;
    const most = set.numbers.length - 1;
    expect(replica.capture.header.change).toBe(change + 1);
    const write = (file: Call["file"], from: number, length: number): Call => ({ file, what: "write", from, length });
    const isSlots = (call: Call): boolean => call.file === "shm" && call.from >= HASH;
    expect(calls.filter((call) => !isSlots(call))).toEqual([
      write("wal", 32 + frame * 536, most * 536),
      write("shm", 136 + 4 * frame, 4 * most),
      // The commit frame comes last.
      write("wal", 32 + (frame + most) * 536, 536),
      write("shm", 136 + 4 * (frame + most), 4),
      write("shm", 0, 96),
    ]);
    const slots = calls.filter(isSlots);
    expect(slots.length).toBeGreaterThan(10);
    for (const { length, from } of slots) expect([length, from % 8]).toEqual([8, 0]);
    expect([isSlots(calls[2]!), isSlots(calls.at(-2)!)]).toEqual([true, true]);
  });

  test("the header of a new WAL is on disk before its first frame; nothing is synced after that", async () => {
    await begin();
    await replica.apply(commit(30));
    expect(await replica.restart()).toBe("restarted");
    const before = readFileSync(`${path}-wal`);
    const calls = await recorded(() => replica.apply(commit(3)));
    expect(calls.slice(0, 3)).toMatchObject([
      { file: "wal", what: "write", from: 0, length: 32 },
      { file: "wal", what: "sync" },
      { file: "wal", what: "write", from: 32 },
    ]);
    expect(calls.filter(({ what }) => what === "sync")).toHaveLength(1);
    const after = readFileSync(`${path}-wal`);
    expect(after.readUInt32BE(12)).toBe(before.readUInt32BE(12) + 1);
    expect(after.readUInt32BE(16)).toBe((before.readUInt32BE(16) + 1) >>> 0);
    expect(await recorded(() => replica.apply(commit(3)))).not.toContainEqual(
      expect.objectContaining({ what: "sync" }),
    );
  });

  test("a header that was prepared is written once; one that nobody has used is drawn again", async () => {
    await begin();
    replica.isPreparing = true;
    const calls = await recorded(() => replica.apply(commit(3)));
    expect(calls.filter(({ file, from }) => file === "wal" && from === 0)).toHaveLength(1);
    expect(calls).not.toContainEqual(expect.objectContaining({ what: "sync" }));
    expect(await replica.restart()).toBe("restarted");
    const salts = new Set<number>();
    for (let i = 0; i < 4; i++) {
      replica.isPreparing = i < 2;
      await replica.append(commit(2));
      salts.add(readFileSync(`${path}-wal`).readUInt32BE(20));
      replica.abort();
    }
    expect(salts.size).toBe(4);
  });

  test("a new index block is there with real zeros before anything is entered", async () => {
    await begin();
    await replica.apply(commit(3900));
    expect(statSync(`${path}-shm`).size).toBe(BLOCK);
    const sizes = new Set<number>();
    await watchingWrites(
      ({ fd, bytes, position }) => {
        if (fd !== replica.files.shm || position < BLOCK) return undefined;
        const { size, blocks } = statSync(`${path}-shm`);
        sizes.add(size);
        if (size === BLOCK)
          expect([position, bytes.length, bytes.some((byte) => byte !== 0)]).toEqual([BLOCK, BLOCK, false]);
        else expect(blocks * 512).toBeGreaterThanOrEqual(2 * BLOCK);
        return undefined;
      },
      () => replica.apply(commit(200)),
    );
    expect([...sizes]).toEqual([BLOCK, 2 * BLOCK]);
    expectSame();
  });

  test("the wal-index grows by what SQLite maps at once where memory pages are large", async () => {
    await begin();
    const header = new WalIndexHeader();
    const index = new SharedIndex(replica.files, 2 * BLOCK);
    index.begin(header);
    index.append(new Uint32Array(4063).fill(7), 4063);
    expect(statSync(`${path}-shm`).size).toBe(2 * BLOCK);
    index.append(new Uint32Array(4096).fill(7), 4096);
    expect(statSync(`${path}-shm`).size).toBe(4 * BLOCK);
  });
});

describe("what fails", () => {
  test("a full disk at any write: an error, readers stay where they are, and the next try succeeds", async () => {
    await begin();
    await replica.apply(commit(3950));
    const reader = new Sqlite(path);
    try {
      const before = reader.serialize();
      const set = commit(60);
      let failures = 0;
      for (let n = 1; ; n++) {
        let count = 0;
        const full = ({ fd, bytes, position }: Write, real: WriteSync): undefined => {
          if (++count < n) return undefined;
          if (count === n && bytes.length > 128) real(fd, bytes, 0, bytes.length >> 1, position);
          throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
        };
        const error: unknown = await watchingWrites(full, () => replica.apply(set, 9)).catch((e: unknown) => e);
        if (error === undefined) break;
        expect(error).toMatchObject({ code: "SLU-2008" });
        failures++;
        replica.abort();
        expect(reader.serialize().equals(before)).toBe(true);
      }
      expect(failures).toBeGreaterThan(40);
      expectSame();
      expect(reader.serialize().equals(source.bytes)).toBe(true);
    } finally {
      reader.close();
    }
  });

  test("a system that writes less than it was asked to", async () => {
    await begin();
    await replica.apply(commit(4000));
    const some = ({ fd, bytes, position }: Write, real: WriteSync): number | undefined =>
      bytes.length <= 128 ? undefined : real(fd, bytes, 0, 100 + (bytes.length >> 2), position);
    await watchingWrites(some, () => replica.apply(commit(300)));
    expect(read().equals(source.bytes)).toBe(true);
  });

  test("a real full disk, while WAL and wal-index have to grow", async (context) => {
    const disk = dir.path("disk");
    mkdirSync(disk);
    source = new Source(dir.path("source.db"), 512, schema);
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=6m", "tmpfs", disk], { stdio: "ignore" });
    } catch {
      context.skip("needs the right to mount a small file system");
    }
    try {
      path = `${disk}/replica.db`;
      copyFileSync(source.path, path);
      await open();
      await replica.apply(commit(4000));
      const before = read();
      const set = commit(3000);
      const { bavail, bsize } = statfsSync(disk);
      let failures = 0;
      for (const free of [3, 300, 396, 404, 450]) {
        writeFileSync(`${disk}/filler`, Buffer.alloc(Math.max(0, bavail * bsize - free * 4096)));
        const error: unknown = await replica.apply(set, 500).catch((e: unknown) => e);
        if (error === undefined) break;
        failures++;
        expect(error).toMatchObject({ code: "SLU-2008" });
        replica.abort();
        expect(read().equals(before)).toBe(true);
      }
      expect(failures).toBeGreaterThan(1);
      expectSame();
    } finally {
      for (const life of lives.splice(0)) life.close();
      execFileSync("umount", ["-l", disk]);
    }
  });

  test("killed again and again inside large commits: the index is clean in each life, for SQLite, too", async () => {
    await begin();
    await replica.apply(commit(20));
    const numbers = Uint32Array.from({ length: 3000 }, (_, i) => i + 1);
    const large = { numbers, content: Buffer.alloc(3000 * 512, 7), pageCount: 3000 };
    for (let life = 0; life < 10; life++) {
      // In the middle of the hash slots of one block: what is left would fill it in the sixth life.
      expect(await killedAtWrite(1000, () => replica.apply(large, 3000))).toBe(true);
      expect(leftovers(0, 0)).toBeGreaterThan(4000);
      await reopen();
      expectSame();
      if (life % 2 === 0) {
        cleanupIndex(replica.files, replica.capture.header);
        expect(leftovers(0, 0)).toBe(0);
      }
      await replica.apply(commit(2));
      expect(leftovers(0, 0)).toBe(0);
      expectSame();
    }
    expect(await killedAtWrite(1000, () => replica.apply(large, 3000))).toBe(true);
    await reopen();
    replica.locks.openGate();
    runPython(path, `db.execute("insert into item(body) values(zeroblob(100000))")`);
    expect(runPython(path, `print(db.execute("pragma integrity_check").fetchone()[0])`)).toBe("ok");
  });

  test.each([
    ["slots that lead nowhere", (index: Buffer): unknown => index.fill(0xff, HASH)],
    ["slots that are gone", (index: Buffer): unknown => index.fill(0, HASH, HASH + 9000)],
    ["a file that is too short", undefined],
  ])("a damaged wal-index, %s: it is built again from the WAL", async (_what, damage) => {
    await begin();
    for (let i = 0; i < 3; i++) await replica.apply(commit(200));
    const set = commit(5);
    const index = readFileSync(`${path}-shm`);
    if (damage === undefined) truncateSync(`${path}-shm`, 20_000);
    else {
      damage(index);
      writeFileSync(`${path}-shm`, index, { flag: "r+" });
    }
    replica.renewWriter();
    await replica.apply(set);
    expect(read().equals(source.bytes)).toBe(true);
  });

  test("a wal-index that is damaged, and a WAL that is not the one it names", async () => {
    await begin();
    await replica.apply(commit(200));
    const header = new WalIndexHeader();
    header.assign(replica.capture.header);
    header.salt2++;
    const index = readFileSync(`${path}-shm`);
    index.fill(0xff, HASH);
    writeFileSync(`${path}-shm`, index, { flag: "r+" });
    expect(() => new SharedIndex(replica.files).begin(header)).toThrow(expect.objectContaining({ code: "SLU-2007" }));
  });

  test("a change that was not shown never comes to life, also when the wal-index is lost", async () => {
    await begin();
    await replica.apply(commit(10));
    const before = source.bytes;
    const set = commit(30);
    await replica.append(set);
    expect(recovered().equals(before)).toBe(true);
    replica.abort();
    await replica.append(set);
    // The header can't be written, but the commit frame is.
    const failing = ({ fd, bytes }: Write): undefined => {
      if (fd === replica.files.shm && bytes.length === 96) throw Object.assign(new Error("broken"), { code: "EIO" });
    };
    const shown = watchingWrites(failing, async () => replica.writer.publish());
    await expect(shown).rejects.toMatchObject({ code: "SLU-2010" });
    replica.abort();
    expect(recovered().equals(before)).toBe(true);
    expect(read().equals(before)).toBe(true);
    await replica.apply(set);
    expectSame();
    expect(recovered().equals(source.bytes)).toBe(true);
  });

  test("somebody who commits around the closed gate is noticed before the change is shown", async () => {
    await begin();
    await replica.apply(commit(10));
    await replica.append(commit(10));
    const shm = readFileSync(`${path}-shm`);
    shm.writeUInt32LE(shm.readUInt32LE(8) + 1, 8);
    writeFileSync(`${path}-shm`, shm.subarray(0, 96), { flag: "r+" });
    expect(() => replica.writer.publish()).toThrow(expect.objectContaining({ code: "SLU-2007" }));
  });

  test("what nobody should ask for", async () => {
    await begin();
    await replica.apply(commit(3));
    const { writer, capture } = replica;
    const internal = expect.objectContaining({ code: "SLU-2000" });
    const page = new Uint8Array(512);
    expect(() => writer.begin(capture.header, 0, 5)).toThrow(internal);
    expect(() => writer.append(Uint32Array.of(1), page)).toThrow(internal);
    writer.begin(capture.header, 2, 5);
    expect(() => writer.begin(capture.header, 2, 5)).toThrow(internal);
    expect(() => writer.append(Uint32Array.of(1, 2), page)).toThrow(internal);
    writer.append(Uint32Array.of(1), page);
    expect(() => writer.publish()).toThrow(internal);
    expect(() => writer.append(Uint32Array.of(1, 2), new Uint8Array(1024))).toThrow(internal);
    await expect(writer.prepare(capture.header)).rejects.toEqual(internal);
    writer.abort();
    await replica.apply(commit(3));
    expectSame();
  });
});

test("a WAL of a big-endian machine is continued in its byte order, and begun anew in ours", async () => {
  source = new Source(dir.path("source.db"), 1024, schema);
  commit(20);
  const first = readFileSync(`${source.path}-wal`);
  copyFileSync(source.path, path);
  writeFileSync(`${path}-wal`, toBigEndian(first, 1024));
  await open();
  expect(replica.capture.header.bigEndian).toBe(true);
  for (let i = 0; i < 3; i++) await replica.apply(commit(10));
  expectSame();
  expect(recovered().equals(source.bytes)).toBe(true);
  expect(await replica.restart()).toBe("restarted");
  await replica.apply(commit(10));
  expect(replica.capture.header.bigEndian).toBe(false);
  expect(recovered().equals(source.bytes)).toBe(true);
});

/** What SQLite makes of file and WAL when the wal-index is lost. */
function recovered(db = readFileSync(path), wal = readFileSync(`${path}-wal`)): Buffer {
  const copy = dir.path("recovered.db");
  for (const suffix of ["", "-wal", "-shm"]) rmSync(copy + suffix, { force: true });
  writeFileSync(copy, db);
  writeFileSync(`${copy}-wal`, wal);
  return read(copy);
}

test(`a power loss after a restart leaves a commit that there was, and none before the restart (seed ${testSeed})`, async () => {
  await begin(4096);
  const below = random(testSeed);
  // Nothing grows, so that each state is told by its pages alone.
  await replica.apply(commit(40));
  for (let round = 0; round < 4; round++) {
    for (let i = 0; i < 12; i++) await replica.apply(update(i));
    expect(await replica.restart()).toBe("restarted");
    const db = readFileSync(path);
    const states = [source.bytes];
    // What is on disk for sure: the WAL as it was at its last sync.
    let synced = readFileSync(`${path}-wal`);
    await watchingWrites(
      () => undefined,
      async () => {
        for (let i = 0; i < 12; i++) {
          await replica.apply(update(i));
          states.push(source.bytes);
        }
      },
      () => (synced = readFileSync(`${path}-wal`)),
    );
    const now = readFileSync(`${path}-wal`);
    for (let loss = 0; loss < 40; loss++) {
      const wal = Buffer.from(now);
      const keep = below();
      for (let at = 0; at < wal.length; at += 4096) {
        if (below() < keep) continue;
        wal.fill(0, at, Math.min(at + 4096, wal.length));
        synced.copy(wal, at, at, at + 4096);
      }
      const found = recovered(db, wal);
      expect(states.some((state) => state.equals(found))).toBe(true);
    }
  }
});

/** A commit that changes rows in place. */
function update(i: number): PageSet {
  source.db.exec(`update item set body = randomblob(${source.pageSize - 100}) where id % 7 = ${i % 7}`);
  return merged(source.take(), source.pageSize);
}

import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import { describeLog } from "../../src/log/describe.ts";
import { formatTxid } from "../../src/log/layout.ts";
import { listLog, type LogFile } from "../../src/log/listing.ts";
import { LogLayout } from "../../src/log/layout.ts";
import { parseOldObject, planOld, type OldObject } from "../../src/log/litestream03-plan.ts";
import { Reachable } from "../../src/log/plan.ts";
import { restore, type RestoreOptions } from "../../src/log/restore.ts";
import { verify } from "../../src/log/verify.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import type { ObjectInfo, ObjectStore } from "../../src/store/store.ts";
import { lacks, peers } from "../peers/peers.ts";
import { accessKeyId, S3Server, secretAccessKey } from "../store/s3-server.ts";
import { bucketOf, busySettings, churn, Litestream, litestreamRestore, rfc3339 } from "./peer-litestream.ts";

const CHURN_MS = 11_000;
let directory: string;
beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), "sluice-litestream-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

async function ours(store: ObjectStore, prefix: string, goal: Partial<RestoreOptions> = {}): Promise<Buffer> {
  const output = path.join(directory, `ours-${Math.random()}.db`);
  await restore({ store, prefix, path: output, ...goal });
  try {
    return readFileSync(output);
  } finally {
    rmSync(output);
  }
}

async function collect(objects: AsyncIterable<ObjectInfo>): Promise<ObjectInfo[]> {
  const all: ObjectInfo[] = [];
  for await (const object of objects) all.push(object);
  return all;
}

/** Up to `count` elements, spread over all. */
function spread<T>(all: readonly T[], count: number): T[] {
  const step = Math.max(1, Math.floor(all.length / count));
  return all.filter((_, i) => i % step === 0 || i === all.length - 1);
}

/** States that Litestream has a plan for, with the files of the log. */
async function statesOf(store: ObjectStore, prefix: string): Promise<{ files: LogFile[]; txids: readonly number[] }> {
  const files = await listLog(store, new LogLayout(store.layout, prefix));
  return { files, txids: new Reachable(files).txids };
}

const versions = [
  { name: "0.5, pages as blocks", binary: "litestream" },
  { name: "0.5.12, pages as frames", binary: "litestreamFrames" },
] as const;

describe.each(versions)("what Litestream $name wrote to a directory", ({ binary }) => {
  const skip = lacks(binary);
  let store: DirectoryStore;
  let url: string;
  let output: string;

  beforeAll(async () => {
    if (skip) return;
    const db = path.join(directory, binary, "app.db");
    mkdirSync(path.dirname(db));
    url = `file://${bucketOf(db)}`;
    output = path.join(directory, binary, "reference.db");
    store = new DirectoryStore(bucketOf(db));
    const isSound = binary !== "litestreamFrames";
    const settings = busySettings(db, { type: "file", path: bucketOf(db) }, isSound);
    const peer = new Litestream(peers[binary], db, settings);
    await churn(db, CHURN_MS, isSound);
    await peer.stop();
  });

  test.skipIf(skip)("comes back byte for byte, newest and at many TXIDs", async () => {
    expect(await litestreamRestore(peers[binary], url, output)).toBe(true);
    expect((await ours(store, "")).equals(readFileSync(output))).toBe(true);
    const { files, txids } = await statesOf(store, "");
    expect(new Set(files.map((file) => file.level))).toEqual(new Set([0, 1, 2, 9]));
    // 0.5.12 is here for its way to store pages: its snapshot `1-N` of a busy database can be the state after N + 1, so in
    // the middle of its log the state depends on which files one takes.
    if (binary === "litestreamFrames") return;
    let compared = 0;
    for (const txid of spread(txids, 12)) {
      if (!(await litestreamRestore(peers[binary], url, output, ["-txid", formatTxid(txid)]))) continue;
      expect((await ours(store, "", { txid })).equals(readFileSync(output)), `TXID ${txid}`).toBe(true);
      compared++;
    }
    expect(compared).toBeGreaterThan(6);
  });

  test.skipIf(skip || binary === "litestreamFrames")("comes back byte for byte at many times", async () => {
    const described = await describeLog({ store, prefix: "" }, { level: 0 });
    expect(described.every((file) => file.record === undefined && file.pageSize === 4096)).toBe(true);
    const times = spread(described, 6).map((file) => file.timestampMs);
    let compared = 0;
    for (const timeMs of times) {
      // Litestream wants files from before the time; a millisecond later both mean the same.
      const args = ["-timestamp", rfc3339(timeMs + 1)];
      if (!(await litestreamRestore(peers[binary], url, output, args))) continue;
      const restored = await ours(store, "", { timestampMs: timeMs });
      expect(restored.equals(readFileSync(output)), rfc3339(timeMs)).toBe(true);
      compared++;
    }
    expect(compared).toBeGreaterThan(2);
  });

  test.skipIf(skip)("passes a restore drill", async () => {
    const verified = await verify({ store, prefix: "" });
    expect(verified).toMatchObject({ recordChecked: false, live: "none", epoch: 0, logId: undefined });
    expect(verified.position).toBe(BigInt(verified.txid));
  });
});

describe.skipIf(lacks("litestream", "weed"))("what Litestream 0.5 wrote to S3", () => {
  let server: S3Server;
  beforeAll(async () => {
    server = await S3Server.start();
  });
  afterAll(() => server?.stop());

  test("comes back byte for byte, newest, at TXIDs and at times", async () => {
    const db = path.join(directory, "s3.db");
    const output = path.join(directory, "s3-reference.db");
    const endpoint = `http://127.0.0.1:${server.port}`;
    const replica = {
      type: "s3",
      bucket: "bucket",
      path: "db/app",
      endpoint,
      region: "us-east-1",
      "force-path-style": "true",
    };
    const keys = { LITESTREAM_ACCESS_KEY_ID: accessKeyId, LITESTREAM_SECRET_ACCESS_KEY: secretAccessKey };
    const peer = new Litestream(peers.litestream, db, busySettings(db, replica), keys);
    await churn(db, CHURN_MS);
    await peer.stop();
    const store = server.open("");
    const url = `s3://bucket/db/app?endpoint=${encodeURIComponent(endpoint)}&region=us-east-1&forcePathStyle=true`;
    const reference = (...args: string[]) => litestreamRestore(peers.litestream, url, output, args, keys);

    expect(await reference()).toBe(true);
    expect((await ours(store, "db/app")).equals(readFileSync(output))).toBe(true);
    const { txids } = await statesOf(store, "db/app");
    let compared = 0;
    for (const txid of spread(txids, 4)) {
      if (!(await reference("-txid", formatTxid(txid)))) continue;
      expect((await ours(store, "db/app", { txid })).equals(readFileSync(output)), `TXID ${txid}`).toBe(true);
      compared++;
    }
    for (const { timestampMs } of spread(await describeLog({ store, prefix: "db/app" }, { level: 0 }), 3)) {
      if (!(await reference("-timestamp", rfc3339(timestampMs + 1)))) continue;
      expect((await ours(store, "db/app", { timestampMs })).equals(readFileSync(output))).toBe(true);
      compared++;
    }
    expect(compared).toBeGreaterThan(3);
    await store.close();
  });
});

describe.skipIf(lacks("litestreamOld"))("what Litestream 0.3.13 wrote", () => {
  let store: DirectoryStore;
  let db: string;
  let output: string;

  beforeAll(async () => {
    if (lacks("litestreamOld")) return;
    db = path.join(directory, "old", "app.db");
    mkdirSync(path.dirname(db));
    output = path.join(directory, "old", "reference.db");
    store = new DirectoryStore(bucketOf(db));
    const settings = (generation: number) => `dbs:
  - path: ${db}
    # Another directory of Litestream's own for each run: a new generation.
    meta-path: ${path.join(directory, "old", `meta${generation}`)}
    monitor-interval: 50ms
    checkpoint-interval: 1s
    min-checkpoint-page-count: 50
    replicas:
      - type: file
        path: ${bucketOf(db)}
        sync-interval: 100ms
        snapshot-interval: 2s
        retention: 1h
`;
    for (const generation of [1, 2]) {
      const peer = new Litestream(peers.litestreamOld, db, settings(generation));
      await churn(db, 5000);
      await peer.stop();
    }
  });

  test("comes back byte for byte, newest and at many times, of several generations", async () => {
    const url = `file://${bucketOf(db)}`;
    expect(await litestreamRestore(peers.litestreamOld, url, output)).toBe(true);
    expect((await ours(store, "")).equals(readFileSync(output))).toBe(true);
    const objects = await collect(store.list("generations/"));
    expect(new Set(objects.map((o) => o.key.split("/")[1])).size).toBe(2);
    const times = objects.map((o) => o.statedMs!).toSorted((a, b) => a - b);
    let compared = 0;
    // Its `-timestamp` has seconds only.
    for (const timeMs of new Set(spread(times, 10).map((ms) => Math.ceil(ms / 1000) * 1000))) {
      // It ends its plan at the first segment that is too new, also at one from before the snapshot that it needs not.
      const old = objects.map(parseOldObject).filter((o) => o !== undefined);
      const { snapshot } = planOld(old, timeMs, url);
      const late = (o: OldObject) => o.generation === snapshot.generation && o.modifiedMs > timeMs && o.offset >= 0;
      if (old.some((o) => late(o) && o.index < snapshot.index)) continue;
      const args = ["-timestamp", new Date(timeMs).toISOString().replace(".000", "")];
      if (!(await litestreamRestore(peers.litestreamOld, url, output, args))) continue;
      const restored = await ours(store, "", { timestampMs: timeMs });
      expect(restored.equals(readFileSync(output)), rfc3339(timeMs)).toBe(true);
      compared++;
    }
    expect(compared).toBeGreaterThan(3);
  });

  test("is refused where a segment is missing, cut or changed, and named", async () => {
    const root = path.join(directory, "old", "broken");
    const breaks = {
      missing: (file: string) => rmSync(file),
      cut: (file: string) => writeFileSync(file, readFileSync(file).subarray(0, -7)),
      changed: (file: string) => {
        const bytes = readFileSync(file);
        bytes[bytes.length >> 1]! ^= 1;
        writeFileSync(file, bytes);
      },
    };
    const newest = (await collect(store.list("generations/"))).toSorted((a, b) => a.statedMs! - b.statedMs!);
    const generation = newest.at(-1)!.key.split("/")[1]!;
    for (const [how, damage] of Object.entries(breaks)) {
      const bucket = path.join(root, how);
      cpSync(bucketOf(db), bucket, { recursive: true, preserveTimestamps: true });
      // Only the first snapshot stays, so that all segments count.
      const snapshots = path.join(bucket, "generations", generation, "snapshots");
      for (const name of readdirSync(snapshots).toSorted().slice(1)) rmSync(path.join(snapshots, name));
      const wal = path.join(bucket, "generations", generation, "wal");
      const segments = readdirSync(wal).toSorted();
      // Not the last of its WAL: that a WAL once went on is nowhere else to be seen.
      const middle = segments.findIndex((name, i) => i > 2 && segments[i + 1]?.slice(0, 8) === name.slice(0, 8));
      damage(path.join(wal, segments[middle]!));
      const outcome = await ours(new DirectoryStore(bucket), "").then(
        () => "restored",
        (error: unknown) => (isSluiceError(error) ? error.code : error),
      );
      expect(outcome, how).toBe("SLU-4512");
    }
  });
});

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { SluiceError } from "../../src/errors/error.ts";
import { restore, type Restored, type RestoreOptions } from "../../src/log/restore.ts";
import { RestoreTarget } from "../../src/log/target.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import type { ObjectStore } from "../../src/store/store.ts";
import { MadeLog } from "./make-log.ts";

let directory: string;
let output: string;
let log: MadeLog;

beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), "sluice-resume-"));
  log = new MadeLog(directory);
  log.commit(26_000);
});
afterAll(() => {
  log.close();
  rmSync(directory, { recursive: true });
});
beforeEach(() => {
  output = path.join(mkdtempSync(path.join(directory, "out-")), "app.db");
});

/** Read by `get` only, as a remote one; after `most` bytes it can't be reached any more. */
function store(most = Infinity): ObjectStore {
  const inner = new DirectoryStore(log.bucket);
  let given = 0;
  return {
    url: inner.url,
    layout: inner.layout,
    list: (prefix, options) => inner.list(prefix, options),
    get: (key, options) => {
      given += options?.range?.length ?? 0;
      if (given > most) return Promise.reject(new SluiceError("SLU-3101", "the store is away"));
      return inner.get(key, options);
    },
    put: (key, body, options) => inner.put(key, body, options),
    delete: (keys, options) => inner.delete(keys, options),
    close: () => inner.close(),
  };
}

const again = (options: Partial<RestoreOptions> = {}): Promise<Restored> =>
  restore({ store: store(), prefix: "", path: output, integrityCheck: "none", ...options });
const beside = (): string[] => readdirSync(path.dirname(output)).toSorted();
const left = (suffix: string): string =>
  path.join(
    path.dirname(output),
    beside().find((name) => name.endsWith(suffix))!,
  );
const size = (): number => readFileSync(log.file(0, 1, 1)).length;

/** A restore that loses its store after `share` of the bytes. */
async function breakOff(share = 0.7): Promise<number> {
  let kept = 0;
  const broken = again({ store: store(share * size()), onKept: (bytes) => (kept = bytes) });
  await expect(broken).rejects.toMatchObject({ code: "SLU-3101" });
  expect(beside()).toEqual([
    expect.stringMatching(/^\.app\.db\.[0-9a-f]{12}\.restoring$/),
    expect.stringMatching(/^\.app\.db\.[0-9a-f]{12}\.restoring-parts$/),
  ]);
  expect(kept).toBeGreaterThan(0.2 * size());
  return kept;
}

test("a restore that loses its store goes on where it was when it's repeated", async () => {
  const kept = await breakOff();
  const first = await again({ store: store(0.2 * size()), onKept: () => {} }).catch((error: unknown) => error);
  expect(first).toMatchObject({ code: "SLU-3101" });
  const restored = await again();
  expect(readFileSync(output).equals(log.states[1]!)).toBe(true);
  expect(beside()).toEqual(["app.db"]);
  expect(restored.keptBytes).toBeGreaterThanOrEqual(kept);
  expect(restored.fetchedBytes).toBe(size() - restored.keptBytes);
});

test("an aborted one does, too; one that had decoded nothing leaves nothing", async () => {
  const stop = new AbortController();
  const reason = new Error("enough");
  const aborted = again({
    signal: stop.signal,
    onProgress: ({ bytesDone }) => bytesDone > 0.3 * size() && stop.abort(reason),
  });
  await expect(aborted).rejects.toThrow("enough");
  expect(beside()).toHaveLength(2);
  expect((await again()).keptBytes).toBeGreaterThan(0.2 * size());
  rmSync(output);
  await expect(again({ store: store(200_000) })).rejects.toMatchObject({ code: "SLU-3101" });
  expect(beside()).toEqual([]);
});

test("an object that was replaced is fetched anew", async () => {
  await breakOff();
  const file = log.file(0, 1, 1);
  await new Promise((done) => setTimeout(done, 20));
  writeFileSync(file, readFileSync(file));
  expect((await again()).keptBytes).toBe(0);
  expect(readFileSync(output).equals(log.states[1]!)).toBe(true);
});

test("pages that were damaged meanwhile are fetched again, and only their segments", async () => {
  const kept = await breakOff();
  const bytes = readFileSync(left(".restoring"));
  // In the first segment, which is always there.
  bytes[4096 * 3 + 17]! ^= 1;
  writeFileSync(left(".restoring"), bytes);
  const restored = await again();
  expect(readFileSync(output).equals(log.states[1]!)).toBe(true);
  expect(restored.keptBytes).toBeLessThan(kept);
  expect(restored.keptBytes).toBeGreaterThan(0);
});

test("a temporary file that lost its content, or its end, is no wrong database", async () => {
  await breakOff();
  writeFileSync(left(".restoring"), "");
  expect((await again()).keptBytes).toBe(0);
  expect(readFileSync(output).equals(log.states[1]!)).toBe(true);
});

test("a journal that says something wrong leads to a fresh restore", async () => {
  await breakOff();
  const text = readFileSync(left("-parts")).toString("latin1");
  writeFileSync(
    left("-parts"),
    text.replace(/"crc":"(.)/, (_, digit) => `"crc":"${digit === "7" ? "8" : "7"}`),
    "latin1",
  );
  const restored = await again();
  expect(readFileSync(output).equals(log.states[1]!)).toBe(true);
  expect(restored.keptBytes).toBe(0);
  expect(restored.fetchedBytes).toBeGreaterThanOrEqual(size());
});

test.each([
  ["cut off", (bytes: Buffer) => bytes.subarray(0, bytes.length - 100)],
  ["noise", (bytes: Buffer) => Buffer.from(bytes.map((_, i) => (i * i) >>> 3))],
  [
    "of another version",
    (bytes: Buffer) => Buffer.from(bytes.toString("latin1").replace('"format":1', '"format":2'), "latin1"),
  ],
  ["empty", () => Buffer.alloc(0)],
])("a journal that is %s costs only time", async (_, change) => {
  await breakOff();
  writeFileSync(left("-parts"), change(readFileSync(left("-parts"))));
  await again();
  expect(readFileSync(output).equals(log.states[1]!)).toBe(true);
  expect(beside()).toEqual(["app.db"]);
});

test("of several leftovers the largest counts, a journal without its file and who doesn't go on remove them", async () => {
  await breakOff(0.5);
  const name = path.basename(left(".restoring"));
  const other = path.join(path.dirname(output), name.replace(/[0-9a-f]{12}/, "0123456789ab"));
  writeFileSync(other, "something");
  writeFileSync(`${other}-parts`, "x");
  writeFileSync(other.replace("0123456789ab", "00000000000a") + "-parts", "an orphan");
  expect((await again()).keptBytes).toBeGreaterThan(0);
  expect(beside()).toEqual(["app.db"]);
  rmSync(output);
  await breakOff();
  const target = await RestoreTarget.create(output);
  await target.discard();
  expect(beside()).toEqual([]);
});

// The last one: it goes on with the log.
test("what another plan needs is taken over, whatever the state", async () => {
  await breakOff();
  log.commit(26_100);
  const newest = await again();
  expect(newest).toMatchObject({ txid: 2 });
  expect(newest.keptBytes).toBeGreaterThan(0.1 * size());
  expect(readFileSync(output).equals(log.states[2]!)).toBe(true);
  rmSync(output);
  // Pages of the newer state are in the way of the older one then.
  await expect(again({ store: store(0.9 * size()) })).rejects.toMatchObject({ code: "SLU-3101" });
  const older = await again({ txid: 1 });
  expect(older).toMatchObject({ txid: 1 });
  expect(readFileSync(output).equals(log.states[1]!)).toBe(true);
  expect(beside()).toEqual(["app.db"]);
});

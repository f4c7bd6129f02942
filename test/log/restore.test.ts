import Database from "better-sqlite3";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { PageSums } from "../../src/database/page-sums.ts";
import { isSluiceError } from "../../src/errors/error.ts";
import { describeLog } from "../../src/log/describe.ts";
import { planRestore, restore, type RestoreOptions } from "../../src/log/restore.ts";
import { verify } from "../../src/log/verify.ts";
import { position } from "../../src/ltx/position.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import type { ObjectStore } from "../../src/store/store.ts";
import { checksumOf, FIRST_MS, MadeLog, TICK_MS } from "./make-log.ts";

let directory: string;
let output: string;
let log: MadeLog;
let store: DirectoryStore;

function begin(pageSize?: number): void {
  log = new MadeLog(directory, pageSize === undefined ? {} : { pageSize });
  store = new DirectoryStore(log.bucket);
}

beforeEach(() => {
  directory = mkdtempSync(path.join(tmpdir(), "sluice-restore-"));
  mkdirSync(path.join(directory, "out"));
  output = path.join(directory, "out", "app.db");
});
afterEach(() => {
  log?.close();
  rmSync(directory, { recursive: true });
});

const ours = (options: Partial<RestoreOptions> = {}) => restore({ store, prefix: "", path: output, ...options });

async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => "restored",
    (error: unknown) => (isSluiceError(error) ? error.code : error),
  );
}

/** A log of ten records, of which some were compacted, and a snapshot. */
function tenRecords(rows = (txid: number) => [40, 300, 700, 20, 650, 90, 91, 400, 5, 120][txid - 1]!): void {
  for (let txid = 1; txid <= 10; txid++) log.commit(rows(txid), { record: txid > 6 });
  log.put(9, 1, 4);
  log.put(1, 4, 6);
  log.put(1, 6, 8);
  log.put(2, 1, 3);
}

describe.each([512, 4096, 65536])("a log with pages of %i bytes", (pageSize) => {
  test("comes back at each of its states, with what a node goes on from", async () => {
    begin(pageSize);
    tenRecords();
    for (const txid of [3, 4, 6, 7, 8, 9, 10]) {
      const restored = await ours({ txid, force: true });
      const state = log.states[txid]!;
      expect(readFileSync(output).equals(state), `TXID ${txid}`).toBe(true);
      const sums = new PageSums(restored.pageSums, restored.pageCount);
      expect(sums.checksum).toBe(checksumOf(state));
      expect(restored).toMatchObject({
        txid,
        position: position(1, txid),
        epoch: 1,
        writer: 0x0123456789abcdefn,
        checksum: checksumOf(state),
        logId: "0123456789abcdef0123456789abcdef",
        timestampMs: FIRST_MS + txid * TICK_MS,
        pageSize,
        pageCount: state.length / pageSize,
      });
    }
    expect(readdirSync(path.dirname(output))).toEqual(["app.db"]);
  });
});

test("random logs, with overlaps and holes, come back where a plan exists", async () => {
  begin(512);
  const rows = [3, 60, 9, 80, 81, 2, 50, 51];
  for (const count of rows) log.commit(count, { record: false });
  const file = fc
    .tuple(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 0, max: 7 }), fc.integer({ min: 0, max: 8 }))
    .map(([min, length, level]) => ({
      level: length === 0 ? level : Math.max(1, level),
      min,
      max: Math.min(8, min + length),
    }));
  let restoredAny = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(file, { minLength: 3, maxLength: 12 }),
      fc.integer({ min: 1, max: 8 }),
      async (files, txid) => {
        rmSync(path.join(log.bucket, "ltx"), { recursive: true, force: true });
        for (const { level, min, max } of files) log.put(min === max ? level : Math.max(1, level), min, max);
        const outcome = await codeOf(ours({ txid, force: true, integrityCheck: "none" }));
        if (outcome === "restored") {
          restoredAny++;
          expect(readFileSync(output).equals(log.states[txid]!)).toBe(true);
        } else expect(["SLU-4502", "SLU-4504"]).toContain(outcome);
      },
    ),
    { numRuns: 60 },
  );
  expect(restoredAny).toBeGreaterThan(5);
});

test("a database over many segments is the same, and progress ends at its total", async () => {
  begin();
  for (let txid = 1; txid <= 3; txid++) log.commit(12_000 + txid, { record: txid > 1 });
  log.put(9, 1, 1);
  const seen: number[] = [];
  let total = 0;
  const restored = await ours({
    onProgress: ({ bytesDone, bytesTotal }) => {
      seen.push(bytesDone);
      total = bytesTotal;
    },
  });
  expect(readFileSync(output).equals(log.states[3]!)).toBe(true);
  expect(restored.fetchedBytes).toBeGreaterThan(8_000_000);
  expect(seen.length).toBeGreaterThan(8);
  expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  expect(seen.at(-1)).toBe(total);
  expect(restored.checkMs).toBeGreaterThan(0);
});

test("large files are read where they lie; one that can't be read there, or ends early, comes through the store", async () => {
  begin();
  log.commit(12_000);
  const cut = path.join(directory, "cut");
  writeFileSync(cut, readFileSync(log.file(0, 1, 1)).subarray(0, 3_000_000));
  const fetched: number[] = [];
  for (const localFile of [(key: string) => store.localFile(key), () => path.join(directory, "gone"), () => cut]) {
    let bytes = 0;
    const get: ObjectStore["get"] = (key, options) => {
      bytes += options?.range?.length ?? 0;
      return store.get(key, options);
    };
    await restore({ store: { ...vanishing(() => {}), get, localFile }, prefix: "", path: output, force: true });
    expect(readFileSync(output).equals(log.states[1]!)).toBe(true);
    fetched.push(bytes);
  }
  const sizeBytes = readFileSync(log.file(0, 1, 1)).length;
  expect(fetched[0]).toBeLessThan(500_000);
  expect(fetched[1]).toBeGreaterThanOrEqual(sizeBytes);
  expect(fetched[2]).toBeGreaterThan(sizeBytes - 3_000_000);
  expect(fetched[2]).toBeLessThan(fetched[1]!);
});

test("a time means the newest state at or before it", async () => {
  begin();
  tenRecords();
  for (const [offset, txid] of [
    [7000, 7],
    [7999, 7],
    [6999, 6],
    [1e9, 10],
  ] as const) {
    expect((await ours({ timestampMs: FIRST_MS + offset, force: true })).txid).toBe(txid);
  }
  expect(await codeOf(ours({ timestampMs: FIRST_MS, force: true }))).toBe("SLU-4503");
  expect((await planRestore({ store, prefix: "", txid: 8 })).files.length).toBeGreaterThan(1);
});

test("every flipped bit and every truncation is an error, never a wrong page", async () => {
  begin(512);
  log.commit(30);
  log.commit(35);
  const record = log.file(0, 2, 2);
  const bytes = readFileSync(record);
  let harmless = 0;
  const attempt = async (damaged: Buffer, what: string) => {
    writeFileSync(record, damaged);
    const outcome = await codeOf(ours({ integrityCheck: "none" }));
    // The checksum is of the content: another way to compress the same page is no damage.
    if (outcome === "restored") {
      expect(readFileSync(output).equals(log.states[2]!), what).toBe(true);
      rmSync(output);
      harmless++;
    } else expect(outcome, what).toMatch(/^SLU-(5001|5002|4508|4509)$/);
  };
  // Every byte of header and end, and many of the pages; bits in turn.
  for (let at = 0; at < bytes.length; at += at < 130 || at > bytes.length - 120 ? 1 : 97) {
    const damaged = Buffer.from(bytes);
    damaged[at]! ^= 1 << (at % 8);
    await attempt(damaged, `bit ${at % 8} of byte ${at}`);
  }
  for (let length = 0; length < bytes.length; length += length < 130 ? 13 : 331) {
    await attempt(bytes.subarray(0, length), `cut to ${length} bytes`);
  }
  await attempt(Buffer.concat([bytes, Buffer.alloc(1)]), "a byte more");
  expect(harmless).toBeLessThan(10);
  expect(readdirSync(path.dirname(output))).toEqual([]);
});

test("a file under another file's name, and one that doesn't fit its record, are refused", async () => {
  begin();
  log.commit(30);
  log.commit(40);
  const other = readFileSync(log.file(0, 2, 2));
  log.commit(50);
  const third = readFileSync(log.file(0, 3, 3));
  writeFileSync(log.file(0, 3, 3), other);
  expect(await codeOf(ours())).toBe("SLU-4509");
  // The checksum in the record is not that of the state: as if a page had been captured wrong.
  writeFileSync(log.file(0, 3, 3), third);
  const reserved = new Uint8Array(20);
  reserved[0] = 99;
  reserved[19] = 1;
  log.put(0, 3, 3, { reserved });
  expect(await codeOf(ours())).toBe("SLU-4508");
  expect(existsSync(output)).toBe(false);
});

test("a database that was damaged when it was captured fails SQLite's check, and is kept from its place", async () => {
  begin();
  log.commit(2000);
  const state = log.states[1]!;
  state.fill(0x5a, 4096 * 7, 4096 * 7 + 3000);
  log.put(0, 1, 1);
  expect(await codeOf(ours())).toBe("SLU-4507");
  expect(readdirSync(path.dirname(output))).toEqual([]);
  await ours({ integrityCheck: "none" });
  expect(readFileSync(output).equals(state)).toBe(true);
});

/** The store, but `vanish` is called before each read of a file. */
function vanishing(vanish: (key: string) => void): ObjectStore {
  return {
    url: store.url,
    layout: store.layout,
    list: (prefix, options) => store.list(prefix, options),
    get: (key, options) => {
      vanish(key);
      return store.get(key, options);
    },
    put: (key, body, options) => store.put(key, body, options),
    delete: (keys, options) => store.delete(keys, options),
    close: () => store.close(),
  };
}

test("files that are compacted away meanwhile: it plans anew, and fetches no finished file again", async () => {
  begin();
  log.commit(6000);
  log.commit(6100);
  log.commit(6200);
  log.commit(6300);
  const reads = new Map<string, number>();
  let moved = false;
  const changing = vanishing((key) => {
    reads.set(key, (reads.get(key) ?? 0) + 1);
    if (moved || !key.endsWith("0000000000000003.ltx")) return;
    moved = true;
    log.put(1, 2, 3);
    rmSync(log.file(0, 2, 2));
    rmSync(log.file(0, 3, 3));
  });
  const restored = await restore({ store: changing, prefix: "", path: output });
  expect(moved).toBe(true);
  expect(restored.txid).toBe(4);
  expect(readFileSync(output).equals(log.states[4]!)).toBe(true);
});

test("files that vanish again and again end in an error, not in a loop", async () => {
  begin();
  log.commit(10);
  log.commit(20);
  const bytes = readFileSync(log.file(0, 2, 2));
  const gone: ObjectStore = {
    ...vanishing(() => {}),
    get: (key, options) => {
      if (key.endsWith("0000000000000002.ltx")) rmSync(log.file(0, 2, 2), { force: true });
      return store.get(key, options);
    },
    list: (prefix, options) => {
      writeFileSync(log.file(0, 2, 2), bytes);
      return store.list(prefix, options);
    },
  };
  expect(await codeOf(restore({ store: gone, prefix: "", path: output }))).toBe("SLU-4510");
  expect(readdirSync(path.dirname(output))).toEqual([]);
});

test("aborted, it leaves nothing", async () => {
  begin();
  log.commit(20_000);
  const stop = new AbortController();
  const restoring = ours({ signal: stop.signal, onProgress: ({ phase }) => phase === "fetch" && stop.abort() });
  await expect(restoring).rejects.toThrow();
  expect(readdirSync(path.dirname(output))).toEqual([]);
});

test("killed at any moment, the target is the old database or the new one, never a mixture", async () => {
  begin();
  log.commit(5000);
  log.commit(5500);
  const restorer = fileURLToPath(new URL("./children/restorer.ts", import.meta.url));
  const old = new Database(output);
  old.pragma("journal_mode = WAL");
  old.exec("CREATE TABLE old(a); INSERT INTO old VALUES (1)");
  // An application that was killed: its WAL holds all of it.
  const remains = [".db", ".db-wal", ".db-shm"].map((suffix) => {
    return { suffix, bytes: readFileSync(output.replace(".db", suffix)) };
  });
  old.close();
  const seen = { old: 0, new: 0 };
  for (let i = 0; i < 14; i++) {
    for (const { suffix, bytes } of remains) writeFileSync(output.replace(".db", suffix), bytes);
    const child = spawn(process.execPath, [restorer, log.bucket, output], { stdio: ["ignore", "pipe", "inherit"] });
    const phase = ["plan", "fetch", "check", "install"][i % 4]!;
    await new Promise<void>((resolve) => {
      let printed = "";
      child.stdout.on("data", (chunk: Buffer) => {
        printed += chunk.toString();
        if (printed.includes(phase)) resolve();
      });
      child.stdout.on("end", resolve);
    });
    await sleep(Math.random() * (phase === "install" ? 60 : 25));
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    if (!existsSync(`${output}-wal`) && readFileSync(output).equals(log.states[2]!)) {
      seen.new++;
      continue;
    }
    const db = new Database(output);
    expect(db.prepare("SELECT a FROM old").pluck().all(), phase).toEqual([1]);
    db.close();
    seen.old++;
  }
  expect(seen.old).toBeGreaterThan(3);
  await ours({ force: true });
  expect(readdirSync(path.dirname(output))).toEqual(["app.db"]);
});

test("a write that fails is a defined error, and the old file stays", async () => {
  begin();
  log.commit(3000);
  writeFileSync(output, "old");
  const restorer = fileURLToPath(new URL("./children/restorer.ts", import.meta.url));
  // Files may not grow past 1 MiB: the kernel refuses the write as it would on a full disk.
  const script = `trap "" XFSZ; ulimit -f 1024; exec "$0" "$@"`;
  const child = spawn("bash", ["-c", script, process.execPath, restorer, log.bucket, output]);
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  await once(child, "close");
  expect(errors).toContain("SLU-4511");
  expect(readFileSync(output, "utf8")).toBe("old");
  expect(readdirSync(path.dirname(output))).toEqual(["app.db"]);
});

test("a drill compares with the live database where that is at the same position", async () => {
  begin();
  tenRecords();
  const live = { position: position(1, 10), checksum: checksumOf(log.states[10]!) };
  const scratchDir = path.join(directory, "out");
  const drill = (state?: typeof live) => verify({ store, prefix: "", scratchDir, live: () => Promise.resolve(state) });
  expect(await drill(live)).toMatchObject({ txid: 10, recordChecked: true, live: "equal" });
  expect((await drill({ ...live, position: position(1, 11) })).live).toBe("moved on");
  expect((await drill()).live).toBe("none");
  expect(await codeOf(drill({ ...live, checksum: 1n }))).toBe("SLU-4515");
  expect(readdirSync(scratchDir)).toEqual([]);
});

test("files are described with what their headers say", async () => {
  begin();
  tenRecords();
  const all = await describeLog({ store, prefix: "" });
  expect(all.map(({ level, minTxid, maxTxid }) => `${level}/${minTxid}-${maxTxid}`)).toEqual(
    "0/7-7 0/8-8 0/9-9 0/10-10 1/4-6 1/6-8 2/1-3 9/1-4".split(" "),
  );
  expect(all[0]).toMatchObject({
    timestampMs: FIRST_MS + 7 * TICK_MS,
    pageSize: 4096,
    pageCount: log.states[7]!.length / 4096,
    record: { position: position(1, 7), epoch: 1, takeover: false },
  });
  expect(await describeLog({ store, prefix: "" }, { level: 9 })).toHaveLength(1);
});

test("a gap says until where the log goes", async () => {
  begin();
  tenRecords();
  rmSync(log.file(0, 9, 9));
  expect(await codeOf(ours())).toBe("SLU-4504");
  expect((await ours({ txid: 8 })).txid).toBe(8);
});

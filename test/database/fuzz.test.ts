import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import Sqlite from "better-sqlite3";
import fc from "fast-check";
import { afterAll, beforeAll, expect } from "vitest";
import { Database, stateDirOf } from "../../src/database/database.ts";
import { quarantined } from "../../src/database/quarantined.ts";
import { isSluiceError } from "../../src/errors/error.ts";
import { content, encode, header } from "../ltx/files.ts";
import { fuzz, mutated } from "../fuzz/fuzz.ts";

let dir: string;
let count = 0;
let whole: Uint8Array;
let state: Uint8Array;
let wal: Uint8Array;

beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-fuzz-"));
  const file = path.join(dir, "made.db");
  const app = new Sqlite(file);
  app.exec(
    "pragma page_size = 512; pragma journal_mode = wal; create table t (x); insert into t values (zeroblob(2000))",
  );
  const database = await Database.open(file);
  await database.bindLog({ logId: "0".repeat(32), nodeId: "n" });
  await database.freezeTakeover({ txid: 1, writer: 1n, minTimestampMs: 0 });
  await database.confirm(1);
  await database.begin(1, 1n);
  app.exec("insert into t values (zeroblob(900))");
  await database.freeze();
  app.exec("insert into t values (1)");
  wal = new Uint8Array(readFileSync(`${file}-wal`));
  state = new Uint8Array(readFileSync(path.join(stateDirOf(file), "state")));
  whole = new Uint8Array(readFileSync(file));
  app.close();
  await database.close();
});
afterAll(() => rmSync(dir, { recursive: true }));

/** Opens what lies there; the error that it's refused with, if it is. Anything without a code fails. */
async function opened(files: Readonly<Record<string, Uint8Array>>): Promise<string | undefined> {
  const place = path.join(dir, String(count++));
  const file = path.join(place, "app.db");
  mkdirSync(stateDirOf(file), { recursive: true });
  for (const [name, bytes] of Object.entries(files)) writeFileSync(path.join(place, name), bytes);
  const before = readFileSync(file);
  try {
    const database = await Database.open(file);
    database.captureNow();
    await database.close();
    return undefined;
  } catch (error) {
    if (!isSluiceError(error)) throw error;
    // What isn't understood is left as it is.
    if (error.code === "SLU-2001") expect(Buffer.compare(readFileSync(file), before)).toBe(0);
    return error.code;
  } finally {
    rmSync(place, { recursive: true });
  }
}

fuzz("random bytes under SQLite's header are a database, or refused", 25, () => {
  const head = whole.slice(0, 100);
  const bytes = fc.tuple(mutated(head), fc.uint8Array({ minLength: 412, maxLength: 3_000 }));
  return fc.asyncProperty(bytes, async ([first, rest]) => {
    const file = Uint8Array.from([...head.subarray(0, 16), ...first.subarray(16), ...rest]);
    await opened({ "app.db": file });
  });
});

fuzz("a changed database, WAL or state is opened, or refused", 25, () =>
  fc.asyncProperty(
    fc.option(mutated(whole)),
    fc.option(mutated(wal)),
    fc.option(mutated(state)),
    async (db, log, own) => {
      await opened({ "app.db": db ?? whole, "app.db-wal": log ?? wal, ".app.db-sluice/state": own ?? state });
    },
  ),
);

fuzz("what lies in a quarantine is read, or its problem is named", 200, () => {
  const entry = encode(header(512, 4, 2), new Map([2, 4].map((pgno) => [pgno, content(512, pgno)])));
  const stateDir = path.join(dir, "quarantine-of");
  return fc.asyncProperty(mutated(entry), async (bytes) => {
    mkdirSync(path.join(stateDir, "quarantine"), { recursive: true });
    writeFileSync(path.join(stateDir, "quarantine", "0000000100000002-1700000000000.ltx"), bytes);
    writeFileSync(path.join(stateDir, "quarantine", "..x\n.ltx"), bytes);
    const found = quarantined(stateDir);
    expect(found.length).toBe(1);
    expect(found[0]!.problem !== undefined || found[0]!.files.length === 1).toBe(true);
  });
});

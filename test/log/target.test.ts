import Database from "better-sqlite3";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import { checkIntegrity } from "../../src/log/integrity.ts";
import { RestoreTarget } from "../../src/log/target.ts";
import { tryLock } from "../../src/sqlite/locks.ts";

let directory: string;
let path: string;
const contents = Buffer.from("the new database");

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "sluice-target-"));
  path = join(directory, "app.db");
});
afterEach(() => rmSync(directory, { recursive: true }));

async function restoreTo(at: string, options: { force?: boolean } = {}): Promise<void> {
  const target = await RestoreTarget.create(at, options);
  try {
    writeSync(target.fd, contents);
    await target.sync();
    await target.install();
  } finally {
    await target.discard();
  }
}

function makeDatabase(at: string): Database.Database {
  const db = new Database(at);
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
  return db;
}

const coded = (code: string) => (error: unknown) => isSluiceError(error) && error.code === code;

test("a restore creates the file and leaves nothing else", async () => {
  await restoreTo(path);
  expect(readFileSync(path)).toEqual(contents);
  expect(readdirSync(directory)).toEqual(["app.db"]);
});

test("a file is never overwritten without force, also not one that appears meanwhile", async () => {
  writeFileSync(path, "old");
  await expect(restoreTo(path)).rejects.toSatisfy(coded("SLU-4505"));
  rmSync(path);
  const target = await RestoreTarget.create(path);
  writeFileSync(path, "created by the application");
  await expect(target.install()).rejects.toSatisfy(coded("SLU-4505"));
  await target.discard();
  expect(readFileSync(path, "utf8")).toBe("created by the application");
  expect(readdirSync(directory)).toEqual(["app.db"]);
});

test("a file of 0 bytes is as good as none, unless somebody is about to write to it", async () => {
  writeFileSync(path, "");
  const target = await RestoreTarget.create(path);
  writeFileSync(`${path}-journal`, "of a first transaction");
  await expect(target.install()).rejects.toSatisfy(coded("SLU-4505"));
  await target.discard();
  rmSync(`${path}-journal`);
  await restoreTo(path);
  expect(readFileSync(path)).toEqual(contents);
});

test("with force the mode stays, and WAL, journal and wal-index of the old file go", async () => {
  makeDatabase(path);
  // As a killed application leaves it.
  const killed = join(directory, "killed.db");
  for (const suffix of ["", "-wal", "-shm"]) copyFileSync(path + suffix, killed + suffix);
  chmodSync(killed, 0o640);
  expect(statSync(`${killed}-wal`).size).toBeGreaterThan(0);
  await restoreTo(killed, { force: true });
  expect(readFileSync(killed)).toEqual(contents);
  expect(statSync(killed).mode & 0o777).toBe(0o640);
  expect(readdirSync(directory).filter((name) => name.startsWith("killed"))).toEqual(["killed.db"]);
});

test("killed after the old file's WAL is gone, the old database is whole", async () => {
  const db = makeDatabase(path);
  const killed = join(directory, "killed.db");
  for (const suffix of ["", "-wal", "-shm"]) copyFileSync(path + suffix, killed + suffix);
  db.close();
  const target = await RestoreTarget.create(killed, { force: true });
  // The rename is what fails here: everything before it was done.
  rmSync(target.temporaryPath);
  await expect(target.install()).rejects.toSatisfy(coded("SLU-4511"));
  await target.discard();
  expect(existsSync(`${killed}-wal`)).toBe(false);
  const old = new Database(killed);
  expect(old.prepare("SELECT a FROM t").pluck().all()).toEqual([1]);
  old.close();
});

test("a copy of a database is for nobody who can't read that; what it replaces goes before it", async () => {
  const like = join(directory, "like.db");
  writeFileSync(like, "x", { mode: 0o600 });
  const copy = async (): Promise<number> => {
    const target = await RestoreTarget.create(path, { like, force: true });
    expect(statSync(target.temporaryPath).mode & 0o077).toBe(0);
    await target.install();
    return statSync(path).mode & 0o777;
  };
  expect(await copy()).toBe(0o600);
  chmodSync(like, 0o666);
  expect(await copy()).toBe(0o600);
});

test("a database that is open is not replaced", async () => {
  const db = makeDatabase(path);
  await expect(restoreTo(path, { force: true })).rejects.toSatisfy(coded("SLU-4516"));
  db.prepare("INSERT INTO t VALUES (2)").run();
  expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(2);
  db.close();
  await restoreTo(path, { force: true });
  expect(readFileSync(path)).toEqual(contents);
});

test("a file that is no database is replaced with force, with what is beside it", async () => {
  writeFileSync(path, "not a database, but long enough to look at".repeat(100));
  writeFileSync(`${path}-wal`, "x");
  await restoreTo(path, { force: true });
  expect(readdirSync(directory)).toEqual(["app.db"]);
});

test("a WAL without its database does not meet the new one", async () => {
  const db = makeDatabase(path);
  copyFileSync(`${path}-wal`, join(directory, "new.db-wal"));
  db.close();
  await restoreTo(join(directory, "new.db"));
  expect(existsSync(join(directory, "new.db-wal"))).toBe(false);
});

test("a symbolic link stays one", async () => {
  const real = join(directory, "real.db");
  makeDatabase(real).close();
  symlinkSync(real, path);
  await restoreTo(path, { force: true });
  expect(readFileSync(real)).toEqual(contents);
});

test("what a killed restore left is removed by the next, a live one's is not", async () => {
  const held = join(directory, ".app.db.0123456789ab.restoring");
  const fd = openSync(held, "w+");
  tryLock(fd, "exclusive", 0, 1);
  const abandoned = join(directory, ".app.db.ba9876543210.restoring");
  writeFileSync(abandoned, "half");
  writeFileSync(`${abandoned}-wal`, "");
  writeFileSync(join(directory, ".other.db.ba9876543210.restoring"), "half");
  await restoreTo(path);
  expect(readdirSync(directory).toSorted()).toEqual([
    ".app.db.0123456789ab.restoring",
    ".other.db.ba9876543210.restoring",
    "app.db",
  ]);
  closeSync(fd);
});

test("what somebody else has put there under such a name is not gone on with", async () => {
  const victim = join(directory, "victim");
  writeFileSync(victim, "precious");
  const planted = (digit: string): string => join(directory, `.app.db.${digit.repeat(12)}.restoring`);
  symlinkSync(victim, planted("a"));
  linkSync(victim, planted("b"));
  execFileSync("mkfifo", [planted("c")]);
  mkdirSync(planted("d"));
  for (const digit of ["a", "b", "c", "d"]) writeFileSync(`${planted(digit)}-parts`, "a journal");
  const own = planted("e");
  writeFileSync(own, "half");
  // Where the journal of the own one should be.
  symlinkSync(victim, `${own}-parts`);
  const target = await RestoreTarget.create(path, { resume: true });
  writeSync(target.fd, contents);
  await target.sync();
  await target.install();
  expect(readFileSync(victim, "utf8")).toBe("precious");
  expect(readFileSync(path)).toEqual(contents);
  expect(lstatSync(path).isFile()).toBe(true);
});

test("room on the disk is checked before anything is fetched", async () => {
  const target = await RestoreTarget.create(path);
  await target.ensureRoom(1000);
  await expect(target.ensureRoom(2 ** 50)).rejects.toSatisfy(coded("SLU-4506"));
  await target.discard();
  expect(readdirSync(directory)).toEqual([]);
});

test("a directory that can't be written is a defined error", async () => {
  const missing = join(directory, "missing");
  await expect(restoreTo(join(missing, "app.db"))).rejects.toSatisfy(coded("SLU-4511"));
  await expect(restoreTo(join(missing, "app.db"))).rejects.toThrow(`there is no directory ${missing}`);
});

test("a process that has the old file open for reading only is noticed, too", async () => {
  makeDatabase(path).close();
  const script = `const D = require("better-sqlite3"); const db = new D(${JSON.stringify(path)}, { readonly: true });
    db.prepare("SELECT * FROM t").all(); console.log("open"); process.stdin.resume().on("end", () => process.exit())`;
  const reader = spawn(process.execPath, ["-e", script], { stdio: ["pipe", "pipe", "inherit"] });
  await once(reader.stdout, "data");
  await expect(restoreTo(path, { force: true })).rejects.toSatisfy(coded("SLU-4516"));
  reader.stdin.end();
  await once(reader, "exit");
});

test("SQLite's check finds damage, in a thread of its own", async () => {
  const db = makeDatabase(path);
  db.exec("CREATE INDEX i ON t(a)");
  db.prepare(
    "INSERT INTO t SELECT value FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 5000) SELECT value FROM n)",
  ).run();
  db.close();
  await checkIntegrity(path, "full", path);
  expect(readdirSync(directory)).toEqual(["app.db"]);
  const file = readFileSync(path);
  file.fill(0x55, 4096 * 5, 4096 * 5 + 2000);
  writeFileSync(path, file);
  await expect(checkIntegrity(path, "quick", path)).rejects.toSatisfy(coded("SLU-4507"));
});

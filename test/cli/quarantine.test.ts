import { once } from "node:events";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { type IncomingMessage, request } from "node:http";
import path from "node:path";
import { text } from "node:stream/consumers";
import Sqlite from "better-sqlite3";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Report } from "../../src/admin/report.ts";
import { StateFile } from "../../src/database/state.ts";
import { Place } from "./sluice.ts";

const PROTECTED = '"message":"protected"';

let place: Place;
beforeEach(() => (place = new Place()));
afterEach(() => place[Symbol.asyncDispose]());

interface Listed {
  readonly id: string;
  readonly database: string;
  readonly kind: string;
  readonly pages?: number;
  readonly common?: string;
  readonly own?: string;
  readonly path: string;
  readonly problem?: string;
}

function configure(sync = "1h"): void {
  writeFileSync(place.path("sluice.yml"), `dbs: [{ path: app.db, store: ${place.store}, sync-interval: ${sync} }]\n`);
}

function values(file: string): number[] {
  const db = new Sqlite(place.path(file), { readonly: true });
  try {
    return db.prepare("select x from t order by rowid").pluck().all() as number[];
  } finally {
    db.close();
  }
}

/**
 * A power loss that took the end of a batch: what the disk kept is a state in its middle, with row 2 and without row 3.
 * Put back, the database has both; the state that the disk had is in the quarantine.
 */
async function losePower(): Promise<void> {
  configure();
  place.create("app.db");
  const first = await place.start(PROTECTED, "replicate");
  place.insert("app.db", 1);
  await place.json("sync", "app.db");
  place.insert("app.db", 2);
  for (const end of ["", "-wal"]) copyFileSync(place.path(`app.db${end}`), place.path(`kept${end}`));
  place.insert("app.db", 3);
  await place.json("sync", "app.db");
  await first.end("SIGKILL");
  for (const end of ["", "-wal"]) copyFileSync(place.path(`kept${end}`), place.path(`app.db${end}`));
  rmSync(place.path("app.db-shm"));
  const state = new StateFile(place.path(".app.db-sluice"));
  await state.write({ ...state.state!, bootId: "an earlier one" });
  state.close();
  const second = await place.start(PROTECTED, "replicate");
  const { databases } = await place.json<Report>("status");
  expect(databases[0]!.quarantined).toMatchObject({ entries: 1 });
  expect(databases[0]!.quarantined.bytes).toBeGreaterThan(0);
  const measured = await metrics();
  const labels = `{db="${place.path("app.db")}"}`;
  expect(measured).toContain(`sluice_quarantine_entries${labels} 1\n`);
  expect(measured).toMatch(/^sluice_quarantine_bytes\{.*\} [1-9]/m);
  expect(measured).toContain(`sluice_quarantined_total${labels} 1\n`);
  await second.end("SIGTERM");
  expect(second.output).toContain("went to the quarantine");
  expect(values("app.db")).toEqual([0, 1, 2, 3]);
}

async function metrics(): Promise<string> {
  const { socket } = JSON.parse(readFileSync(place.path(".app.db-sluice/owner.json"), "utf8")) as { socket: string };
  const sent = request({ socketPath: socket, path: "/metrics" }).end();
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return text(response);
}

async function listed(...args: string[]): Promise<Listed> {
  const found = await place.json<Listed[]>("quarantine", "list", ...args);
  expect(found).toHaveLength(1);
  return found[0]!;
}

describe("pages that a power loss left", () => {
  let template: Place;
  beforeAll(async () => {
    template = place = new Place();
    await losePower();
  });
  afterAll(() => template[Symbol.asyncDispose]());
  beforeEach(() => {
    cpSync(template.dir, place.dir, { recursive: true });
    configure();
  });

  test("are listed, shown by table and row, and put together over the log's state", async () => {
    const entry = await listed();
    expect(entry).toMatchObject({ database: place.path("app.db"), kind: "pages" });
    expect(entry.pages).toBeGreaterThan(0);
    expect(entry.common).toMatch(/^[0-9a-f]{16}$/);
    expect(entry.id.startsWith(`${entry.common}-`)).toBe(true);

    const shown = await place.json<{ tables: { name: string; pages: number }[] }>("quarantine", "show", entry.id);
    expect(shown).toMatchObject({
      base: { kind: "log" },
      exact: true,
      integrity: "ok",
      comparedWithNow: true,
      otherPages: 0,
    });
    expect(shown.tables.find(({ name }) => name === "t")).toMatchObject({ written: 0, removed: 1, missing: 0 });
    expect((await place.sluice("quarantine", "show", entry.id)).stdout).toMatch(/\nt +\d+ +0 +1 +0\n/);

    // The live database has moved on: the log's state is what counts.
    const db = new Sqlite(place.path("app.db"));
    db.exec("delete from t; vacuum");
    db.close();
    const extracted = await place.json("quarantine", "extract", entry.id, "-o", "lost.db");
    expect(extracted).toMatchObject({ base: { kind: "log" }, exact: true, integrity: "ok" });
    expect(values("lost.db")).toEqual([0, 1, 2]);
    const again = await place.sluice("quarantine", "extract", entry.id.slice(0, 20), "-o", "lost.db");
    expect(again).toMatchObject({ status: 1, stderr: expect.stringContaining("SLU-4505") });
    const shownNow = await place.json<{ tables: { name: string; missing: number }[] }>("quarantine", "show", entry.id);
    expect(shownNow.tables.find(({ name }) => name === "t")).toMatchObject({ missing: 3 });
  });

  test("without the log are laid over the database as it is now, and that is said", async () => {
    rmSync(place.path("sluice.yml"));
    const { id } = await listed("--db", "app.db");
    const result = await place.sluice("quarantine", "extract", "--db", "app.db", id, "-o", "lost.db");
    expect(result).toMatchObject({ status: 0, stdout: expect.stringContaining("as it is NOW") });
    expect(result.stdout).toContain("exactly the state that was left");
    expect(values("lost.db")).toEqual([0, 1, 2]);

    const db = new Sqlite(place.path("app.db"));
    db.exec("create table later(x)");
    db.close();
    expect(await place.json("quarantine", "extract", "--db", "app.db", id, "-o", "other.db")).toMatchObject({
      base: { kind: "now" },
      exact: false,
    });

    for (const name of ["app.db", "app.db-wal", "app.db-shm"]) rmSync(place.path(name), { force: true });
    const nothing = await place.sluice("quarantine", "extract", "--db", "app.db", id, "-o", "none.db");
    expect(nothing).toMatchObject({ status: 1, stderr: expect.stringContaining("SLU-1012") });
    expect(existsSync(place.path("none.db"))).toBe(false);
  });

  test("a log whose state is gone is named, and the next best is used", async () => {
    rmSync(place.path("store"), { recursive: true });
    mkdirSync(place.path("store"));
    const { id } = await listed();
    const result = await place.sluice("quarantine", "extract", id, "-o", "lost.db");
    expect(result).toMatchObject({ status: 0, stdout: expect.stringMatching(/not used: .*not in the log any more/) });
    expect(values("lost.db")).toEqual([0, 1, 2]);
  });

  test("have what they build on noted beside the log, until they are removed", async () => {
    const { id } = await listed();
    const noted = (): string[] => readdirSync(place.path("store/kept"));
    expect(noted()).toEqual([expect.stringMatching(new RegExp(`^[0-9a-f]{15}[1-9a-f]-${id}$`))]);
    expect(await place.sluice("quarantine", "remove", id)).toMatchObject({ status: 0 });
    expect(noted()).toEqual([]);
  });

  test("a damaged file is told of and left alone; wrong ids are refused; remove needs the whole id", async () => {
    const { id, path: file } = await listed();
    expect(await place.sluice("quarantine", "show", "ffff")).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("SLU-1010"),
    });
    const other = file.replace(/\.ltx$/, "0.ltx");
    copyFileSync(file, other);
    expect(await place.sluice("quarantine", "show", id.slice(0, 16))).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("may be"),
    });
    rmSync(other);

    const bytes = readFileSync(file);
    writeFileSync(file, bytes.subarray(0, bytes.length - 40));
    expect((await listed()).problem).toBeDefined();
    expect(await place.sluice("quarantine", "extract", id, "-o", "lost.db")).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("SLU-1011"),
    });
    bytes[bytes.length - 5]! ^= 1;
    writeFileSync(file, bytes);
    expect(await place.sluice("quarantine", "extract", id, "-o", "lost.db")).toMatchObject({ status: 1 });
    expect(existsSync(place.path("lost.db"))).toBe(false);

    expect((await place.sluice("quarantine", "remove", id.slice(0, 20))).status).toBe(2);
    expect(existsSync(file)).toBe(true);
    expect(await place.sluice("quarantine", "remove", id)).toMatchObject({ status: 0 });
    expect((await place.sluice("quarantine")).stdout).toBe("The quarantine is empty.\n");
  });
});

test("a whole file that --adopt replaced comes back, also with a WAL that was left beside it", async () => {
  configure();
  place.create("app.db", 3);
  await place.sluice("replicate", "--once");
  for (const name of readdirSync(place.dir)) if (/app\.db/.test(name)) rmSync(place.path(name), { recursive: true });
  place.create("app.db", 5);
  const adopted = await place.sluice("run", "--adopt", "--", "true");
  expect(adopted.status).toBe(0);
  expect(place.rows("app.db")).toBe(3);
  const entry = await listed();
  expect(entry).toMatchObject({ kind: "file", database: place.path("app.db") });
  const shown = await place.json<{ tables: unknown[] }>("quarantine", "show", entry.id);
  expect(shown.tables).toContainEqual(expect.objectContaining({ name: "t", missing: 2 }));
  expect(await place.json("quarantine", "extract", entry.id, "-o", "old.db")).toMatchObject({ integrity: "ok" });
  expect(place.rows("old.db")).toBe(5);

  const open = new Sqlite(place.path("old.db"));
  open.exec("insert into t values(9)");
  for (const end of ["", "-wal"]) copyFileSync(place.path(`old.db${end}`), path.join(entry.path, `app.db${end}`));
  open.close();
  await place.json("quarantine", "extract", entry.id, "-o", "with-wal.db");
  expect(place.rows("with-wal.db")).toBe(6);
});

test("batches of a deleted database that were never sent come back", async () => {
  configure();
  place.create("app.db");
  const first = await place.start(PROTECTED, "replicate");
  place.insert("app.db", 1);
  await place.json("sync", "app.db");
  // The store is away: what is sealed now stays here.
  const store = place.path("store");
  renameSync(store, `${store}-away`);
  writeFileSync(store, "");
  place.insert("app.db", 2);
  await place.json("sync", "app.db", "--wait", "local");
  await first.end("SIGKILL");
  rmSync(store);
  renameSync(`${store}-away`, store);
  for (const name of ["app.db", "app.db-wal", "app.db-shm"]) rmSync(place.path(name), { force: true });
  const restored = await place.sluice("run", "--", "true");
  expect(restored).toMatchObject({ status: 0, stderr: expect.stringContaining("went to the quarantine") });
  expect(values("app.db")).toEqual([0, 1]);
  expect((await place.sluice("status")).stdout).toContain("in the quarantine");
  const entry = await listed();
  expect(entry.kind).toBe("batches");
  expect(await place.json("quarantine", "extract", entry.id, "-o", "lost.db")).toMatchObject({
    exact: true,
    integrity: "ok",
  });
  expect(values("lost.db")).toEqual([0, 1, 2]);
});

test("a deleted database whose commits are all in the store leaves nothing in the quarantine", async () => {
  configure();
  place.create("app.db", 3);
  const first = await place.start(PROTECTED, "replicate");
  place.insert("app.db", 3);
  await place.json("sync", "app.db");
  // Killed: what is confirmed may still lie in its directory.
  await first.end("SIGKILL");
  expect(readdirSync(place.path(".app.db-sluice/ltx/0")).length).toBeGreaterThan(0);
  for (const name of ["app.db", "app.db-wal", "app.db-shm"]) rmSync(place.path(name), { force: true });
  for (let life = 0; life < 2; life++) expect((await place.sluice("run", "--", "true")).status).toBe(0);
  expect(place.rows("app.db")).toBe(4);
  expect(await place.json("quarantine", "list")).toEqual([]);
});

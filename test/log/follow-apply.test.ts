import Database from "better-sqlite3";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import { applyAtomically, type PageChanges } from "../../src/log/follow-apply.ts";
import { headerStamp, stampHeader, unstampHeader } from "../../src/log/follow-header.ts";
import { runSqlite } from "../../src/log/integrity.ts";

const IMAGES = 6;
let directory: string;
let followed: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "sluice-apply-"));
  followed = join(directory, "followed.db");
});
afterEach(() => rmSync(directory, { recursive: true }));

/** Images of one database at several versions, of very different sizes; the followed file starts with the first. */
function makeImages(pageSize = 4096): void {
  const path = join(directory, "source.db");
  const db = new Database(path);
  db.pragma(`page_size = ${pageSize}`);
  db.exec("CREATE TABLE kv(id INTEGER PRIMARY KEY, ver INTEGER, fill BLOB); CREATE INDEX by_ver ON kv(ver)");
  db.exec("CREATE TABLE meta(ver INTEGER, rows INTEGER)");
  for (let version = 1; version <= IMAGES; version++) {
    const rows = [300, 20, 900, 901, 5, 400][version - 1]!;
    db.exec("DELETE FROM kv; DELETE FROM meta");
    const insert = db.prepare("INSERT INTO kv(ver, fill) VALUES (?, randomblob(500))");
    db.transaction(() => {
      for (let i = 0; i < rows; i++) insert.run(version);
    })();
    db.prepare("INSERT INTO meta VALUES (?, ?)").run(version, rows);
    if (version % 2 === 0) db.exec("VACUUM");
    copyFileSync(path, join(directory, `v${version}.db`));
  }
  db.close();
  const first = readFileSync(join(directory, "v1.db"));
  stampHeader(first, 0);
  writeFileSync(followed, first);
}

function changesTo(image: Buffer): PageChanges {
  const pageSize = image.readUInt16BE(16) === 1 ? 65536 : image.readUInt16BE(16);
  const pageCount = image.length / pageSize;
  return {
    pageSize,
    pageCount,
    pages: Array.from({ length: pageCount }, (_, i) => i + 1),
    read: (page, into) => {
      image.copy(into, 0, (page - 1) * pageSize, page * pageSize);
      return Promise.resolve();
    },
  };
}

/** The followed file with the source's header bytes. */
function unstamped(image: Buffer): Buffer {
  const file = readFileSync(followed);
  unstampHeader(file, headerStamp(image));
  return file;
}

function child(script: string, ...args: string[]): ChildProcess {
  const path = fileURLToPath(new URL(`./children/${script}`, import.meta.url));
  return spawn(process.execPath, [path, ...args], { stdio: ["pipe", "pipe", "inherit"] });
}

async function ended(process: ChildProcess): Promise<number | null> {
  if (process.exitCode === null && process.signalCode === null) await once(process, "exit");
  return process.exitCode;
}

const options = { readersWaitMs: 100, onPage: () => {} };

describe.each([512, 4096, 65536])("an update of a followed file with pages of %i bytes", (pageSize) => {
  test("makes it the new image, grown or shrunk, and tells each page that differs", async () => {
    makeImages(pageSize);
    for (let version = 2; version <= IMAGES; version++) {
      const before = readFileSync(followed);
      const image = readFileSync(join(directory, `v${version}.db`));
      const told = new Set<number>();
      const onPage = (page: number, old: Uint8Array | undefined, now: Uint8Array | undefined) => {
        told.add(page);
        if (page === 1) return;
        const at = (file: Buffer) => file.subarray((page - 1) * pageSize, page * pageSize);
        expect(Buffer.compare(old ?? Buffer.alloc(0), at(before))).toBe(0);
        expect(Buffer.compare(now ?? Buffer.alloc(0), at(image))).toBe(0);
      };
      const applied = await applyAtomically(followed, changesTo(image), { ...options, counter: version - 2, onPage });
      expect(applied).toBe(true);
      expect(unstamped(image).equals(image)).toBe(true);
      expect(existsSync(`${followed}-journal`)).toBe(false);
      for (let page = 1; page * pageSize <= Math.max(before.length, image.length); page++) {
        const at = (file: Buffer) => file.subarray((page - 1) * pageSize, page * pageSize);
        if (!at(before).equals(at(image))) expect(told).toContain(page);
      }
    }
  });
});

test("an update waits for readers no longer than it may, and changes nothing then", async () => {
  makeImages();
  const before = readFileSync(followed);
  const image = readFileSync(join(directory, "v2.db"));
  const reader = new Database(followed, { timeout: 0 });
  reader.exec("BEGIN; SELECT count(*) FROM kv");
  reader.prepare("SELECT count(*) FROM kv").get();
  expect(await applyAtomically(followed, changesTo(image), { ...options, counter: 0 })).toBe(false);
  expect(readFileSync(followed).equals(before)).toBe(true);
  expect(existsSync(`${followed}-journal`)).toBe(false);
  reader.exec("COMMIT");
  expect(await applyAtomically(followed, changesTo(image), { ...options, counter: 0 })).toBe(true);
  // The reader's cache is of the old version; only the change counter tells it.
  expect(reader.prepare("SELECT ver FROM meta").pluck().get()).toBe(2);
  reader.close();
});

test("an update refuses a file that somebody else wrote to", async () => {
  makeImages();
  const writer = new Database(followed);
  writer.exec("UPDATE meta SET ver = 77");
  const changed = readFileSync(followed);
  const image = readFileSync(join(directory, "v2.db"));
  const apply = () => applyAtomically(followed, changesTo(image), { ...options, counter: 0 });
  await expect(apply()).rejects.toSatisfy((error) => isSluiceError(error, "SLU-4514"));
  expect(readFileSync(followed).equals(changed)).toBe(true);
  expect(existsSync(`${followed}-journal`)).toBe(false);
  writer.exec("BEGIN IMMEDIATE");
  await expect(apply()).rejects.toSatisfy((error) => isSluiceError(error, "SLU-4514"));
  writer.close();
});

test("an update that fails midway is rolled back by the next to open the file", async () => {
  makeImages();
  const before = readFileSync(followed);
  const image = readFileSync(join(directory, "v3.db"));
  const changes = changesTo(image);
  let reads = 0;
  const failing = {
    ...changes,
    read: (page: number, into: Uint8Array) => {
      // The first pass fills the journal; the second writes the file.
      if (++reads > changes.pageCount + 5) return Promise.reject(new Error("source lost"));
      return changes.read(page, into);
    },
  };
  await expect(applyAtomically(followed, failing, { ...options, counter: 0 })).rejects.toThrow("source lost");
  expect(readFileSync(followed).equals(before)).toBe(false);
  expect(await runSqlite({ task: "merge", path: followed })).toEqual({ problems: [] });
  expect(readFileSync(followed).equals(before)).toBe(true);
});

test("readers see whole versions only, while appliers are killed at random", async () => {
  makeImages();
  const reader = child("reader.ts", followed);
  let output = "";
  reader.stdout!.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const updates: string[] = [];
  // On a loaded machine most are killed, or kept from it by the reader, before they have applied anything.
  const enoughMs = performance.now() + 30_000;
  for (let kill = 0; kill < 12 || (updates.length < 12 && performance.now() < enoughMs); kill++) {
    const applier = child("applier.ts", directory, followed);
    applier.stdout!.on("data", (chunk: Buffer) => updates.push(...(chunk.toString().match(/applied/g) ?? [])));
    await once(applier.stdout!, "data");
    await sleep(Math.random() * 150);
    applier.kill("SIGKILL");
    await ended(applier);
  }
  reader.stdin!.end();
  expect(await ended(reader)).toBe(0);
  expect(updates.length).toBeGreaterThan(1);
  expect(Number(output)).toBeGreaterThan(1);
});

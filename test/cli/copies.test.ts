import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  closeSync,
  copyFileSync,
  existsSync,
  openSync,
  readFileSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import Sqlite from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { copyIn } from "../../src/admin/copy-in.ts";
import { copyOut } from "../../src/admin/copy-out.ts";
import { writeOwner } from "../../src/admin/owner.ts";
import { Place } from "./sluice.ts";

const PROTECTED = '"message":"protected"';

let place: Place;
const children: ChildProcess[] = [];
beforeEach(() => (place = new Place()));
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await place[Symbol.asyncDispose]();
});

/** Creates a database with `rows` rows of about a page in t(x), after `setup`. */
function create(name: string, rows: number, setup = ""): string {
  const db = new Sqlite(place.path(name));
  if (setup !== "") db.exec(setup);
  db.pragma("journal_mode = wal");
  db.exec("create table t(x, y)");
  const insert = db.prepare("insert into t values(?, ?)");
  db.transaction(() => {
    for (let i = 0; i < rows; i++) insert.run(i, randomBytes(3500));
  })();
  db.close();
  return place.path(name);
}

/** An application in another process: `code` runs with `db` connected; what it prints. */
function application(code: string, file = place.path("app.db")): { child: ChildProcess; lines: string[] } {
  const prelude = `import sqlite3, sys, time, os\ndb = sqlite3.connect(${JSON.stringify(file)}, timeout=20, isolation_level=None)\n`;
  const child = spawn("python3", ["-u", "-c", prelude + code], { stdio: ["pipe", "pipe", "inherit"] });
  children.push(child);
  const lines: string[] = [];
  createInterface(child.stdout).on("line", (line) => lines.push(line));
  return { child, lines };
}

/** Two tables that always have as many rows, until its standard input ends. */
const PAIRS = `
db.execute("create table if not exists a(x)"); db.execute("create table if not exists b(x)")
import threading; threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
n = 0
while True:
    db.execute("begin immediate")
    db.execute("insert into a values(randomblob(2000))"); db.execute("insert into b values(randomblob(2000))")
    db.execute("commit"); n += 1
    if n == 20: print("going")
    time.sleep(0.001)
`;

function counts(file: string, ...tables: string[]): number[] {
  const db = new Sqlite(file, { readonly: true });
  try {
    return tables.map((table) => db.prepare(`select count(*) from ${table}`).pluck().get() as number);
  } finally {
    db.close();
  }
}

async function said(lines: string[], text: string): Promise<void> {
  await expect.poll(() => lines.includes(text), { timeout: 20_000 }).toBe(true);
}

describe("export", () => {
  test("beside a running Sluice is one state of a database that is written to, and its position", async () => {
    place.create("app.db");
    await place.start(PROTECTED, "replicate", "app.db", place.store);
    const { child, lines } = application(PAIRS);
    await said(lines, "going");
    const copied = await place.json("export", "app.db", "copy.db");
    expect(copied).toMatchObject({ by: "sluice", position: expect.stringMatching(/^[0-9a-f]{16}$/) });
    const [a, b] = counts(place.path("copy.db"), "a", "b");
    expect(a).toBeGreaterThanOrEqual(20);
    expect(b).toBe(a);
    expect(await place.sluice("export", "app.db", "copy.db")).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("SLU-4505"),
    });
    expect(await place.sluice("export", "--force", "app.db", "copy.db")).toMatchObject({ status: 0 });
    expect(counts(place.path("copy.db"), "a")[0]).toBeGreaterThanOrEqual(a!);
    child.stdin!.end();
  });

  test("without Sluice SQLite copies it, while it's written to", async () => {
    place.create("app.db");
    const { child, lines } = application(PAIRS);
    await said(lines, "going");
    expect(await place.json("export", "app.db", "copy.db")).toMatchObject({ by: "sqlite" });
    const [a, b] = counts(place.path("copy.db"), "a", "b");
    expect(a).toBeGreaterThanOrEqual(20);
    expect(b).toBe(a);
    child.stdin!.end();
    expect(await place.sluice("export", "none.db", "copy2.db")).toMatchObject({ status: 1 });
    expect(existsSync(place.path("copy2.db"))).toBe(false);
  });

  test("where the process says that it has a replica, SQLite copies it; another refusal is the export's", async () => {
    const file = place.create("app.db", 3);
    let code = "SLU-1013";
    const server = createServer((_request, response) => {
      response.writeHead(503);
      response.end(JSON.stringify({ code, error: "it is a replica's here" }));
    });
    server.listen(place.path("socket"));
    await once(server, "listening");
    try {
      writeOwner(file, place.path("socket"));
      expect(await copyOut(file, place.path("copy.db"))).toMatchObject({ by: "sqlite", position: undefined });
      expect(counts(place.path("copy.db"), "t")).toEqual([3]);
      code = "SLU-2012";
      await expect(copyOut(file, place.path("copy2.db"))).rejects.toMatchObject({ code });
    } finally {
      server.close();
    }
    expect(existsSync(place.path("copy2.db"))).toBe(false);
  });

  test("an export that is cut off, or has another checksum, leaves nothing", async () => {
    const file = place.create("app.db", 3);
    const bytes = readFileSync(file);
    let send = bytes;
    const server = createServer((_request, response) => {
      response.writeHead(200, {
        "content-length": bytes.length,
        "sluice-position": "0000000100000001",
        "sluice-checksum": "0123456789abcdef",
        "sluice-page-size": "4096",
      });
      if (send.length === bytes.length) response.end(send);
      else response.write(send, () => response.destroy());
    });
    const socket = place.path("socket");
    server.listen(socket);
    await once(server, "listening");
    try {
      expect(writeOwner(file, socket)).toBe(true);
      await expect(copyOut(file, place.path("copy.db"))).rejects.toMatchObject({
        code: "SLU-1014",
        message: expect.stringContaining("not 0123456789abcdef"),
      });
      send = bytes.subarray(0, 5000);
      await expect(copyOut(file, place.path("copy.db"))).rejects.toMatchObject({
        code: "SLU-1014",
        message: expect.stringContaining("broke the export of"),
      });
    } finally {
      server.close();
    }
    expect(existsSync(place.path("copy.db"))).toBe(false);
  });
});

/** Says how many rows it sees whenever that changes; the connection is never opened anew. */
const WATCH = `
last = None
while True:
    n = db.execute("select count(*), max(x) from t").fetchone()
    if n != last: print(n[0], int(n[1]))
    last = n
    time.sleep(0.002)
`;

describe("import", () => {
  test("is one commit: an open application sees the old content, then the new one; it is in the store", async () => {
    create("app.db", 10);
    create("new.db", 5000);
    const running = await place.start(PROTECTED, "replicate", "app.db", place.store);
    const reader = application(WATCH);
    await said(reader.lines, "10 9");
    const imported = await place.json("import", "--wait", "store", "new.db", "app.db");
    expect(imported).toMatchObject({ isNew: false, position: expect.stringMatching(/^[0-9a-f]{16}$/) });
    await said(reader.lines, "5000 4999");
    expect(reader.lines).toEqual(["10 9", "5000 4999"]);
    expect(existsSync(place.path("new.db-wal"))).toBe(false);
    // Life goes on, in WAL mode.
    const writer = application(
      `db.execute("insert into t values(7000, 1)"); print(db.execute("pragma journal_mode").fetchone()[0])`,
    );
    await said(writer.lines, "wal");
    await said(reader.lines, "5001 7000");
    // A smaller one, behind a writer that holds the lock.
    create("small.db", 3);
    const busy = application(`db.execute("begin immediate"); print("has it"); sys.stdin.read(); db.execute("commit")`);
    await said(busy.lines, "has it");
    expect((await place.sluice("import", "--timeout", "100ms", "small.db", "app.db")).stderr).toContain("SLU-1016");
    expect(counts(place.path("app.db"), "t")).toEqual([5001]);
    busy.child.stdin!.end();
    await place.json("import", "--wait", "store", "small.db", "app.db");
    await said(reader.lines, "3 2");
    await running.end("SIGTERM");
    expect(await place.sluice("restore", "-o", "restored.db", place.store)).toMatchObject({ status: 0 });
    expect(counts(place.path("restored.db"), "t")).toEqual([3]);
  });

  test("what doesn't fit, or is damaged, is refused, and nothing changes", async () => {
    create("app.db", 10, "create table kept(x)");
    const refused = (code: string, file: string, message = ""): Promise<void> =>
      expect(copyIn(place.path(file), place.path("app.db"))).rejects.toMatchObject({
        code,
        message: expect.stringContaining(message),
      });
    const fits = "create table kept(x)";
    create("pages.db", 1, `pragma page_size = 8192; ${fits}`);
    await refused("SLU-1015", "pages.db", "page size 8192");
    create("utf16.db", 1, `pragma encoding = 'UTF-16le'; ${fits}`);
    await refused("SLU-1015", "utf16.db", "encoding");
    create("vacuum.db", 1, `pragma auto_vacuum = full; ${fits}`);
    await refused("SLU-1015", "vacuum.db", "auto_vacuum");
    create("other.db", 1);
    const other = await place.sluice("import", "other.db", "app.db");
    expect(other).toMatchObject({ status: 2, stderr: expect.stringMatching(/SLU-1015.*kept/) });
    await refused("SLU-1015", "app.db");
    await refused("SLU-2005", "none.db");
    writeFileSync(place.path("text.db"), "x".repeat(5000));
    await refused("SLU-2016", "text.db");
    copyFileSync(create("damaged.db", 50, fits), place.path("damaged2.db"));
    const fd = openSync(place.path("damaged2.db"), "r+");
    writeSync(fd, Buffer.alloc(4096, 0xff), 0, 4096, 8 * 4096);
    closeSync(fd);
    await refused("SLU-4507", "damaged2.db");
    expect(counts(place.path("app.db"), "t", "kept")).toEqual([10, 0]);

    expect(await place.json("import", "--force", "other.db", "app.db")).toMatchObject({ isNew: false });
    expect(counts(place.path("app.db"), "t")).toEqual([1]);
    expect(await place.json("import", "other.db", "fresh.db")).toMatchObject({ isNew: true });
    expect(counts(place.path("fresh.db"), "t")).toEqual([1]);
  });

  test("on a replica it's refused, and the primary named as the place", async () => {
    const file = create("app.db", 1);
    create("new.db", 2);
    const server = createServer((_request, response) => {
      response.end(JSON.stringify({ databases: [{ path: file, role: "replica" }] }));
    });
    server.listen(place.path("socket"));
    await once(server, "listening");
    try {
      writeOwner(file, place.path("socket"));
      await expect(copyIn(place.path("new.db"), file)).rejects.toMatchObject({
        code: "SLU-1016",
        hint: expect.stringContaining("primary"),
      });
    } finally {
      server.close();
    }
    expect(counts(file, "t")).toEqual([1]);
  });

  test("killed on the way, the database is as it was, or has all of it, and goes on", async () => {
    create("app.db", 10);
    create("new.db", 5_000);
    await place.start(PROTECTED, "replicate", "app.db", place.store);
    const importing = await place.start("", "import", "--integrity-check", "none", "new.db", "app.db");
    const walBytes = (): number => statSync(place.path("app.db-wal"), { throwIfNoEntry: false })?.size ?? 0;
    // The first of its pages are in the WAL, and no commit.
    while (walBytes() < 1_000_000 && importing.child.exitCode === null) await new Promise(setImmediate);
    await importing.end("SIGKILL");
    const writer = application(
      `db.execute("insert into t values(10, 1)"); print(db.execute("select count(*) from t").fetchone()[0])`,
    );
    await expect.poll(() => writer.lines, { timeout: 20_000 }).toHaveLength(1);
    // On a slow machine it was done before the signal came.
    expect(["11", "5001"]).toContain(writer.lines[0]);
    await place.json("sync", "app.db");
    expect(await place.json("verify", place.store)).toMatchObject({ ok: true, checksum: "equal" });
  });
});

import { existsSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { Report } from "../../src/admin/report.ts";
import { Place } from "./sluice.ts";

const PROTECTED = '"message":"protected"';

describe("beside a running Sluice", () => {
  test("without a configuration its databases are found by their paths, and all that run here by status", async () => {
    await using place = new Place();
    const db = place.create("app.db");
    const running = await place.start(PROTECTED, "replicate", db, place.store);
    place.insert("app.db", 7);
    await place.json("sync", "app.db");
    expect((await place.json<Report>("status")).databases).toContainEqual(
      expect.objectContaining({ path: db, state: "protected" }),
    );
    expect(await place.json("verify", "app.db")).toMatchObject({ ok: true, live: "equal" });
    expect((await place.sluice("restore", "-o", "copy.db", "--timestamp", "0", "app.db")).status).toBe(0);
    expect(place.rows("copy.db")).toBe(place.rows("app.db"));
    const older = await place.sluice("restore", "-o", "older.db", "--timestamp", "24h", "app.db");
    expect(older).toMatchObject({ status: 1, stderr: expect.stringContaining("SLU-4503") });
    expect((await place.sluice("ltx", "other.db")).stderr).toContain("SLU-1001");
    await running.end("SIGTERM");
  });

  test("sync, status, verify, ltx and restore agree; a stop leaves everything in the store", async () => {
    await using place = new Place();
    const db = place.create("app.db");
    writeFileSync(
      place.path("sluice.yml"),
      `dbs: [{ path: app.db, store: ${place.store} }]\nexec: [{ cmd: sleep 1000 }]\n`,
    );
    const running = await place.start(PROTECTED, "run");
    place.insert("app.db", 7);
    const synced = await place.json<{ position: string }>("sync", "app.db");
    expect(synced.position).toMatch(/^[0-9a-f]{16}$/);

    const { processes, databases } = await place.json<Report>("status");
    expect(processes).toMatchObject([{ pid: running.child.pid, role: "primary" }]);
    expect(databases).toMatchObject([
      {
        path: db,
        state: "protected",
        position: synced.position,
        confirmed: { position: synced.position },
        storeLagMs: 0,
      },
    ]);
    expect((await place.sluice("status", "app.db")).stdout).toMatch(/process \d+ since [^]*app\.db +protected/);

    expect(await place.json("verify", "app.db")).toMatchObject({ ok: true, checksum: "equal", live: "equal" });
    expect(existsSync(place.path(".app.db-sluice/verified.json"))).toBe(true);
    const files = await place.json<{ level: number; position: string }[]>("ltx", "--level", "all", "app.db");
    expect(files.map(({ position }) => position)).toContain(synced.position);
    expect(await place.json("databases")).toEqual([{ path: db, store: place.store }]);

    expect(await running.end("SIGTERM")).toBe(143);
    expect(await place.json<Report>("status")).toMatchObject({
      processes: [],
      databases: [{ path: db, state: "closed", position: synced.position, inStore: { txid: 2 } }],
    });
    expect(existsSync(place.path(".app.db-sluice/owner.json"))).toBe(false);
    expect(await place.json("verify", "app.db")).toMatchObject({ live: "equal" });

    rmSync(db);
    expect(await place.json("restore", "app.db")).toMatchObject({ restored: true, position: synced.position });
    expect(place.rows("app.db")).toBe(2);
  });

  test("a second one doesn't take the first one's socket", async () => {
    await using place = new Place();
    place.create("app.db");
    const first = await place.start(PROTECTED, "replicate", "app.db", place.store);
    const { socket } = JSON.parse(readFileSync(place.path(".app.db-sluice/owner.json"), "utf8")) as { socket: string };
    const second = await place.sluice("replicate", "--no-takeover", "app.db", place.store);
    expect(second.status).toBe(1);
    expect(JSON.parse(readFileSync(place.path(".app.db-sluice/owner.json"), "utf8"))).toMatchObject({ socket });
    const { processes } = await place.json<Report>("status", "app.db");
    expect(processes).toMatchObject([{ pid: first.child.pid }]);
  });

  test("after a kill nobody looks after the database, and the next one does", async () => {
    await using place = new Place();
    place.create("app.db");
    const first = await place.start(PROTECTED, "replicate", "app.db", place.store);
    const { socket } = JSON.parse(readFileSync(place.path(".app.db-sluice/owner.json"), "utf8")) as { socket: string };
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    await first.end("SIGKILL");
    expect(await place.sluice("sync", "app.db")).toMatchObject({
      status: 1,
      stderr: expect.stringContaining("SLU-1004"),
    });
    const second = await place.start(PROTECTED, "replicate", "app.db", place.store);
    expect(existsSync(socket)).toBe(false);
    expect(await place.sluice("sync", "--wait", "local", "app.db")).toMatchObject({ status: 0 });
    expect(await second.end("SIGINT")).toBe(0);
  });
});

describe("replicate", () => {
  test("--once sends everything and ends", async () => {
    await using place = new Place();
    place.create("app.db", 5);
    expect(await place.sluice("replicate", "--once", "app.db", place.store)).toMatchObject({ status: 0 });
    expect(await place.sluice("restore", "-o", "copy.db", place.store)).toMatchObject({ status: 0 });
    expect(place.rows("copy.db")).toBe(5);
    const none = await place.sluice("replicate", "--once", "none.db", place.store);
    expect(none).toMatchObject({ status: 1, stderr: expect.stringContaining("SLU-2005") });
  });

  test("--exec ends with the command's status, and what it wrote is in the store", async () => {
    await using place = new Place();
    place.create("app.db");
    const result = await place.sluice("replicate", "--exec", "sh -c 'exit 3'", "app.db", place.store);
    expect(result.status).toBe(3);
    expect(await place.sluice("verify", place.store)).toMatchObject({ status: 0 });
  });
});

describe("run", () => {
  test("restores, runs the command behind --, passes its options and its status on", async () => {
    await using place = new Place();
    place.create("app.db", 3);
    await place.sluice("replicate", "--once", "app.db", place.store);
    for (const name of ["app.db", "app.db-wal", "app.db-shm"]) rmSync(place.path(name), { force: true });
    rmSync(place.path(".app.db-sluice"), { recursive: true });
    const result = await place.sluice(
      "run",
      "--db",
      "app.db",
      "--store",
      place.store,
      "--",
      "sh",
      "-c",
      "ls app.db; exit 5",
      "--json",
    );
    expect(result).toMatchObject({ status: 5, stdout: "app.db\n" });
    expect(place.rows("app.db")).toBe(3);
  });

  test("a database whose application makes it and ends at once is in the store", async () => {
    await using place = new Place();
    place.create("ready.db");
    const run = ["run", "--db", "new.db", "--store", place.store, "--", "cp", "ready.db", "new.db"];
    expect(await place.sluice(...run)).toMatchObject({ status: 0 });
    expect((await place.sluice("restore", "-o", "restored.db", place.store)).status).toBe(0);
    expect(place.rows("restored.db")).toBe(1);
  });

  test("--db without --store is wrong usage", async () => {
    await using place = new Place();
    expect(await place.sluice("run", "--db", "app.db")).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/^SLU-1000 /),
    });
  });
});

describe("restore", () => {
  test("by TXID and time, as a plan, with and without what is there", async () => {
    await using place = new Place();
    const running = (place.create("app.db"), await place.start(PROTECTED, "replicate", "app.db", place.store));
    await place.sluice("sync", "app.db");
    const between = new Date().toISOString();
    await new Promise((resolve) => setTimeout(resolve, 20));
    place.insert("app.db", 2);
    await place.sluice("sync", "app.db");
    await running.end("SIGTERM");

    expect(await place.json("restore", "-o", "one.db", "--txid", "1", place.store)).toMatchObject({
      txid: "0000000000000001",
    });
    expect(place.rows("one.db")).toBe(1);
    expect(await place.json("restore", "-o", "then.db", "--timestamp", between, place.store)).toMatchObject({
      restored: true,
    });
    expect(place.rows("then.db")).toBe(1);
    expect(await place.json("restore", "--dry-run", "-o", "plan.db", place.store)).toMatchObject({
      txid: "0000000000000002",
    });
    expect(existsSync(place.path("plan.db"))).toBe(false);

    expect(await place.sluice("restore", "-o", "one.db", place.store)).toMatchObject({ status: 1 });
    expect(await place.json("restore", "-o", "one.db", "--if-db-not-exists", place.store)).toMatchObject({
      restored: false,
    });
    expect(place.rows("one.db")).toBe(1);
    expect(await place.sluice("restore", "--force", "-o", "one.db", place.store)).toMatchObject({ status: 0 });
    expect(place.rows("one.db")).toBe(2);
    expect(readdirSync(place.dir).filter((name) => name.includes("restoring"))).toEqual([]);
  });

  test("understands Litestream's single dashes", async () => {
    await using place = new Place();
    const nothing = ["-o", "a.db", "-if-db-not-exists", "-if-replica-exists", "-integrity-check=none", place.store];
    expect(await place.sluice("restore", ...nothing)).toMatchObject({
      status: 0,
      stdout: expect.stringContaining("no backup"),
    });
    expect(await place.sluice("restore", "-nonsense", "-o", "a.db", place.store)).toMatchObject({ status: 2 });
  });

  test("--follow keeps a copy up to date until a signal", async () => {
    await using place = new Place();
    place.create("app.db");
    await place.start(PROTECTED, "replicate", "app.db", place.store);
    await place.sluice("sync", "app.db");
    const follower = await place.start(
      "TXID 0000000000000001",
      "restore",
      "-f",
      "--follow-interval",
      "50ms",
      "-o",
      "copy.db",
      place.store,
    );
    place.insert("app.db", 2);
    await place.sluice("sync", "app.db");
    await follower.said("TXID 0000000000000002");
    expect(place.rows("copy.db")).toBe(2);
    expect(await follower.end("SIGTERM")).toBe(0);
  });
});

describe("errors", () => {
  test.each([
    ["an unknown option", ["restore", "--nonsense"], "unknown option"],
    ["an unknown command", ["restroe"], "Did you mean restore"],
    ["no command", [], "Usage: sluice"],
    ["a wrong TXID", ["restore", "-o", "a", "--txid", "xyz", "file:///nowhere"], "hexadecimal"],
    ["a wrong time", ["restore", "-o", "a", "--timestamp", "yesterday", "file:///nowhere"], "2026-01-31T12:00:00Z"],
    [
      "two states",
      ["restore", "-o", "a", "--txid", "1", "--timestamp", "2026-01-31T12:00:00Z", "file:///x"],
      "cannot be",
    ],
    ["a database that nothing is known of", ["restore", "app.db"], "Name the store's URL"],
  ])("%s: usage", async (_what, args, message) => {
    await using place = new Place();
    const result = await place.sluice(...args);
    expect(result.stderr).toContain(message);
    expect(result.status).toBe(2);
  });

  test.each([
    ["a URL without -o", ["restore", "file:///nowhere"], 2, "SLU-1000"],
    ["no configuration", ["databases"], 2, "SLU-1001"],
    ["no configuration, and nothing runs", ["ltx", "app.db"], 2, "SLU-1001"],
    ["a store for later", ["verify", "gs://bucket/app"], 2, "SLU-3002"],
    ["no store", ["verify", "nonsense://x"], 2, "SLU-3001"],
    ["an empty store", ["verify", "file:///nowhere"], 1, "SLU-4501"],
    ["nobody there", ["sync", "app.db"], 1, "SLU-1004"],
  ])("%s: status, code, message and hint", async (_what, args, status, code) => {
    await using place = new Place();
    const result = await place.sluice(...args);
    expect(result.status).toBe(status);
    expect(result.stderr).toMatch(new RegExp(`^${code} .+\\n {2}→ .+\\n$`));
    const json = await place.sluice(...args, "--json");
    expect(JSON.parse(json.stdout)).toEqual({ code, error: expect.any(String), hint: expect.any(String) });
  });
});

describe("config", () => {
  test("check, explain and convert", async () => {
    await using place = new Place();
    writeFileSync(place.path("litestream.yml"), "dbs: [{ path: a.db, replica: { url: s3://b/a, retention: 7h } }]\n");
    const converted = await place.sluice("config", "convert", "litestream.yml");
    expect(converted.status).toBe(0);
    writeFileSync(place.path("sluice.yml"), converted.stdout);
    expect(await place.sluice("config", "check")).toMatchObject({
      status: 0,
      stdout: `${place.path("sluice.yml")}: ok\n`,
    });
    expect(await place.json("config", "explain")).toMatchObject({ snapshot: { retention: "7h" } });
    writeFileSync(place.path("sluice.yml"), "dbs:\n  - paht: a\n    store: s3://b/a\n");
    const wrong = await place.sluice("config", "check");
    expect(wrong.status).toBe(2);
    expect(wrong.stderr).toContain(`${place.path("sluice.yml")}:2:5: unknown key "paht"; did you mean "path"?`);
  });
});

test("every command has help with an example", async () => {
  await using place = new Place();
  const { stdout } = await place.sluice("--help");
  const names = [...stdout.split("Commands:")[1]!.matchAll(/^ {2}([a-z]+) /gm)]
    .map(([, name]) => name!)
    .filter((name) => name !== "help");
  expect(names).toEqual(
    expect.arrayContaining([
      "run",
      "replicate",
      "restore",
      "status",
      "databases",
      "ltx",
      "sync",
      "verify",
      "config",
      "version",
    ]),
  );
  for (const name of names) {
    const help = await place.sluice(name, "--help");
    expect(help.status).toBe(0);
    expect(help.stdout).toMatch(/Examples?:\n {2}\$ sluice /);
    expect((await place.sluice("help", name)).stdout).toBe(help.stdout);
  }
}, 60_000);

test("a planted secret is shown nowhere", async () => {
  await using place = new Place();
  const secret = "hunter2-hunter2";
  place.create("app.db");
  writeFileSync(
    place.path("sluice.yml"),
    `dbs:
  - path: app.db
    store: { url: "s3://me:${secret}@bucket/app?endpoint=http://127.0.0.1:1&token=${secret}", secret-access-key: ${secret}, access-key-id: ${secret} }
cluster: { secret: ${secret} }
node: { listen: 127.0.0.1:0 }
exec: [{ cmd: "sh -c 'PASSWORD=${secret} sleep 1000'" }]
`,
  );
  const running = await place.start("trying again", "run");
  const outputs = await Promise.all([
    place.sluice("config", "explain"),
    place.sluice("config", "explain", "--json"),
    place.sluice("databases"),
    place.sluice("status"),
    place.sluice("status", "--json"),
    place.sluice("restore", "-o", "x.db", "--dry-run", "app.db"),
    place.sluice("sync", "--timeout", "1s", "app.db"),
  ]);
  const shown = outputs.map(({ stdout, stderr }) => stdout + stderr).join("\n") + running.output;
  expect(shown).toContain("s3://");
  expect(shown).not.toContain(secret);
}, 60_000);

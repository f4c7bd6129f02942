import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Nodes } from "../e2e/nodes.ts";
import { freePort, root, users } from "../e2e/site.ts";
import { environment, launcher, Place } from "./sluice.ts";

const run = promisify(execFile);

interface Ended {
  readonly status: number | NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** `sluice exec` with these words, as a process that can be signalled. */
class Exec {
  readonly child: ChildProcess;
  readonly ended: Promise<Ended>;
  output = "";

  constructor(cwd: string, ...words: readonly string[]) {
    this.child = spawn(launcher, ["exec", ...words], { cwd, env: environment(), stdio: ["ignore", "pipe", "pipe"] });
    let [stdout, stderr] = ["", ""];
    this.child.stdout?.on("data", (chunk: Buffer) => {
      stdout += chunk.toString();
      this.output += chunk.toString();
    });
    this.child.stderr?.on("data", (chunk: Buffer) => {
      stderr += chunk.toString();
      this.output += chunk.toString();
    });
    this.ended = once(this.child, "close").then(() => ({
      status: this.child.exitCode ?? this.child.signalCode,
      stdout,
      stderr,
    }));
  }

  async said(text: string): Promise<void> {
    for (const end = Date.now() + 30_000; !this.output.includes(text); await delay(10)) {
      if (Date.now() > end) throw new Error(`never said "${text}": ${this.output}`);
    }
  }
}

/** Python with `db`, a connection to the node's database. */
function sql(file: string, code: string): string[] {
  return ["python3", "-c", `import os, sqlite3, sys, time\ndb = sqlite3.connect("${file}", 10)\n${code}`];
}

describe("in a cluster", () => {
  const nodes = new Nodes();
  const ports = new Map<string, number>();

  const exec = (name: string, ...words: readonly string[]): Exec =>
    new Exec(nodes.dir, "--on-primary", "--config", nodes.at(`${name}.yml`), ...words);
  const reaches = (name: string, role: string): Promise<void> =>
    nodes.until(name, role, (status) => status.role === role);

  async function start(name: string, lease = "{ type: store, ttl: 5s }"): Promise<void> {
    const app = await freePort();
    ports.set(name, await freePort());
    await nodes.start(name, {
      lease,
      lines: [
        `proxy: { listen: "127.0.0.1:${ports.get(name)}", app: "http://127.0.0.1:${app}" }`,
        `exec: [{ cmd: "python3 ${path.join(root, "test/apps/rows.py")} ${nodes.db(name)} ${app}" }]`,
      ],
    });
  }

  beforeAll(async () => {
    await start("a");
    await reaches("a", "primary");
    await run(
      "python3",
      sql(nodes.db("a"), "db.execute('pragma journal_mode=wal'); db.execute('create table t(x)')").slice(1),
    );
    await Promise.all(["b", "c"].map((name) => start(name)));
    await nodes.until("a", "two replicas", ({ replicas }) => replicas?.length === 2);
    for (const port of ports.values()) {
      await vi.waitFor(() => fetch(`http://127.0.0.1:${port}/`), 30_000);
    }
  });
  afterAll(() => nodes[Symbol.asyncDispose]());

  // Every test that leaves another primary says so.
  let primary = "a";
  afterEach(async () => {
    await reaches(primary, "primary");
    await nodes.until(primary, "two replicas", ({ replicas }) => replicas?.length === 2);
  });

  test("a migration on a replica, while clients write through every front door and beside them", async () => {
    const answers = new Map<string, number>();
    const over = new AbortController();
    const client = async (name: string): Promise<void> => {
      for (let i = 0; !over.signal.aborted; i++) {
        const id = `${name}${i}`;
        const response = await fetch(`http://127.0.0.1:${ports.get(name)}/${id}`, { method: "POST" });
        answers.set(id, response.status);
        await response.text();
      }
    };
    const clients = ["a", "b", "c"].map(client);
    // On the primary's own file, with a busy timeout: it waits for the primary to come back.
    const beside = run("python3", [
      "-c",
      `import sqlite3, time
db = sqlite3.connect("${nodes.db("a")}", 30, isolation_level=None)
for i in range(100): db.execute("insert into t(x) values(?)", (f"beside{i}",)); time.sleep(0.02)`,
    ]);
    await delay(300);
    const migration = exec(
      "b",
      "--",
      ...sql(
        nodes.db("b"),
        `print(os.environ["SLUICE_ON_PRIMARY"], os.path.exists("${nodes.at("b", ".primary")}"))
db.execute("alter table t add column y default 'old'")
db.execute("begin immediate"); db.execute("update t set y = 'new'"); time.sleep(0.5); db.commit()
db.execute("create table migrations(name)"); db.execute("insert into migrations values('one')"); db.commit()`,
      ),
    );
    expect(await migration.ended).toEqual({
      status: 0,
      stdout: "1 False\n",
      stderr:
        "sluice: b is the primary for this command; a was\nsluice: everything is in the store, a is the primary again\n",
    });
    await beside;
    over.abort();
    await Promise.all(clients);
    expect([...answers].filter(([, status]) => status !== 200)).toEqual([]);
    expect(answers.size).toBeGreaterThan(20);
    await nodes.inStep("a", "b", "c");
    const rows = JSON.parse(
      await nodes.sql("a", "select json_group_array(x) from t").then((text) => text.slice(3, -4)),
    ) as string[];
    const wanted = [...answers.keys(), ...Array.from({ length: 100 }, (_, i) => `beside${i}`)];
    expect(rows.toSorted()).toEqual(wanted.toSorted());
    expect(await nodes.sql("c", "select name from migrations")).toBe("[('one',)]");
    expect(await nodes.content("a")).toMatch(/ ok$/);
    expect(await nodes.content("c")).toBe(await nodes.content("a"));
  });

  test("statuses are the command's, on a replica and on the primary; what can't run changes nothing", async () => {
    for (const name of ["b", "a"]) {
      expect(await exec(name, "--", "sh", "-c", "echo out; exit 7").ended).toMatchObject({
        status: 7,
        stdout: "out\n",
      });
    }
    expect(await exec("a", "--", "true").ended).toEqual({ status: 0, stdout: "", stderr: "" });
    const missing = await exec("b", "--", "no-such-command").ended;
    expect(missing.status).toBe(127);
    expect(missing.stderr).toMatch(/^SLU-6001 [^]*$/);
    expect((await exec("b", "--db", "/nowhere.db", "--", "true").ended).stderr).toContain("SLU-1004");
    expect(nodes.output("b").match(/"a command has the primary"/g)).toHaveLength(2);
  });

  test("signals reach the command; another one waits, and so does a promotion", async () => {
    const first = exec(
      "b",
      "--",
      "sh",
      "-c",
      "trap 'echo caught; exit 5' TERM; echo runs; while :; do sleep 0.05; done",
    );
    await first.said("runs");
    expect((await exec("c", "--wait", "0s", "--", "true").ended).stderr).toContain("SLU-8110");
    const promoted = await run(launcher, ["promote", "--config", nodes.at("c.yml")]).catch(
      (error: unknown) => error as Ended,
    );
    expect(promoted.stderr).toContain("SLU-8110");
    const [beside, other] = [exec("b", "--", "echo", "beside"), exec("c", "--", "echo", "other")];
    await Promise.all([beside.said("waiting"), other.said("waiting")]);
    expect(beside.output + other.output).not.toMatch(/^(?:beside|other)$/m);
    first.child.kill("SIGTERM");
    expect(await first.ended).toMatchObject({ status: 5, stdout: "runs\ncaught\n" });
    expect(await beside.ended).toMatchObject({ status: 0, stdout: "beside\n" });
    expect(await other.ended).toMatchObject({ status: 0, stdout: "other\n" });
  });

  test("a command that takes too long is ended with all that it started", async () => {
    const late = exec(
      "b",
      "--timeout",
      "1s",
      "--",
      "sh",
      "-c",
      `cd ${nodes.at("b")}; tail -f ${nodes.db("b")} > /dev/null & sleep 60`,
    );
    const { status, stderr } = await late.ended;
    expect(status).toBe(143);
    expect(stderr).toMatch(/SLU-8114[^]*a is the primary again/);
    expect(users(nodes.at("b")).filter((words) => words.includes("tail"))).toEqual([]);
  });

  test("a killed `sluice exec` takes its command with it, and the primary goes back", async () => {
    const killed = exec("b", "--", ...sql(nodes.db("b"), `print(os.getpid(), flush=True); time.sleep(60)`));
    await killed.said("\n");
    await reaches("b", "primary");
    await killed.said("b is the primary");
    const pid = Number(/^\d+$/m.exec(killed.output)?.[0]);
    killed.child.kill("SIGKILL");
    await killed.ended;
    await reaches("a", "primary");
    await expect.poll(() => existsSync(`/proc/${pid}`), { timeout: 10_000 }).toBe(false);
  });

  test("a `sluice exec` that stands still loses the primary when its time is over", async () => {
    const body = JSON.stringify({ waitMs: 10_000, limitMs: 500 });
    const response = await fetch(`${await nodes.url("b")}/v1/loans`, { method: "POST", body });
    const lines = (await response.text()).split("\n").filter((line) => line !== "");
    // The loan of the test before may still be on its way back.
    const said = lines.map((line) => JSON.parse(line) as { is: string }).filter(({ is }) => is !== "waiting");
    expect(said).toMatchObject([
      { is: "lent", node: "b", home: "a" },
      { is: "lost", code: "SLU-8114" },
    ]);
    await reaches("a", "primary");
  });

  test("the other node dies meanwhile: this one stays the primary, and says so", async () => {
    const there = exec(
      "b",
      "--wait",
      "3s",
      "--",
      ...sql(nodes.db("b"), "print('runs', flush=True); time.sleep(1); db.execute('create table late(x)')"),
    );
    await there.said("runs");
    nodes.kill("a");
    await nodes.over("a");
    const { status, stderr } = await there.ended;
    expect(status).toBe(0);
    expect(stderr).toMatch(/b stays the primary, a can't take over: a is not connected|b stays the primary/);
    primary = "b";
    await start("a");
    await nodes.reaches("a", "following");
    expect(await nodes.sql("c", "select * from late")).toBe("[]");
  });

  test("this node's Sluice dies meanwhile: the command is ended, and is no success", async () => {
    const cut = exec("c", "--", "sh", "-c", "trap 'echo ended; exit 0' TERM; echo runs; while :; do sleep 0.05; done");
    await cut.said("runs");
    nodes.kill("c");
    await nodes.over("c");
    const { status, stdout, stderr } = await cut.ended;
    expect(status).toBe(1);
    expect(stdout).toBe("runs\nended\n");
    expect(stderr).toContain("SLU-8112");
    const roles = async (): Promise<readonly string[]> =>
      Promise.all(["a", "b"].map(async (name) => (await nodes.status(name)).role));
    await expect.poll(roles, { timeout: 30_000 }).toContain("primary");
    primary = (await roles())[0] === "primary" ? "a" : "b";
    await start("c");
  });

  test("a node that may not be the primary refuses", async () => {
    await nodes.stop("c");
    await start("c", "{ type: store, ttl: 5s, candidate: false }");
    await nodes.reaches("c", "following");
    const { status, stderr } = await exec("c", "--", "true").ended;
    expect(status).toBe(1);
    expect(stderr).toMatch(new RegExp(`SLU-8111 c may not be the primary; the primary is ${primary} `));
  });
});

test("a lone node: what the command made in a directory is in the store when it has ended", async () => {
  await using place = new Place();
  mkdirSync(place.path("data"));
  place.create("data/first.db");
  writeFileSync(place.path("sluice.yml"), `dbs: [{ dir: data, store: ${place.store} }]\nexec: [{ cmd: sleep 1000 }]\n`);
  await place.start('"message":"protected"', "run");
  const made = new Exec(
    place.dir,
    "--on-primary",
    "--",
    ...sql(place.path("data/new.db"), "db.execute('create table n(x)')"),
  );
  expect(await made.ended).toEqual({ status: 0, stdout: "", stderr: "" });
  expect(await place.json("restore", "-o", place.path("copy.db"), "data/new.db")).toMatchObject({ restored: true });
  expect((await new Exec(place.dir, "--", "true").ended).status).toBe(2);
});

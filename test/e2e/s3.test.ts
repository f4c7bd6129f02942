import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Fault, S3Proxy } from "../faults/s3-proxy.ts";
import { lacks, peers } from "../peers/peers.ts";
import { accessKeyId, S3Server, secretAccessKey } from "../store/s3-server.ts";

const run = promisify(execFile);
const sluice = path.resolve(import.meta.dirname, "../../bin/sluice");
const skip = lacks("weed", "litestream");

const FAULTS: readonly Fault[] = [
  "reset-before",
  "lost-reply",
  "late",
  "duplicate",
  "truncate",
  { status: 500, code: "InternalError" },
  { status: 503, code: "SlowDown" },
  { status: 409, code: "ConditionalRequestConflict" },
];

// Each third request breaks in one way or another, and Sluice is killed between commits.
describe.skipIf(skip)("a database whose log is in S3, over a bad network", () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-e2e-s3-"));
  const db = path.join(dir, "app.db");
  const env = environment();
  let server: S3Server;
  let proxy: S3Proxy;
  let node: ChildProcess | undefined;

  beforeAll(async () => {
    server = await S3Server.start();
    proxy = await S3Proxy.start(server.port);
  });
  afterAll(async () => {
    node?.kill("SIGKILL");
    await proxy?.stop();
    await server?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  test("is restored as it was committed, by Sluice and by Litestream", async () => {
    let turn = 0;
    proxy.choose = () => (++turn % 3 === 0 ? FAULTS[(turn / 3) % FAULTS.length] : undefined);
    const url = server.url("some/app", proxy.port).href;
    await python(`db.execute("pragma journal_mode=wal"); db.execute("create table t(n integer primary key, x)")`);
    for (let life = 0; life < 4; life++) {
      node = spawn(sluice, ["replicate", db, url], { env, stdio: "ignore" });
      for (let i = 0; i < 5; i++) {
        await python(`db.execute("insert into t(x) values(randomblob(${500 * i}))")`);
        await sleep(250);
      }
      if (life === 3) break;
      node.kill("SIGKILL");
      await once(node, "exit");
    }
    await run(sluice, ["sync", "--wait", "store", "--timeout", "45s", db], { env });
    node!.kill("SIGTERM");
    await once(node!, "exit");
    proxy.choose = () => undefined;
    const expected = await contents(db);
    expect(expected).toMatch(/^20 /);
    await run(sluice, ["restore", "-o", path.join(dir, "sluice.db"), url], { env });
    expect(await contents(path.join(dir, "sluice.db"))).toBe(expected);
    await run(peers.litestream, ["restore", "-o", path.join(dir, "litestream.db"), `${url}&region=us-east-1`], { env });
    expect(await contents(path.join(dir, "litestream.db"))).toBe(expected);
    expect(new Set(proxy.seen.map(({ fault }) => JSON.stringify(fault))).size).toBeGreaterThan(FAULTS.length / 2);
  }, 120_000);

  async function python(code: string): Promise<void> {
    await run("python3", [
      "-c",
      `import sqlite3\ndb = sqlite3.connect(${JSON.stringify(db)}, timeout=20)\n${code}\ndb.commit()`,
    ]);
  }
});

async function contents(file: string): Promise<string> {
  const code = `
import sqlite3, sys, hashlib
db = sqlite3.connect(sys.argv[1])
rows = db.execute("select n, x from t order by n").fetchall()
print(len(rows), hashlib.sha256(repr(rows).encode()).hexdigest(), db.execute("pragma integrity_check").fetchone()[0])`;
  return (await run("python3", ["-c", code, file])).stdout.trim();
}

function environment(): NodeJS.ProcessEnv {
  // Litestream's HTTP client can't take a bundle of certificates from the environment; vitest's options are its own.
  const { AWS_CA_BUNDLE: _, NODE_OPTIONS: __, ...env } = process.env;
  return { ...env, LITESTREAM_ACCESS_KEY_ID: accessKeyId, LITESTREAM_SECRET_ACCESS_KEY: secretAccessKey };
}

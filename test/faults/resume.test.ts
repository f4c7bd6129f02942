import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LogLayout } from "../../src/log/layout.ts";
import { MadeLog } from "../log/make-log.ts";
import { environment, launcher } from "../cli/sluice.ts";
import { lacks } from "../peers/peers.ts";
import { accessKeyId, S3Server, secretAccessKey } from "../store/s3-server.ts";
import { S3Proxy } from "./s3-proxy.ts";

describe.skipIf(lacks("weed"))("a restore from S3 through a network that goes silent", () => {
  let server: S3Server;
  let proxy: S3Proxy;
  let dir: string;
  let log: MadeLog;

  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), "sluice-resume-s3-"));
    server = await S3Server.start();
    proxy = await S3Proxy.start(server.port);
    log = new MadeLog(dir);
    log.commit(26_000);
    const store = server.open("log");
    const there = new LogLayout(store.layout, "");
    const here = new LogLayout("ltx-prefix", "");
    await store.put(there.identityKey, readFileSync(path.join(log.bucket, here.identityKey)));
    const file = log.file(0, 1, 1);
    await store.put(there.key(0, 1, 1), { path: file, sizeBytes: statSync(file).size });
    await store.close();
  });

  afterAll(async () => {
    log?.close();
    await proxy?.stop();
    await server?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  const begin = (output: string) =>
    spawn(launcher, ["restore", "--json", "-o", output, server.url("log", proxy.port).href], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...environment(), AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey },
    });
  const pages = (): number =>
    proxy.take().filter(({ method, path }) => method === "GET" && path.includes(".ltx")).length;

  test("killed there, and run again, fetches only what it hadn't", async () => {
    const out = path.join(dir, "out");
    const output = path.join(out, "app.db");
    const journal = (): number => {
      const name = readdirSync(out).find((entry) => entry.endsWith("-parts"));
      return name === undefined ? 0 : statSync(path.join(out, name)).size;
    };
    mkdirSync(out);
    let answered = 0;
    proxy.choose = ({ method, path }) =>
      method === "GET" && path.includes(".ltx") && ++answered > 7 ? "silence" : undefined;
    const killed = begin(output);
    await expect.poll(journal, { timeout: 30_000 }).toBeGreaterThan(15_000);
    killed.kill("SIGKILL");
    if (killed.exitCode === null && killed.signalCode === null) await once(killed, "exit");
    proxy.choose = () => undefined;
    proxy.take();
    expect(readdirSync(out)).toHaveLength(2);

    const again = begin(output);
    const [printed, [code]] = await Promise.all([text(again.stdout), once(again, "exit")]);
    expect(code).toBe(0);
    const { fetchedBytes, keptBytes } = JSON.parse(printed) as { fetchedBytes: number; keptBytes: number };
    const sizeBytes = statSync(log.file(0, 1, 1)).size;
    expect(fetchedBytes + keptBytes).toBe(sizeBytes);
    expect(keptBytes).toBeGreaterThan(3e6);
    const requests = pages();
    expect(readFileSync(output).equals(log.states[1]!)).toBe(true);
    expect(readdirSync(out)).toEqual(["app.db"]);

    rmSync(output);
    const whole = begin(output);
    await Promise.all([text(whole.stdout), once(whole, "exit")]);
    expect(requests).toBeLessThan(pages());
  });
});

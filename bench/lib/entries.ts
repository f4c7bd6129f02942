import { writeFileSync } from "node:fs";
import path from "node:path";
import { freePort } from "../../test/e2e/site.ts";
import { Background, root, sluice } from "./processes.ts";
import type { S3Server } from "./s3.ts";
import { folder } from "./sluice.ts";

/** `sluice run` with the front door before `bench/apps/entries.ts`, and an S3 server as store; ready for requests. */
export async function entriesNode(
  scratch: string,
  server: S3Server,
): Promise<{ readonly node: Background; readonly door: number }> {
  const dir = folder(scratch, "entries");
  const db = path.join(dir, "app.db");
  const [api, door, app] = [await freePort(), await freePort(), await freePort()];
  const config = path.join(dir, "sluice.yml");
  const settings = {
    dbs: [{ path: db, store: server.url("entries") }],
    node: { listen: `127.0.0.1:${api}` },
    proxy: { listen: `127.0.0.1:${door}`, app: `http://127.0.0.1:${app}` },
    exec: [{ cmd: `${process.execPath} ${path.join(root, "bench/apps/entries.ts")} ${db} ${app}` }],
  };
  writeFileSync(config, JSON.stringify(settings));
  const node = new Background(sluice, ["run", "--config", config], { LOG_LEVEL: "info", ...server.env });
  while ((await fetch(`http://127.0.0.1:${door}`).catch(() => undefined))?.status !== 404) {
    if (node.child.exitCode !== null) throw new Error("sluice ended");
    await new Promise((done) => setTimeout(done, 50));
  }
  return { node, door };
}

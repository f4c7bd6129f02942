import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { peers } from "../../test/peers/peers.ts";
import { Background } from "./processes.ts";

/** Mounts LiteFS as a primary by configuration: databases are in `mount`, once it is ready. Needs root and /dev/fuse. */
export async function litefs(dir: string, mount: string): Promise<Background> {
  mkdirSync(mount, { recursive: true });
  const config = path.join(dir, "litefs.yml");
  const url = "http://127.0.0.1:20299";
  const settings = {
    fuse: { dir: mount },
    data: { dir: path.join(dir, "litefs-data") },
    http: { addr: new URL(url).host },
    lease: { type: "static", "advertise-url": url, candidate: true },
  };
  writeFileSync(config, JSON.stringify(settings));
  const searched = `${process.env["PATH"]}:${path.dirname(peers.fusermount)}`;
  const mounted = new Background(peers.litefs, ["mount", "-config", config], { PATH: searched });
  await mounted.printed(/connected to cluster, ready/);
  return mounted;
}

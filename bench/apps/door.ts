/**
 * One front door in a process of its own, for `bench/figures/doors.ts`: `door.ts primary APP` or `door.ts replica APP PRIMARY`,
 * ports of 127.0.0.1. Prints its port, and on each line that it reads its resident memory and processor time.
 */
import { createInterface } from "node:readline";
import { createLog } from "../../src/observe/log.ts";
import { Metrics } from "../../src/observe/metrics.ts";
import { FrontDoor } from "../../src/proxy/server.ts";
import { Cluster } from "../../test/proxy/cluster.ts";
import { proxyConfig } from "../../test/proxy/nodes.ts";

const [role, app, primary] = process.argv.slice(2);
const cluster = new Cluster();
const view = cluster.node("this");
const other = cluster.node("other");
if (primary !== undefined) other.proxy = new URL(`http://127.0.0.1:${primary}`);
cluster.promote(role === "primary" ? view : other);
const config = proxyConfig(`app: http://127.0.0.1:${app}`, "/tmp");
const metrics = new Metrics();
const door = new FrontDoor({ config, view, metrics: metrics.proxy, log: createLog(), secret: "a secret of all" });
console.log(`port ${await door.listen()}`);
// An end of its own, so that a profile is written.
process.once("SIGTERM", () => process.exit());
let most = 0;
setInterval(() => (most = Math.max(most, process.memoryUsage.rss())), 20).unref();
for await (const line of createInterface(process.stdin)) {
  if (line === "gc") globalThis.gc?.();
  if (line === "reset") most = 0;
  const rss = process.memoryUsage.rss();
  console.log(JSON.stringify({ rss, most: Math.max(most, rss), cpu: process.cpuUsage() }));
}
await door.stop(0);

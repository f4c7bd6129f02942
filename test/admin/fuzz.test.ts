import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import os from "node:os";
import path from "node:path";
import fc from "fast-check";
import { pino } from "pino";
import { afterAll, beforeAll, expect } from "vitest";
import { AdminServer } from "../../src/admin/server.ts";
import { Node } from "../../src/cluster/node.ts";
import type { Config } from "../../src/config/config.ts";
import { configFor } from "../../src/config/resolve.ts";
import { Metrics } from "../../src/observe/metrics.ts";
import { Lead, Place } from "../cluster/stream/nodes.ts";
import { fuzz, mutatedText } from "../fuzz/fuzz.ts";

const SECRET = "correct horse battery";
const SILENT_MS = 25;
let dir: string;
let place: Place;
let admin: AdminServer;
let guarded: number;
let local: number;

beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-fuzz-"));
  place = new Place();
  const { server } = await Lead.open(place, [], { secret: SECRET });
  const config = configFor(path.join(dir, "app.db"), `file://${dir}/store`, {}) as Config;
  const log = pino({ enabled: false });
  const node = new Node({ config, log, metrics: new Metrics(), restoreMissing: false });
  admin = new AdminServer({ node, metrics: new Metrics(), secret: SECRET, onUpgrade: server.handleUpgrade });
  guarded = await admin.listen({ host: "0.0.0.0", port: 0 });
  local = await admin.listen({ host: "127.0.0.1", port: 0 });
});
afterAll(async () => {
  await admin.close();
  await place.remove();
  rmSync(dir, { recursive: true });
});

/** What comes back until the connection ends, or nothing more does. */
async function ask(port: number, text: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  let back = "";
  let late: NodeJS.Timeout | undefined;
  const wait = (): void => {
    clearTimeout(late);
    late = setTimeout(() => socket.destroy(), SILENT_MS);
  };
  socket.on("error", () => undefined);
  socket.on("data", (chunk: Buffer) => {
    back += chunk.toString("latin1");
    wait();
  });
  socket.write(Buffer.from(text, "latin1"));
  wait();
  if (!socket.closed) await once(socket, "close");
  clearTimeout(late);
  return back;
}

const upgrade =
  "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
const requests = [
  "GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\n\r\n",
  "GET /v1/databases/app.db/export HTTP/1.1\r\nHost: x\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
  'POST /v1/sync HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n{"db":"/app.db"}',
  "POST /v1/promote HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
  `GET /v1/stream HTTP/1.1\r\nHost: x\r\n${upgrade}\r\n`,
  "GET //[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
  "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\nCONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n",
];
const withSecret = requests.map((text) =>
  text.replace("Host: x\r\n", `Host: x\r\nAuthorization: Bearer ${SECRET}\r\n`),
);
const anything = (texts: readonly string[]) => fc.oneof(fc.constantFrom(...texts), mutatedText(...texts));

fuzz("without the secret nothing but health is answered, whatever is sent", 60, () =>
  fc.asyncProperty(anything(requests), async (text) => {
    const back = await ask(guarded, text);
    expect(back).not.toContain(dir);
    for (const [, status] of back.matchAll(/^HTTP\/1\.1 (\d{3})/gm)) expect(["101", "200"]).not.toContain(status);
  }),
);

fuzz("whatever the node's API is sent with the secret, it goes on", 60, () =>
  fc.asyncProperty(anything(withSecret), fc.constantFrom("guarded", "local"), async (text, at) => {
    await ask(at === "guarded" ? guarded : local, text);
    const back = await fetch(`http://127.0.0.1:${local}/v1/status`);
    expect(back.status).toBe(200);
  }),
);

import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server } from "node:net";
import os from "node:os";
import path from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect } from "vitest";
import { createLog } from "../../src/observe/log.ts";
import { Metrics } from "../../src/observe/metrics.ts";
import { HopSigner } from "../../src/proxy/hop.ts";
import { formatPositions, parsePositions, positionsOf } from "../../src/proxy/position-cookie.ts";
import { matchedPath, Routes } from "../../src/proxy/route.ts";
import { FrontDoor } from "../../src/proxy/server.ts";
import { fuzz, mutatedText } from "../fuzz/fuzz.ts";
import { Cluster } from "./cluster.ts";
import { proxyConfig } from "./nodes.ts";

let dir: string;
let door: FrontDoor;
const metrics = new Metrics().proxy;
let port: number;
let app: Server;
/** What the application has understood of what came, and what it has not. */
const got: string[] = [];
const problems: string[] = [];
const sentLately: string[] = [];
const errors: string[] = [];
/** How many requests have come to the application at all. */
let reached = 0;

/** An application that believes nothing: it keeps the bytes, and answers each request whose end it sees. */
beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), "sluice-fuzz-"));
  app = createServer((socket) => {
    let rest = "";
    socket.on("error", () => undefined);
    socket.on("data", (chunk) => {
      const parsed = parse(rest + chunk.toString("latin1"));
      rest = parsed.rest;
      if (parsed.problem !== undefined) problems.push(parsed.problem);
      for (const line of parsed.requests) {
        got.push(line);
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      }
    });
  });
  app.listen(0, "127.0.0.1");
  await once(app, "listening");
  const config = proxyConfig(`app: http://127.0.0.1:${(app.address() as AddressInfo).port}\napp-timeout: 300ms`, dir);
  const cluster = new Cluster();
  const view = cluster.node("a");
  cluster.promote(view);
  const log = createLog({ level: "silent" });
  log.error = (fields: { err?: Error }) => void errors.push(String(fields.err?.stack));
  door = new FrontDoor({ config, view, metrics, log, secret: "a secret of all" });
  port = await door.listen();
});
afterAll(async () => {
  // Had nothing come through, nothing would have been tried; and no two requests were made of one.
  expect(reached).toBeGreaterThan(0);
  const { values } = await metrics.requests.get();
  expect(reached).toBeLessThanOrEqual(values.reduce((sum, { value }) => sum + value, 0));
  await door.stop(0);
  app.close();
  rmSync(dir, { recursive: true, force: true });
});

interface Parsed {
  /** "METHOD target" of each whole request. */
  readonly requests: readonly string[];
  /** What can't be understood in one way alone. */
  readonly problem: string | undefined;
  /** The beginning of a request that isn't whole. */
  readonly rest: string;
}

const SILENT_MS = 25;
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** Reads requests as strictly as RFC 9112 can be read: whatever one server could understand otherwise is a problem. */
function parse(text: string): Parsed {
  const requests: string[] = [];
  let rest = text;
  while (rest !== "") {
    const end = rest.indexOf("\r\n\r\n");
    if (end < 0) break;
    const head = readHead(rest.slice(0, end));
    if ("problem" in head) return { requests, problem: head.problem, rest };
    const after = head.chunked ? afterChunks(rest.slice(end + 4)) : afterLength(rest.slice(end + 4), head.length);
    if (after === undefined) break;
    if (typeof after !== "string") return { requests, problem: after.problem, rest };
    requests.push(head.line);
    rest = after;
  }
  return { requests, problem: undefined, rest };
}

interface Problem {
  readonly problem: string;
}

function readHead(
  text: string,
): Problem | { readonly line: string; readonly length: number; readonly chunked: boolean } {
  const [line = "", ...lines] = text.split("\r\n");
  if (!/^[A-Z][A-Z-]* (?:\/[\x21-\x7e\x80-\xff]*|\*) HTTP\/1\.1$/.test(line)) return { problem: `line ${line}` };
  const headers = new Map<string, string[]>();
  for (const each of lines) {
    const name = each.slice(0, Math.max(0, each.indexOf(":"))).toLowerCase();
    const value = each.slice(each.indexOf(":") + 1).trim();
    if (!TOKEN.test(name) || /[\r\n\0]/.test(value)) return { problem: `header ${each}` };
    if (/^sluice[-_]|^x[-_]forwarded_|_forwarded/.test(name)) return { problem: `header ${each}` };
    headers.set(name, [...(headers.get(name) ?? []), value]);
  }
  const [lengths, encodings, hosts] = ["content-length", "transfer-encoding", "host"].map(
    (name) => headers.get(name) ?? [],
  );
  if (hosts!.length !== 1 || lengths!.length + encodings!.length > 1) return { problem: `two of a kind in ${text}` };
  if (encodings!.some((each) => each !== "chunked")) return { problem: `encoding ${encodings![0]}` };
  if (lengths!.some((each) => !/^\d+$/.test(each))) return { problem: `length ${lengths![0]}` };
  return { line: line.replace(/ HTTP.*/, ""), length: Number(lengths![0] ?? 0), chunked: encodings!.length > 0 };
}

/** What follows a body; undefined while it isn't whole. */
function afterLength(text: string, length: number): string | undefined {
  return text.length < length ? undefined : text.slice(length);
}

function afterChunks(text: string): string | Problem | undefined {
  let rest = text;
  for (;;) {
    const end = rest.indexOf("\r\n");
    if (end < 0) return undefined;
    if (!/^[0-9a-f]+$/i.test(rest.slice(0, end))) return { problem: `chunk ${rest.slice(0, end)}` };
    const count = Number.parseInt(rest, 16);
    rest = rest.slice(end + 2);
    if (count === 0) return afterTrailers(rest);
    if (rest.length < count + 2) return undefined;
    if (rest.slice(count, count + 2) !== "\r\n") return { problem: "a chunk without an end" };
    rest = rest.slice(count + 2);
  }
}

function afterTrailers(text: string): string | Problem | undefined {
  let rest = text;
  for (;;) {
    const end = rest.indexOf("\r\n");
    if (end < 0) return undefined;
    const trailer = rest.slice(0, end);
    rest = rest.slice(end + 2);
    if (trailer === "") return rest;
    const name = trailer.slice(0, Math.max(0, trailer.indexOf(":")));
    if (!TOKEN.test(name) || FRAMING.test(name)) return { problem: `trailer ${trailer}` };
  }
}

/** A server that took these from behind the body would have been told two things. */
const FRAMING = /^(?:content-length|transfer-encoding|host|connection|te|trailer|sluice-.*|x-forwarded-.*|forwarded)$/i;

const SEEDS = [
  "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
  "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcdeGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
  "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
  "POST /a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n",
  "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
  "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\nX: a\r\n b\r\n\r\n0\r\n\r\n",
  "GET http://b/a?x#y HTTP/1.1\r\nHost: a\r\nConnection: close, X-A, Content-Length, Host\r\nX-A: 1\r\n\r\n",
  "GET /a HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1\r\nSluice-Hop: a&b&http&write&0&h&AAAA\r\n\r\n",
  "GET /a HTTP/1.1\r\nHost: a\r\nsluice_hop: x\r\nSluice-Durable: store\r\nX-Forwarded_Host: b\r\nForwarded: for=1\r\n\r\n",
  "POST /a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\nSluice-Hop: x\r\nX: y\r\n\r\n",
  "PUT /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
  "GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
  "GET /.sluice/health HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n\r\nGET /c HTTP/1.0\r\n\r\n",
  "DELETE /a HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\nCookie: Sluice-Position=a:0000000000000001\r\n\r\nx",
];
/** Anywhere. */
const CHARACTERS = [
  "\r\n",
  "\n",
  "\r",
  "\0",
  " ",
  "\t",
  "\v",
  ":",
  ";",
  ",",
  "0\r\n\r\n",
  "\r\n\r\n",
  "\u00ff",
  "-",
  "%",
];
/** At the beginning of a line. */
const LINES = [
  "X-Y: z\r\n",
  "Content-Length: 0\r\n",
  "Content-Length: 3\r\n",
  "content-length : 3\r\n",
  "Content_Length: 3\r\n",
  "Transfer-Encoding: chunked\r\n",
  "Transfer-Encoding: identity\r\n",
  "Transfer-Encoding: chunked, chunked\r\n",
  "Transfer_Encoding: chunked\r\n",
  "Connection: Transfer-Encoding\r\n",
  "Connection: Content-Length, keep-alive\r\n",
  "Connection: close\r\n",
  "Host: b\r\n",
  "Upgrade: h2c\r\n",
  "Trailer: Content-Length\r\n",
  "TE: trailers\r\n",
  "Expect: 100-continue\r\n",
  "X-Forwarded-For: 1.2.3.4\r\n",
  "x_forwarded-host: evil\r\n",
  "Sluice_Hop: x\r\n",
  "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
];

const inserted = fc.oneof(
  fc.tuple(fc.nat(400), fc.constantFrom(...CHARACTERS)).map(([at, piece]) => (text: string) => {
    const from = at % (text.length + 1);
    return text.slice(0, from) + piece + text.slice(from);
  }),
  fc.tuple(fc.nat(20), fc.constantFrom(...LINES)).map(([at, line]) => (text: string) => {
    const lines = text.split("\r\n");
    const from = 1 + (at % lines.length);
    return [...lines.slice(0, from), line + (lines[from] ?? ""), ...lines.slice(from + 1)].join("\r\n");
  }),
);
const seed = fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...SEEDS) }, mutatedText(...SEEDS));
const text = fc
  .tuple(seed, fc.array(inserted, { maxLength: 2 }))
  .map(([seed, changes]) => changes.reduce((all, change) => change(all), seed));

/** In two pieces; until the front door ends the connection, or says nothing any more. */
async function send(bytes: Buffer, cut: number): Promise<void> {
  const socket = connect({ port, host: "127.0.0.1" });
  let late: NodeJS.Timeout | undefined;
  const wait = (): void => {
    clearTimeout(late);
    late = setTimeout(() => socket.destroy(), SILENT_MS);
  };
  socket.on("data", wait);
  socket.on("error", () => undefined);
  socket.write(bytes.subarray(0, cut));
  await new Promise((resolve) => setImmediate(resolve));
  socket.write(bytes.subarray(cut));
  wait();
  if (!socket.closed) await once(socket, "close");
  clearTimeout(late);
}

fuzz("whatever a client sends, the application gets requests that can be understood in one way", 120, () =>
  fc.asyncProperty(text, fc.nat(300), async (sent, cut) => {
    got.length = problems.length = 0;
    const bytes = Buffer.from(sent, "latin1");
    await send(bytes, cut % (bytes.length + 1));
    expect(problems).toEqual([]);
    reached += got.length;
    // On a slow machine what was sent before may come only now.
    sentLately.push(sent);
    if (sentLately.length > 100) sentLately.shift();
    for (const line of got) {
      const target = line.split(" ")[1]!.split("?")[0]!;
      expect(sentLately.some((text) => text.includes(target))).toBe(true);
    }
    expect(errors).toEqual([]);
  }),
);

const signer = new HopSigner("s");
const hop = { from: "a", client: "1.2.3.4", proto: "http", mode: "write", expects: false, host: "h" } as const;

fuzz("a signature that was changed signs nothing", 500, () => {
  const signed = signer.sign(hop, "POST", "/x");
  return fc.asyncProperty(mutatedText(signed), fc.constantFrom("POST", "GET"), async (given, method) => {
    const read = signer.verify(given, method, "/x");
    // Base64 has more than one spelling of one number.
    if (read !== undefined) expect([read, method]).toEqual([hop, "POST"]);
  });
});

fuzz("positions that clients send are read as far as they make sense, and say the same when written again", 1_000, () =>
  fc.asyncProperty(
    mutatedText("app.db:0000000100000002+t%2Fb.db:0000000000000001", "a:ffffffffffffffff"),
    async (given) => {
      const read = parsePositions(given);
      expect(parsePositions(formatPositions(read))).toEqual(read);
      positionsOf(`x=y; Sluice-Position=${given}; z`, given);
    },
  ),
);

fuzz("a path is matched as it is understood, however it is spelt, and in no time", 500, () => {
  const routes = new Routes([
    { path: "/static/*", mode: "pass", durability: undefined },
    { path: "*a*a*a*a*a*b", mode: "read", durability: undefined },
  ]);
  const part = fc.constantFrom(
    "static",
    "..",
    ".",
    "",
    "%2e%2e",
    "%2E.",
    "pay",
    "%2f",
    "%zz",
    "%",
    "%ff",
    "a".repeat(200),
  );
  return fc.asyncProperty(fc.array(part, { maxLength: 8 }), async (parts) => {
    const target = `/${parts.join("/")}`;
    const matched = matchedPath(target);
    expect(matched).toMatch(/^\//);
    const isStatic = routes.of("POST", target).mode === "pass";
    expect(isStatic).toBe(matched.startsWith("/static/"));
    if (isStatic && !/%zz|%ff|%(?![0-9a-fA-F])/.test(target)) {
      const meant = new URL(decodeURIComponent(target).replaceAll(/\/+/g, "/"), "http://h").pathname;
      expect(meant.startsWith("/static/")).toBe(true);
    }
  });
});

import { afterEach, describe, expect, test } from "vitest";
import { plainAddress, TrustedProxies } from "../../src/proxy/trusted.ts";
import { type App, Nodes, until } from "./nodes.ts";

let nodes: Nodes;
let started: Nodes | undefined;
const start = async (...args: Parameters<typeof Nodes.start>): Promise<Nodes> => (started = await Nodes.start(...args));
afterEach(async () => {
  await started?.[Symbol.asyncDispose]();
  started = undefined;
});

const END = "\r\n\r\n";
const untrusted = "trusted-proxies: []";

describe("what could be understood in two ways is refused, and no application sees it", () => {
  test.each([
    [
      "length and chunks",
      400,
      `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked${END}0${END}`,
    ],
    [
      "chunks and length",
      400,
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3${END}0${END}`,
    ],
    ["two lengths", 400, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4${END}abcd`],
    ["one length twice", 400, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3${END}abc`],
    ["a list of lengths", 400, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3${END}abc`],
    ["a length with a sign", 400, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3${END}abc`],
    ["another encoding", 501, `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked${END}0${END}`],
    ["an unknown encoding", 501, `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked${END}0${END}`],
    [
      "two encodings",
      400,
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x${END}0${END}`,
    ],
    ["chunks in HTTP/1.0", 400, `POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked${END}0${END}`],
    ["a folded header", 400, `GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b${END}`],
    ["a folded first header", 400, `GET / HTTP/1.1\r\n X: a\r\nHost: a${END}`],
    ["a space before the colon", 400, `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked${END}0${END}`],
    ["two hosts", 400, `GET / HTTP/1.1\r\nHost: a\r\nHost: b${END}`],
    ["no host", 400, `GET / HTTP/1.1${END}`],
    ["bare line feeds", 400, `GET / HTTP/1.1\nHost: a\n\n`],
    ["a bare carriage return", 400, `GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b${END}`],
    ["a NUL", 400, `GET / HTTP/1.1\r\nHost: a\r\nX: a\0b${END}`],
    ["a fragment", 400, `GET /a#b HTTP/1.1\r\nHost: a${END}`],
    ["a target without a slash", 400, `GET a HTTP/1.1\r\nHost: a${END}`],
    ["a target with a user", 400, `GET http://a@b/ HTTP/1.1\r\nHost: a${END}`],
    ["another version", 505, `GET / HTTP/2.0\r\nHost: a${END}`],
    ["CONNECT", 405, `CONNECT a:1 HTTP/1.1\r\nHost: a${END}`],
    ["TRACE", 405, `TRACE / HTTP/1.1\r\nHost: a${END}`],
    ["another expectation", 417, `POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 0${END}`],
    ["headers that are too long", 431, `GET / HTTP/1.1\r\nHost: a\r\nX: ${"a".repeat(17_000)}${END}`],
    ["a target that is too long", 431, `GET /${"a".repeat(17_000)} HTTP/1.1\r\nHost: a${END}`],
    [
      "an upgrade with a body",
      400,
      `GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 3${END}abc`,
    ],
    ["an unknown durability", 400, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nSluice-Durability: much${END}`],
    [
      "another node's signature",
      403,
      `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nSluice-Hop: b&1.2.3.4&http&write&0&a&AAAA${END}`,
    ],
  ])("%s", async (_, status, text) => {
    nodes = await start(1);
    const back = await nodes.raw(nodes.a, text);
    expect(back).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(back.match(/^HTTP\/1\.1/gm)).toHaveLength(1);
    expect(nodes.a.seen).toEqual([]);
  });

  test("in the middle of a body: broken chunks end the connection, and the write is no success", async () => {
    nodes = await start(1);
    const head = `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked${END}`;
    for (const body of ["0x1\r\na\r\n0\r\n\r\n", "1\na\n0\n\n", "-1\r\n", "2\r\nabc\r\n0\r\n\r\n"]) {
      const back = await nodes.raw(nodes.a, head + body);
      expect(back).not.toMatch(/ 200 /);
    }
  });

  test("after a good request: that one is answered first", async () => {
    let answer = (): void => undefined;
    nodes = await start(1, { app: (_, response) => (answer = () => void response.end("good")) });
    const back = nodes.raw(nodes.a, `GET /good HTTP/1.1\r\nHost: a${END}GET /bad HTTP/1.1\r\nHost : a${END}`);
    await until(() => nodes.a.seen.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 30));
    answer();
    expect(await back).toMatch(/^HTTP\/1\.1 200 [^]*\r\n\r\ngoodHTTP\/1\.1 400 /);
    expect(nodes.a.seen).toEqual(["GET /good"]);
  });

  test("a request after a refused one is not looked at", async () => {
    nodes = await start(1);
    const refused = `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked${END}`;
    await nodes.raw(nodes.a, `${refused}GET /smuggled HTTP/1.1\r\nHost: a${END}`);
    expect(nodes.a.seen).toEqual([]);
  });
});

describe("the application sees", () => {
  const headersOf = async (headers: Readonly<Record<string, string>>, target = "/") =>
    (await nodes.ask(nodes.a, "GET", target, { headers })).json.headers;

  test("where a request comes from", async () => {
    nodes = await start(1, { proxy: untrusted });
    expect(await headersOf({ host: "example.org:81" })).toMatchObject({
      host: "example.org:81",
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-proto": "http",
      "x-forwarded-host": "example.org:81",
      forwarded: 'for=127.0.0.1;host="example.org:81";proto=http',
    });
  });

  test("nothing that a client says about that, in any spelling", async () => {
    nodes = await start(1, { proxy: untrusted });
    const lies =
      `X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Prefix: /evil
Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX_forwarded-Host: evil\r\nX_Real_Ip: 6.6.6.6
Sluice-Hop-Client: 6.6.6.6\r\nSluice-Role: evil\r\nSluice_Role: evil`.replaceAll(/\r?\n/g, "\r\n");
    const back = await nodes.raw(nodes.a, `GET / HTTP/1.1\r\nHost: a\r\nX-Honest: 1\r\n${lies}${END}`);
    expect(back).toMatch(/"x-honest":"1"/);
    expect(back).not.toMatch(/evil|6\.6\.6\.6/);
    expect(back).toMatch(/"x-forwarded-for":"127\.0\.0\.1"/);
  });

  test("what a trusted proxy says, as far as it makes sense", async () => {
    nodes = await start(1);
    const seen = await headersOf({
      "x-forwarded-for": "6.6.6.6, [2001:db8::1]:99, <script>",
      "x-forwarded-proto": "https",
      "x-forwarded-host": "example.org",
      "x-forwarded-prefix": "/app",
    });
    expect(seen).toMatchObject({
      "x-forwarded-for": "6.6.6.6, 2001:db8::1, unknown, 127.0.0.1",
      "x-forwarded-proto": "https",
      "x-forwarded-host": "example.org",
      "x-forwarded-prefix": "/app",
      forwarded: 'for=6.6.6.6, for="[2001:db8::1]", for=unknown, for=127.0.0.1;host=example.org;proto=https',
    });
  });

  test("the same when the request was forwarded", async () => {
    nodes = await start(2);
    const headers = { host: "example.org", "x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "https" };
    const { json } = await nodes.ask(nodes.b, "POST", "/", { headers });
    expect(json.node).toBe("a");
    expect(json.headers).toMatchObject({
      host: "example.org",
      "x-forwarded-for": "6.6.6.6, 127.0.0.1",
      "x-forwarded-proto": "https",
      "x-forwarded-host": "example.org",
    });
    expect(Object.keys(json.headers).filter((name) => name.startsWith("sluice"))).toEqual([]);
  });

  test("nothing that is between the client and the front door alone", async () => {
    nodes = await start(1);
    const own = "Keep-Alive: 1\r\nProxy-Authorization: x\r\nTE: gzip\r\nX-Named: 1\r\nProxy-Connection: x";
    const back = await nodes.raw(
      nodes.a,
      `GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Named\r\n${own}\r\nX-Kept: 1${END}`,
    );
    expect(back).toMatch(/"x-kept":"1"/);
    expect(back).not.toMatch(/"(?:keep-alive|proxy-authorization|te|x-named|proxy-connection)":/);
  });

  test("cookies and authorization even if `Connection` names them", async () => {
    nodes = await start(1);
    const back = await nodes.raw(
      nodes.a,
      `GET / HTTP/1.1\r\nHost: a\r\nConnection: Cookie, Host, Authorization\r\nCookie: a=1\r\nAuthorization: b${END}`,
    );
    expect(back).toMatch(/"cookie":"a=1"/);
    expect(back).toMatch(/"authorization":"b"/);
  });

  test("an absolute target's own host", async () => {
    nodes = await start(1);
    const back = await nodes.raw(nodes.a, `GET http://other:1/x?y HTTP/1.1\r\nHost: a${END}`);
    expect(back).toMatch(/"url":"\/x\?y".*"host":"other:1"/);
  });

  test("all of very many headers", async () => {
    let count = 0;
    nodes = await start(1, {
      app: (request, response) => {
        count = request.rawHeaders.filter((each) => each === "n").length;
        response.end();
      },
    });
    nodes.a.app.maxHeadersCount = 0;
    await nodes.raw(nodes.a, `GET / HTTP/1.1\r\nHost: a\r\n${"n:1\r\n".repeat(2500)}\r\n`);
    expect(count).toBe(2500);
  });

  test("repeated headers, and bytes beyond ASCII, as they were", async () => {
    let raw: string[] = [];
    nodes = await start(1, {
      app: (request, response) => {
        raw = request.rawHeaders;
        response.end();
      },
    });
    await nodes.raw(nodes.a, Buffer.from(`GET / HTTP/1.1\r\nHost: a\r\nX-B: 1\r\nx-b: 2\r\nX-U: \xfc${END}`, "latin1"));
    expect(raw.join(" ")).toMatch(/X-B 1 x-b 2 X-U \u00fc/);
  });
});

describe("the client sees", () => {
  const answer = (headers: Readonly<Record<string, string | string[]>>): App => {
    return (_, response) => {
      for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
      response.end("x");
    };
  };

  test("the application's headers, but nothing that only the front door may say", async () => {
    nodes = await start(2, {
      app: answer({
        "set-cookie": ["a=1", "b=2"],
        "sluice-durable": "store",
        "sluice-position": "x",
        "sluice-hop": "not-primary",
        "x-kept": "1",
        connection: "X-Named, close",
        "x-named": "1",
      }),
    });
    const reply = await nodes.ask(nodes.b, "GET", "/");
    expect(reply.headers).toMatchObject({ "set-cookie": ["a=1", "b=2"], "x-kept": "1", "content-length": "1" });
    for (const name of ["sluice-durable", "sluice-position", "sluice-hop", "x-named"])
      expect(reply.headers).not.toHaveProperty(name);
    const written = await nodes.ask(nodes.b, "POST", "/");
    expect(written.headers["sluice-durable"]).toBe("local");
    expect(nodes.a.seen).toEqual(["POST /"]);
  });

  test("status and reason as they are, also without a body", async () => {
    nodes = await start(1, {
      app: (request, response) => response.writeHead(Number(request.url!.slice(1)), "So").end(),
    });
    for (const status of [200, 204, 304, 404, 500])
      expect(await nodes.raw(nodes.a, `GET /${status} HTTP/1.1\r\nHost: a\r\nConnection: close${END}`)).toMatch(
        new RegExp(`^HTTP/1.1 ${status} So\r\n`),
      );
  });

  test("502 for what is no HTTP", async () => {
    nodes = await start(1, { app: (request) => void request.socket.end("nonsense\r\n\r\n") });
    expect((await nodes.ask(nodes.a, "GET", "/")).json.code).toBe("SLU-7005");
  });
});

test("more connections than the limit are closed", async () => {
  nodes = await start(1, { proxy: "max-connections: 2\nprimary-timeout: 5s" });
  const open = [1, 2].map(() => nodes.raw(nodes.a, "GET / HTTP/1.1\r\n", 50));
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(await nodes.raw(nodes.a, `GET / HTTP/1.1\r\nHost: a${END}`)).toBe("");
  void open;
});

test("IPv4 addresses are the same on a socket for both protocols", () => {
  expect(["::ffff:1.2.3.4", "1.2.3.4", "::1", undefined].map(plainAddress)).toEqual([
    "1.2.3.4",
    "1.2.3.4",
    "::1",
    "unknown",
  ]);
});

test("networks of trusted proxies", () => {
  const trusted = new TrustedProxies(["127.0.0.0/8", "10.1.2.3", "fc00::/7"]);
  for (const address of ["127.9.9.9", "10.1.2.3", "fd00::1"]) expect(trusted.has(address)).toBe(true);
  for (const address of ["128.0.0.1", "10.1.2.4", "2001::1", "unknown", ""]) expect(trusted.has(address)).toBe(false);
});

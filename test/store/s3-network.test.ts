import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import type { AddressInfo } from "node:net";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openS3 } from "../../src/store/s3.ts";
import { lacks } from "../peers/peers.ts";
import { bytes } from "./conformance.ts";
import { accessKeyId, S3Server, secretAccessKey } from "./s3-server.ts";

const skip = lacks("weed");
const keys = { accessKeyId, secretAccessKey };

describe("what an S3 server asks for", () => {
  /** A server that refuses the first request so, and has an empty object for all others; their times and headers. */
  async function refusing(status: number, code: string, more: string, headers: http.OutgoingHttpHeaders = {}) {
    const asked: { readonly atMs: number; readonly date: string }[] = [];
    const one = http.createServer((request, response) => {
      const isFirst = asked.push({ atMs: performance.now(), date: String(request.headers["x-amz-date"]) }) === 1;
      response.writeHead(isFirst ? status : 200, isFirst ? headers : { etag: '"x"', "content-length": 0 });
      response.end(isFirst ? `<Error><Code>${code}</Code>${more}</Error>` : "");
    });
    one.listen(0, "127.0.0.1");
    await once(one, "listening");
    const url = new URL(`s3://bucket/x?endpoint=http://127.0.0.1:${(one.address() as AddressInfo).port}`);
    const store = openS3(url, keys, {});
    await bytes(await store.get("key"));
    await store.close();
    one.close();
    return asked;
  }

  test("another clock: requests carry the server's time from then on", async () => {
    const theirs = new Date(Date.now() + 86_400_000).toISOString();
    const asked = await refusing(403, "RequestTimeTooSkewed", `<ServerTime>${theirs}</ServerTime>`);
    const day = (at: number) => new Date(at).toISOString().slice(0, 10).replaceAll("-", "");
    expect(asked.map(({ date }) => date.slice(0, 8))).toEqual([day(Date.now()), day(Date.now() + 86_400_000)]);
  });

  test("to be left alone for a while", async () => {
    const [first, second] = await refusing(503, "SlowDown", "", { "retry-after": "1" });
    expect(second!.atMs - first!.atMs).toBeGreaterThan(990);
  });
});

describe.skipIf(skip)("the way to an S3 store", () => {
  let server: S3Server;
  const opened: http.Server[] = [];

  beforeAll(async () => {
    server = await S3Server.start();
  });
  afterAll(async () => {
    for (const one of opened) one.close();
    await server?.stop();
  });

  async function listen(one: http.Server): Promise<number> {
    opened.push(one);
    one.listen(0, "127.0.0.1");
    await once(one, "listening");
    return (one.address() as AddressInfo).port;
  }

  test("goes through HTTP_PROXY, and not where NO_PROXY says so", async () => {
    let through = 0;
    const port = await listen(
      http.createServer((request, response) => {
        through++;
        const { host, path } = split(request.url!);
        const onward = http.request(
          { host: host.hostname, port: host.port, path, method: request.method, headers: request.rawHeaders },
          (reply) => {
            response.writeHead(reply.statusCode!, reply.rawHeaders);
            reply.pipe(response);
          },
        );
        request.pipe(onward);
      }),
    );
    const proxy = `http://127.0.0.1:${port}`;
    const proxied = openS3(server.url("proxied"), keys, { HTTP_PROXY: proxy });
    expect((await proxied.put("key", Buffer.from("x"), { condition: "absent" })).outcome).toBe("written");
    expect((await bytes(await proxied.get("key"))).toString()).toBe("x");
    expect(through).toBe(2);
    const direct = openS3(server.url("proxied"), keys, { HTTP_PROXY: proxy, NO_PROXY: "127.0.0.1" });
    expect((await bytes(await direct.get("key"))).toString()).toBe("x");
    expect(through).toBe(2);
    await proxied.close();
    await direct.close();
  });

  test("a certificate that isn't trusted is refused at once, unless it's not to be checked", async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-tls-"));
    const files = ["-keyout", path.join(dir, "key"), "-out", path.join(dir, "cert"), "-subj", "/CN=localhost"];
    execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...files], {
      stdio: "ignore",
    });
    const tls = { key: readFileSync(path.join(dir, "key")), cert: readFileSync(path.join(dir, "cert")) };
    rmSync(dir, { recursive: true });
    const front = https.createServer(tls, (request, response) => {
      const { method, url, rawHeaders } = request;
      const onward = http.request(
        { host: "127.0.0.1", port: server.port, path: url, method, headers: rawHeaders },
        (reply) => {
          response.writeHead(reply.statusCode!, reply.rawHeaders);
          reply.pipe(response);
        },
      );
      request.pipe(onward);
    });
    const port = await listen(front);
    const url = new URL(`s3://bucket/tls?endpoint=https://localhost:${port}`);
    const strict = openS3(url, keys, {});
    await expect(strict.get("key")).rejects.toMatchObject({
      code: "SLU-3104",
      message: expect.stringContaining("certificate"),
    });
    const lenient = openS3(url, { ...keys, skipVerify: true, signPayload: false }, {});
    expect((await lenient.put("key", Buffer.from("x"), { condition: "absent" })).outcome).toBe("written");
    expect((await bytes(await lenient.get("key"))).toString()).toBe("x");
    await strict.close();
    await lenient.close();
  });

  test("a bucket in the host's name", async () => {
    const asked: (string | undefined)[] = [];
    // A proxy, so that nobody needs to know the name's address.
    const port = await listen(
      http.createServer((request, response) => {
        asked.push(`${request.headers.host} ${request.url}`);
        response.writeHead(404, { "content-type": "application/xml" });
        response.end("<Error><Code>NoSuchKey</Code></Error>");
      }),
    );
    const url = new URL("s3://bucket/x?endpoint=http://storage.test&force-path-style=false");
    const store = openS3(url, keys, { HTTP_PROXY: `http://127.0.0.1:${port}` });
    await expect(store.get("some key")).rejects.toMatchObject({ code: "SLU-3404" });
    expect(asked).toEqual(["bucket.storage.test http://bucket.storage.test/x/some%20key"]);
    await store.close();
  });

  test("an unused connection is closed, and keeps no process alive", async () => {
    const script = `
      import { openS3 } from ${JSON.stringify(path.resolve("src/store/s3.ts"))};
      const store = openS3(new URL(${JSON.stringify(server.url("unused").href)}), ${JSON.stringify(keys)}, {});
      await store.put("key", Buffer.from("x"));`;
    const started = performance.now();
    execFileSync(process.execPath, ["--input-type=module", "-e", script], { timeout: 30_000 });
    expect(performance.now() - started).toBeLessThan(30_000);
  });
});

/** A proxy is asked for a whole URL. */
function split(url: string): { readonly host: URL; readonly path: string } {
  const host = new URL(url);
  return { host, path: url.slice(host.origin.length) };
}

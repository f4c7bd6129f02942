import { randomBytes } from "node:crypto";
import { inspect } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openS3 } from "../../src/store/s3.ts";
import { lacks } from "../peers/peers.ts";
import { bytes, conformance } from "./conformance.ts";
import { accessKeyId, S3Server, secretAccessKey } from "./s3-server.ts";

const skip = lacks("weed");
let server: S3Server;
beforeAll(async () => {
  if (!skip) server = await S3Server.start();
});
afterAll(() => server?.stop());

conformance("SeaweedFS", {
  open: async () => [server.open("some/path"), server.open("some/path")],
  skip,
  sortsFoldersByName: true,
});

describe.skipIf(skip)("an S3 store", () => {
  test("keeps the time as Litestream does, in an object of Litestream's name", async () => {
    await server.open("time").put("0000/a.ltx", Buffer.from("x"), { timestampMs: Date.UTC(2026, 0, 2, 3, 4, 5, 120) });
    const wire = server.wire("time");
    const reply = await wire.send({ method: "HEAD", key: "time/0000/a.ltx" });
    reply.resume();
    expect(reply.headers["x-amz-meta-litestream-timestamp"]).toBe("2026-01-02T03:04:05.12Z");
    wire.close();
  });

  test("a stream in parts keeps the time, too", async () => {
    const store = server.open("time");
    const body = async function* () {
      yield randomBytes(6_000_000);
    };
    await store.put("parts", body(), { timestampMs: Date.UTC(2026, 0, 2, 3, 4, 5) });
    const wire = server.wire("time");
    const reply = await wire.send({ method: "HEAD", key: "time/parts" });
    reply.resume();
    expect(reply.headers["x-amz-meta-litestream-timestamp"]).toBe("2026-01-02T03:04:05Z");
    wire.close();
  });

  test("wrong keys: SLU-3102; a bucket that isn't there: SLU-3105; and neither names a secret", async () => {
    const token = "FwoGZXIvYXdzEXAMPLETOKEN";
    const sseCustomerKey = randomBytes(32).toString("base64");
    const wrong = openS3(server.url("x"), { accessKeyId, secretAccessKey: "not-the-secret" }, {});
    const missing = new URL(
      server.url("x").href.replace("//bucket/", `//${accessKeyId}:${encodeURIComponent(secretAccessKey)}@nobucket/`),
    );
    const stores = [
      wrong,
      openS3(missing, {}, {}),
      openS3(
        new URL("s3://bucket/x?endpoint=http://127.0.0.1:1"),
        { accessKeyId, secretAccessKey, sessionToken: token, sseCustomerKey },
        {},
      ),
    ];
    const errors: unknown[] = [];
    for (const store of stores) {
      errors.push(await store.get("key").catch((error: unknown) => error));
      errors.push(await store.put("key", Buffer.from("x"), { condition: "absent" }).catch((error: unknown) => error));
      expect(store.url).not.toMatch(/AKID|EXAMPLE/);
    }
    expect(errors[0]).toMatchObject({ code: "SLU-3102" });
    expect(errors[1]).toMatchObject({ code: "SLU-3102" });
    expect(errors[2]).toMatchObject({ code: "SLU-3105" });
    expect(errors[4]).toMatchObject({ code: "SLU-3101" });
    expect(errors[5]).toMatchObject({ outcome: "undecided", cause: { code: "SLU-3101" } });
    const shown = inspect(errors, { depth: 20, showHidden: true });
    for (const secret of [
      secretAccessKey,
      "not-the-secret",
      token,
      sseCustomerKey,
      encodeURIComponent(secretAccessKey),
    ])
      expect(shown).not.toContain(secret);
    for (const store of stores) await store.close();
  });

  test("unsigned payloads, and objects under a key that the customer keeps", async () => {
    const sseCustomerKey = randomBytes(32).toString("base64");
    const store = openS3(server.url("ssec"), { accessKeyId, secretAccessKey, sseCustomerKey, signPayload: false }, {});
    const body = randomBytes(100_000);
    await store.put("key", body, { condition: "absent" });
    expect(body.equals(await bytes(await store.get("key")))).toBe(true);
    expect((await bytes(await store.get("key", { range: { offset: -5 } }))).equals(body.subarray(-5))).toBe(true);
    await expect(server.open("ssec").get("key")).rejects.toMatchObject({ name: "SluiceError" });
    await store.close();
  });

  test("credentials come from the environment when none are given", async () => {
    const names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] as const;
    const before = names.map((name) => process.env[name]);
    [process.env["AWS_ACCESS_KEY_ID"], process.env["AWS_SECRET_ACCESS_KEY"]] = [accessKeyId, secretAccessKey];
    try {
      const store = openS3(server.url("chain"), {}, {});
      expect((await store.put("key", Buffer.from("x"))).outcome).toBe("written");
      await store.close();
    } finally {
      for (const [i, name] of names.entries()) {
        if (before[i] === undefined) delete process.env[name];
        else process.env[name] = before[i];
      }
    }
  });
});

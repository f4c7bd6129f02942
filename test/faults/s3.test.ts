import { randomBytes, randomInt } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { isSluiceError } from "../../src/errors/error.ts";
import type { S3Store } from "../../src/store/s3.ts";
import { lacks } from "../peers/peers.ts";
import { bytes, keysOf } from "../store/conformance.ts";
import { S3Server } from "../store/s3-server.ts";
import { type Fault, S3Proxy } from "./s3-proxy.ts";

const skip = lacks("weed");
const SILENCE_MS = 700;

/** Whatever breaks where nothing of the request has come through. */
const BEFORE: readonly Fault[] = [
  "reset-before",
  "silence",
  { status: 500, code: "InternalError" },
  { status: 503, code: "SlowDown" },
  { status: 429, code: "TooManyRequests" },
  { status: 409, code: "ConditionalRequestConflict" },
  { status: 400, code: "RequestTimeout" },
];

describe.skipIf(skip)("S3 through a bad network", () => {
  let server: S3Server;
  let proxy: S3Proxy;
  let store: S3Store;
  let straight: S3Store;

  beforeAll(async () => {
    server = await S3Server.start();
    proxy = await S3Proxy.start(server.port);
    store = server.impatient("faults", proxy.port, SILENCE_MS);
    straight = server.open("faults");
  });

  afterEach(async () => {
    proxy.choose = () => undefined;
    await proxy.settled();
    proxy.take();
  });

  afterAll(async () => {
    await store?.close();
    await straight?.close();
    await proxy?.stop();
    await server?.stop();
  });

  /** The next `count` requests whose method and path fit suffer `fault`. */
  function spoil(count: number, fault: Fault, fits: RegExp = /./): void {
    let left = count;
    proxy.choose = ({ method, path }) => (fits.test(`${method} ${path}`) && left-- > 0 ? fault : undefined);
  }

  const exists = async (key: string): Promise<boolean> =>
    straight.get(key).then(
      () => true,
      () => false,
    );

  test.each(BEFORE)("a conditional write and %o: undecided, sent once, not there", async (fault) => {
    const key = `create/${randomInt(1e9)}`;
    spoil(1, fault);
    const outcome = await store.put(key, Buffer.from("x"), { condition: "absent" });
    expect(outcome).toMatchObject({ outcome: "undecided", cause: { code: "SLU-3101" } });
    expect(proxy.take()).toHaveLength(1);
    expect(await exists(key)).toBe(false);
    expect((await store.put(key, Buffer.from("x"), { condition: "absent" })).outcome).toBe("written");
  });

  test("a conditional write whose answer is lost: undecided, sent once, and it is there", async () => {
    spoil(1, "lost-reply");
    expect((await store.put("lost", Buffer.from("x"), { condition: "absent" })).outcome).toBe("undecided");
    expect(proxy.take()).toHaveLength(1);
    expect(await exists("lost")).toBe(true);
    expect((await store.put("lost", Buffer.from("x"), { condition: "absent" })).outcome).toBe("refused");
  });

  test("a conditional write that lands late: undecided, not there, then there, and it wins", async () => {
    spoil(1, "late");
    expect((await store.put("late", Buffer.from("first"), { condition: "absent" })).outcome).toBe("undecided");
    await proxy.settled();
    expect((await store.put("late", Buffer.from("other"), { condition: "absent" })).outcome).toBe("refused");
    expect((await bytes(await straight.get("late"))).toString()).toBe("first");
  });

  test("a conditional write that the network doubles: refused by itself, and it is there", async () => {
    spoil(1, "duplicate");
    expect((await store.put("double", Buffer.from("x"), { condition: "absent" })).outcome).toBe("refused");
    expect((await bytes(await straight.get("double"))).toString()).toBe("x");
  });

  test("an exchange of versions whose answer is lost: undecided, and the new version is there", async () => {
    const first = await straight.put("swap", Buffer.from("1"));
    if (first.outcome !== "written") throw new Error("not written");
    spoil(1, "lost-reply");
    const outcome = await store.put("swap", Buffer.from("2"), { condition: { etag: first.etag } });
    expect(outcome.outcome).toBe("undecided");
    expect((await bytes(await straight.get("swap"))).toString()).toBe("2");
  });

  test.each<Fault>([...BEFORE, "lost-reply", "slow"])(
    "whatever else and %o, twice: tried again until it works",
    async (fault) => {
      const times = fault === "slow" ? 1 : 3;
      const [key, body] = [`again/${randomInt(1e9)}`, randomBytes(10_000)];
      spoil(2, fault);
      expect((await store.put(key, body)).outcome).toBe("written");
      expect(proxy.take()).toHaveLength(times);
      spoil(2, fault);
      expect(body.equals(await bytes(await store.get(key)))).toBe(true);
      expect(proxy.take()).toHaveLength(times);
      spoil(2, fault);
      expect(await keysOf(store.list(key))).toEqual([key]);
      expect(proxy.take()).toHaveLength(times);
      spoil(2, fault);
      await store.delete([key, `${key}-not`]);
      expect(proxy.take()).toHaveLength(times);
      expect(await exists(key)).toBe(false);
    },
  );

  test("a server that never recovers: SLU-3101 after a limited number of tries", async () => {
    proxy.choose = () => ({ status: 503, code: "SlowDown" });
    await expect(store.get("again/x")).rejects.toMatchObject({ code: "SLU-3101" });
    const tries = proxy.take().length;
    expect(tries).toBeGreaterThan(3);
    expect(tries).toBeLessThan(12);
  });

  test("a signal ends the waiting between tries", async () => {
    proxy.choose = () => ({ status: 503, code: "SlowDown" });
    const [stop, reason] = [new AbortController(), new Error("enough")];
    setTimeout(() => stop.abort(reason), 250);
    await expect(store.get("again/late", { signal: stop.signal })).rejects.toBe(reason);
  });

  test("what is refused for good isn't repeated", async () => {
    spoil(9, { status: 403, code: "AccessDenied" });
    await expect(store.get("again/x")).rejects.toMatchObject({ code: "SLU-3102" });
    await expect(store.put("again/x", Buffer.from("x"), { condition: "absent" })).rejects.toMatchObject({
      code: "SLU-3102",
    });
    expect(proxy.take().filter(({ path }) => path.endsWith("again/x"))).toHaveLength(2);
  });

  test("a read that is cut off goes on where it was, within a range too", async () => {
    const body = randomBytes(3_000_000);
    await straight.put("cut", body);
    spoil(5, "truncate", /^GET/);
    expect(body.equals(await bytes(await store.get("cut")))).toBe(true);
    expect(proxy.take()).toHaveLength(6);
    spoil(3, "truncate", /^GET/);
    const range = { offset: 1_000_000, length: 1_500_000 };
    expect(body.subarray(1_000_000, 2_500_000).equals(await bytes(await store.get("cut", { range })))).toBe(true);
    spoil(3, "truncate", /^GET/);
    expect(body.subarray(-500_000).equals(await bytes(await store.get("cut", { range: { offset: -500_000 } })))).toBe(
      true,
    );
  });

  test("a read that is cut off never goes on in another object", async () => {
    await straight.put("changing", Buffer.alloc(1_000_000, "a"));
    spoil(1, "truncate", /^GET/);
    const object = await store.get("changing");
    const reading = (async () => {
      let isFirst = true;
      for await (const chunk of object.body) {
        if (isFirst) await straight.put("changing", Buffer.alloc(1_000_000, "b"));
        isFirst = false;
        expect(Buffer.from(chunk).includes("b")).toBe(false);
      }
    })();
    await expect(reading).rejects.toMatchObject({ code: "SLU-3404" });
  });

  test("a reader that takes longer than the network's patience loses nothing", async () => {
    const body = randomBytes(8_000_000);
    await straight.put("pause", body);
    const parts: Uint8Array[] = [];
    for await (const chunk of (await store.get("pause")).body) {
      if (parts.push(chunk) === 3) await new Promise((resolve) => setTimeout(resolve, SILENCE_MS * 3));
    }
    expect(body.equals(Buffer.concat(parts))).toBe(true);
  });

  test("an upload in parts: parts are repeated, its completion is not, and nothing is left behind", async () => {
    const body = async function* () {
      for (let i = 0; i < 6; i++) yield Buffer.alloc(2_000_000, i);
    };
    expect(await straight.honoursConditionOnParts()).toBe(true);
    expect(await store.honoursConditionOnParts()).toBe(true);
    spoil(2, { status: 500, code: "InternalError" }, /partNumber=/);
    expect((await store.put("parts/1", body(), { condition: "absent" })).outcome).toBe("written");
    proxy.take();
    spoil(1, "lost-reply", /^POST .*uploadId=/);
    expect((await store.put("parts/2", body(), { condition: "absent" })).outcome).toBe("undecided");
    expect(proxy.take().filter(({ method, path }) => method === "POST" && path.includes("uploadId="))).toHaveLength(1);
    expect(await exists("parts/2")).toBe(true);
    spoil(1, { status: 403, code: "AccessDenied" }, /partNumber=2/);
    await expect(store.put("parts/3", body(), { condition: "absent" })).rejects.toMatchObject({ code: "SLU-3102" });
    expect(await exists("parts/3")).toBe(false);
    expect(proxy.take().some(({ method }) => method === "DELETE")).toBe(true);
    expect(await unfinishedUploads()).toBe(0);
  });

  test.each<Fault>([
    // Says that it was done, whatever the condition.
    { status: 200, code: "" },
    { status: 501, code: "NotImplemented" },
  ])("a server that answers completions with %o gets conditional streams in one request", async (fault) => {
    const stubborn = server.impatient("faults", proxy.port, 5_000);
    proxy.choose = ({ method, path }) => (method === "POST" && path.includes("uploadId=") ? fault : undefined);
    const key = `spooled/${randomInt(1e9)}`;
    const content = randomBytes(7_000_000);
    const body = async function* () {
      yield content;
    };
    expect(await stubborn.honoursConditionOnParts()).toBe(false);
    proxy.take();
    expect((await stubborn.put(key, body(), { condition: "absent" })).outcome).toBe("written");
    expect(proxy.take().map(({ method }) => method)).toEqual(["PUT"]);
    expect((await stubborn.put(key, body(), { condition: "absent" })).outcome).toBe("refused");
    expect(content.equals(await bytes(await straight.get(key)))).toBe(true);
    await stubborn.close();
  });

  test("a register stays a register: writers who follow the protocol, any network", async () => {
    const seed = Number(process.env["SLUICE_SEED"] ?? randomInt(2 ** 31));
    console.log(`seed ${seed} (SLUICE_SEED=${seed} repeats it)`);
    const random = mulberry(seed);
    const faults: readonly Fault[] = [
      ...BEFORE.filter((fault) => fault !== "silence"),
      "lost-reply",
      "late",
      "duplicate",
      "slow",
      "truncate",
    ];
    proxy.choose = () => (random() < 0.3 ? faults[Math.floor(random() * faults.length)] : undefined);
    const dir = await mkdtemp(path.join(os.tmpdir(), "sluice-register-"));
    const believed = new Map<string, number[]>();
    const writer = async (name: number): Promise<void> => {
      for (let slot = 0; slot < 6; slot++) {
        const key = `register/${seed}/${slot}`;
        const content = Buffer.alloc(2_000, `${name}/${slot} `);
        const file = path.join(dir, `${name}-${slot}`);
        await writeFile(file, content);
        if (await append(key, { path: file, sizeBytes: content.length }, content))
          believed.set(key, [...(believed.get(key) ?? []), name]);
      }
    };
    const append = async (
      key: string,
      body: { path: string; sizeBytes: number },
      content: Buffer,
    ): Promise<boolean> => {
      for (;;) {
        const { outcome } = await store.put(key, body, { condition: "absent" });
        if (outcome === "written") return true;
        if (outcome === "refused") return content.equals(await patiently(async () => bytes(await store.get(key))));
      }
    };
    await Promise.all([0, 1, 2, 3].map(writer));
    await proxy.settled();
    proxy.choose = () => undefined;
    for (let slot = 0; slot < 6; slot++) {
      const key = `register/${seed}/${slot}`;
      const content = (await bytes(await straight.get(key))).toString();
      expect(believed.get(key)).toEqual([Number(content[0])]);
    }
    await rm(dir, { recursive: true });
  });

  async function unfinishedUploads(): Promise<number> {
    const wire = server.wire("");
    const { xml } = await wire.sendForText({ method: "GET", key: "", query: { uploads: "" } });
    wire.close();
    return xml.split("<Upload>").length - 1;
  }
});

async function patiently<T>(run: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await run();
    } catch (error) {
      if (!isSluiceError(error, "SLU-3101")) throw error;
    }
  }
}

/** Mulberry32: a small generator with a seed. */
function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

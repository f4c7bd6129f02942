import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ConsulLease } from "../../src/lease/consul-lease.ts";
import { EtcdLease } from "../../src/lease/etcd-lease.ts";
import { FileLease } from "../../src/lease/file-lease.ts";
import { LeaseKeeper } from "../../src/lease/keeper.ts";
import type { KeeperOptions } from "../../src/lease/keeper-types.ts";
import type { LeaseRegister } from "../../src/lease/lease.ts";
import { openLease } from "../../src/lease/open-lease.ts";
import { DirectoryStore } from "../../src/store/directory.ts";
import { StoreLease } from "../../src/lease/store-lease.ts";
import { lacks } from "../peers/peers.ts";
import { freshName, recordOf, untilTrue } from "./conformance.ts";
import { PeerServer } from "./peer-server.ts";

const TTL_MS = 2_000;
const signal = AbortSignal.timeout(120_000);

function keep(register: LeaseRegister, options: Partial<KeeperOptions> = {}): LeaseKeeper {
  const node = { id: "a", name: "a", advertise: "http://a:1" };
  const keeper = new LeaseKeeper({ register, node, ttlMs: TTL_MS, events: {}, ...options });
  keeper.start();
  return keeper;
}

describe.skipIf(lacks("etcd"))("etcd", () => {
  let server: PeerServer;
  beforeAll(async () => {
    server = await PeerServer.etcd();
  });
  afterAll(() => server?.stop());

  test("an owner that doesn't renew makes way when its etcd lease ends, and the generation stays", async () => {
    const key = freshName();
    const [one, two] = [1, 2].map(() => new EtcdLease({ urls: [server.url], key }, TTL_MS));
    const long = { ...recordOf("a", 1, 3_600_000), generation: 7 };
    const first = await one!.swap(undefined, long, signal);
    expect(first.outcome).toBe("written");
    expect((await two!.read(signal))?.isFree).toBe(false);
    const keeper = keep(two!);
    expect((await keeper.acquire())?.generation).toBe(8);
    await Promise.all([keeper.close(), one!.close()]);
  });

  test("a renewal after the etcd lease has ended begins another", async () => {
    const register = new EtcdLease({ urls: [server.url], key: freshName() }, 1_000);
    const first = await register.swap(undefined, recordOf("a", 1, 1_000), signal);
    if (first.outcome !== "written") throw new Error("not written");
    let seen = await register.read(signal);
    while (seen?.isFree === false) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      seen = await register.read(signal);
    }
    expect((await register.swap(first.version, recordOf("a", 2, 1_000), signal)).outcome).toBe("written");
    expect(await register.read(signal)).toMatchObject({ isFree: false, record: { counter: 2 } });
    await register.close();
  });

  test("a server that hangs costs the lease at its deadline, and nothing else", async () => {
    const lost: string[] = [];
    const errors: unknown[] = [];
    const events = { lost: (reason: string) => lost.push(reason), trouble: (error: unknown) => errors.push(error) };
    const keeper = keep(new EtcdLease({ urls: [server.url], key: freshName() }, TTL_MS), { events });
    await keeper.acquire();
    server.pause(true);
    try {
      await untilTrue(() => lost.length > 0);
      expect(lost).toEqual(["expired"]);
      expect(errors.length).toBeGreaterThan(0);
    } finally {
      server.pause(false);
    }
    expect((await keeper.acquire())?.generation).toBe(2);
    await keeper.close();
  });

  test("the next address is tried when one doesn't answer", async () => {
    const urls = ["http://127.0.0.1:1", server.url];
    const register = new EtcdLease({ urls, key: freshName() }, TTL_MS);
    await expect(register.read(signal)).rejects.toMatchObject({ code: "SLU-8001" });
    expect(await register.read(signal)).toBeUndefined();
    await register.close();
  });

  test("something else under the key is SLU-8002, and stays", async () => {
    const key = freshName();
    const encoded = { key: Buffer.from(key).toString("base64"), value: Buffer.from("{}").toString("base64") };
    await fetch(`${server.url}/v3/kv/put`, { method: "POST", body: JSON.stringify(encoded) });
    const register = new EtcdLease({ urls: [server.url], key }, TTL_MS);
    await expect(register.read(signal)).rejects.toMatchObject({ code: "SLU-8002" });
    expect(await register.swap(undefined, recordOf("a", 1, TTL_MS), signal)).toEqual({ outcome: "refused" });
    await register.close();
  });

  // The last one: everybody needs a user from here on.
  test("with users: logs in, and again when its token is not known any more; a wrong password is SLU-8003", async () => {
    const post = async (call: string, body: unknown): Promise<void> => {
      const answer = await fetch(`${server.url}/v3/auth/${call}`, { method: "POST", body: JSON.stringify(body) });
      if (!answer.ok) throw new Error(`${call}: ${await answer.text()}`);
    };
    const root = { name: "root", password: "secret" };
    await post("user/add", root);
    await post("role/add", { name: "root" });
    await post("user/grant", { user: "root", role: "root" });
    await post("enable", {});
    const key = freshName();
    const settings = { urls: [server.url], key, user: "root" };
    const register = new EtcdLease({ ...settings, password: "secret" }, TTL_MS);
    const first = await register.swap(undefined, recordOf("a", 1, TTL_MS), signal);
    expect(first.outcome).toBe("written");
    const wrong = new EtcdLease({ ...settings, password: "wrong" }, TTL_MS);
    await expect(wrong.read(signal)).rejects.toMatchObject({ code: "SLU-8003" });
    const nobody = new EtcdLease({ urls: [server.url], key }, TTL_MS);
    await expect(nobody.read(signal)).rejects.toThrow();
    // A change of users ends all tokens that were given before (auth revision).
    const login = await fetch(`${server.url}/v3/auth/authenticate`, { method: "POST", body: JSON.stringify(root) });
    const { token } = (await login.json()) as { token: string };
    const headers = { authorization: token };
    const body = JSON.stringify({ name: "root", password: "secret" });
    const changed = await fetch(`${server.url}/v3/auth/user/changepw`, { method: "POST", headers, body });
    expect(changed.status).toBe(200);
    expect((await register.read(signal))?.record.nodeId).toBe("a");
    await Promise.all([register.close(), wrong.close(), nobody.close()]);
  });
});

test.skipIf(lacks("etcd"))("etcd over TLS: with the CA and a certificate of one's own, and not without", async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-lease-"));
  const [cert, key] = [path.join(dir, "cert.pem"), path.join(dir, "key.pem")];
  const subject = ["-subj", "/CN=sluice", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  execFileSync("openssl", ["req", ...kind, ...subject, "-out", cert, "-keyout", key], { stdio: "ignore" });
  const server = await PeerServer.etcd({ cert, key });
  try {
    const settings = { urls: [server.url], key: freshName() };
    const register = new EtcdLease({ ...settings, tls: { ca: cert, cert, key } }, TTL_MS);
    expect((await register.swap(undefined, recordOf("a", 1, TTL_MS), signal)).outcome).toBe("written");
    expect((await register.read(signal))?.record.nodeId).toBe("a");
    for (const tls of [{}, { ca: cert }]) {
      const stranger = new EtcdLease({ ...settings, tls }, TTL_MS);
      await expect(stranger.read(signal)).rejects.toMatchObject({ code: "SLU-8001" });
      await stranger.close();
    }
    await register.close();
  } finally {
    await server.stop();
    rmSync(dir, { recursive: true, force: true });
  }
});

describe.skipIf(lacks("consul"))("Consul", () => {
  let server: PeerServer;
  beforeAll(async () => {
    server = await PeerServer.consul();
  });
  afterAll(() => server?.stop());

  test("a path in the URL is the prefix of the key and of a node of its own", async () => {
    const { host } = new URL(server.url);
    const prefix = `tenant-${freshName()}`;
    const settings = { url: `http://:token%2B1@${host}/${prefix}/`, key: "app/primary", lockDelayMs: 100 };
    const register = new ConsulLease(settings, TTL_MS);
    expect(register.place).not.toContain("token");
    expect((await register.swap(undefined, recordOf("a", 1, TTL_MS), signal)).outcome).toBe("written");
    const [entry] = (await (await fetch(`${server.url}/v1/kv/${prefix}/app/primary`)).json()) as [{ Session: string }];
    const [session] = (await (await fetch(`${server.url}/v1/session/info/${entry.Session}`)).json()) as [unknown];
    expect(session).toMatchObject({ Node: `${prefix}/sluice`, Behavior: "release", LockDelay: 100e6, TTL: "2000ms" });
    // Bound to no health check.
    expect((session as { NodeChecks: unknown[] | null }).NodeChecks ?? []).toEqual([]);
    await register.close();
  });

  test("after a session's end the lock delay passes before anybody has the key", async () => {
    const key = freshName();
    const [one, two] = [1, 2].map(() => new ConsulLease({ url: server.url, key, lockDelayMs: 1_500 }, TTL_MS));
    await one!.swap(undefined, recordOf("a", 1, TTL_MS), signal);
    const [entry] = (await (await fetch(`${server.url}/v1/kv/${key}`)).json()) as [{ Session: string }];
    await fetch(`${server.url}/v1/session/destroy/${entry.Session}`, { method: "PUT" });
    const seen = await two!.read(signal);
    expect(seen?.isFree).toBe(true);
    const beganMs = performance.now();
    expect((await two!.swap(seen!.version, recordOf("b", 2, TTL_MS), signal)).outcome).toBe("refused");
    const keeper = keep(two!, { node: { id: "b", name: "b", advertise: "" } });
    expect((await keeper.acquire())?.generation).toBe(2);
    expect(performance.now() - beganMs).toBeGreaterThan(1_000);
    // The owner that was robbed of its session finds that out, and takes nothing back.
    const old = await one!.swap(seen!.version, recordOf("a", 2, TTL_MS), signal);
    expect(old.outcome).toBe("refused");
    await Promise.all([keeper.close(), one!.close()]);
  });

  test("a release ends the session, and knows no lock delay", async () => {
    const key = freshName();
    const [one, two] = [1, 2].map(() => new ConsulLease({ url: server.url, key, lockDelayMs: 60_000 }, TTL_MS));
    const [first, second] = [keep(one!), keep(two!, { node: { id: "b", name: "b", advertise: "" } })];
    await first.acquire();
    const wanted = second.acquire();
    expect(await first.release()).toBe("written");
    expect((await wanted)?.generation).toBe(2);
    const sessions = (await (await fetch(`${server.url}/v1/session/list`)).json()) as { LockDelay: number }[];
    expect(sessions.filter(({ LockDelay }) => LockDelay === 60_000e6)).toHaveLength(1);
    await Promise.all([first.close(), second.close()]);
  });
});

describe("leases that the configuration decides", () => {
  test("static: the node of that address is primary for ever, the others know who it is and never try", async () => {
    const place = { type: "static", primary: "http://a:1" } as const;
    const primary = keep(await openLease(place, { ttlMs: TTL_MS, advertise: "http://a:1/", secret: "s" }));
    const grant = await primary.acquire();
    expect(grant?.generation).toBe(1);
    expect(primary.deadlineMs).toBe(Number.POSITIVE_INFINITY);
    expect(() => primary.handOver("b")).toThrow(expect.objectContaining({ code: "SLU-8004" }));
    expect(primary.isHeld()).toBe(true);
    const other = keep(await openLease(place, { ttlMs: TTL_MS, advertise: "http://b:1", secret: "s" }));
    void other.acquire();
    await untilTrue(() => other.holder?.record.advertise === "http://a:1");
    expect(other.isHeld()).toBe(false);
    // It may stop, and begin again.
    expect(await primary.release()).toBe("written");
    expect(primary.holder).toBeUndefined();
    expect((await primary.acquire({ aboveGeneration: 8 }))?.generation).toBe(9);
    await Promise.all([primary.close(), other.close()]);
  });

  test("none: this node alone", async () => {
    const keeper = keep(await openLease(undefined, { ttlMs: TTL_MS, advertise: undefined, secret: undefined }));
    expect((await keeper.acquire())?.generation).toBe(1);
    expect(keeper.isHeld()).toBe(true);
    await keeper.close();
  });
});

describe("from a configuration", () => {
  test("each type opens its place", async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-lease-"));
    try {
      const store = { type: "store", store: { url: `file://${dir}/log`, settings: {} } } as const;
      const file = { type: "file", path: path.join(dir, "primary") } as const;
      const consul = {
        type: "consul",
        url: "http://h:8500",
        key: "k",
        token: undefined,
        lockDelayMs: 1,
        tls: undefined,
      } as const;
      const etcd = {
        type: "etcd",
        urls: ["http://h:2379"],
        key: "k",
        username: undefined,
        password: undefined,
        tls: undefined,
      } as const;
      const registers = await Promise.all(
        [store, file, consul, etcd].map((place) =>
          openLease(place, { ttlMs: TTL_MS, advertise: "", secret: undefined }),
        ),
      );
      expect(registers.map(({ place }) => place)).toEqual([
        `file://${dir}/log/lease.json`,
        `file://${dir}/primary`,
        "http://h:8500, Consul's key k",
        "http://h:2379, etcd's key k",
      ]);
      expect(registers.map(({ constructor }) => constructor)).toEqual([StoreLease, FileLease, ConsulLease, EtcdLease]);
      await Promise.all(registers.map((register) => register.close()));
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  test("a record that makes no sense is SLU-8002, and nobody becomes primary by it", async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), "sluice-lease-"));
    try {
      writeFileSync(path.join(dir, "lease.json"), '{"nodeId":"a"}');
      const register = new StoreLease(new DirectoryStore(dir));
      await expect(register.read(signal)).rejects.toMatchObject({ code: "SLU-8002" });
      const codes: unknown[] = [];
      const events = { trouble: (error: unknown) => codes.push((error as { code?: string }).code) };
      const keeper = keep(register, { events });
      void keeper.acquire();
      await untilTrue(() => codes.length > 2);
      expect(new Set(codes)).toEqual(new Set(["SLU-8002"]));
      expect(keeper.isHeld()).toBe(false);
      await keeper.close();
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  test("certificates that can't be read are SLU-8006", () => {
    const settings = { urls: ["https://h"], key: "k", tls: { ca: "/nowhere/ca.pem" } };
    expect(() => new EtcdLease(settings, TTL_MS)).toThrow(expect.objectContaining({ code: "SLU-8006" }));
  });
});

import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import path from "node:path";
import { PassThrough } from "node:stream";
import { WebSocket } from "ws";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WINDOW_BYTES } from "../../../src/cluster/stream/outgoing.ts";
import { decode, encode, type Message } from "../../../src/cluster/stream/messages.ts";
import type { StreamClientOptions } from "../../../src/cluster/stream/client.ts";
import type { StreamServerOptions } from "../../../src/cluster/stream/server.ts";
import { fieldsOf } from "../../../src/cluster/stream/identity.ts";
import { caughtUp, Follower, identity, Lead, type LeadDatabase, leadDatabases, Place, until } from "./nodes.ts";

let place: Place;

beforeEach(() => {
  place = new Place();
});

afterEach(() => place.remove());

/** The code with which two nodes don't come together. */
async function refusal(
  server: Partial<StreamServerOptions>,
  client: Partial<StreamClientOptions>,
): Promise<string | undefined> {
  const lead = await Lead.open(place, [], server);
  const one = new Follower(place, "one", client);
  one.client.follow(lead.url);
  await until("an answer", () => one.problems.length > 0 || one.client.primary !== undefined);
  return one.problems[0]?.code;
}

describe("nodes that meet", () => {
  it("must have the same secret", async () => {
    expect(await refusal({ secret: "the right one" }, { secret: "the wrong one" })).toBe("SLU-8201");
    expect(await refusal({ secret: "the right one" }, {})).toBe("SLU-8201");
    expect(await refusal({ secret: "the right one" }, { secret: "the right one" })).toBeUndefined();
  });

  it("need none on one machine, and nobody else gets in without one", async () => {
    const { server } = await Lead.open(place, []);
    const answer = async (remoteAddress: string, url: string): Promise<string> => {
      const socket = new PassThrough();
      const request = { url, headers: {}, method: "GET", socket: { remoteAddress } } as unknown as IncomingMessage;
      server.handleUpgrade(request, socket, Buffer.alloc(0));
      return ((await once(socket, "data"))[0] as Buffer).toString("latin1").split("\r\n")[0]!;
    };
    expect(await answer("10.0.0.7", "/v1/stream")).toBe("HTTP/1.1 401 Unauthorized");
    expect(await answer("127.0.0.1", "//")).toBe("HTTP/1.1 404 Not Found");
    // From here, only a WebSocket is missing.
    expect(await answer("::ffff:127.0.0.1", "/v1/stream")).toMatch(/400 Bad Request|405/);
    server.close();
    expect(await answer("127.0.0.1", "/v1/stream?x")).toBe("HTTP/1.1 503 Service Unavailable");
  });

  it("say so where a lease names no address at all", async () => {
    const one = new Follower(place, "one", {});
    one.client.follow("no address");
    await until("an answer", () => one.problems.length > 0);
    expect(one.problems[0]!.code).toBe("SLU-8210");
  });

  it("must be of one cluster", async () => {
    const own = identity("one", { clusterId: "another" });
    expect(await refusal({}, { identity: () => own })).toBe("SLU-8202");
    const unknowing = identity("one", { clusterId: "" });
    expect(await refusal({}, { identity: () => unknowing })).toBeUndefined();
  });

  it("must have a protocol version in common", async () => {
    expect(await refusal({}, { protocol: { min: 2, max: 3 } })).toBe("SLU-8203");
    expect(await refusal({ protocol: { min: 2, max: 3 } }, {})).toBe("SLU-8203");
    expect(await refusal({}, { protocol: { min: 0, max: 3 } })).toBeUndefined();
    expect(await refusal({ protocol: { min: 1, max: 7 } }, {})).toBeUndefined();
  });

  it("must be two", async () => {
    const own = identity("lead");
    expect(await refusal({ identity: () => own }, { identity: () => own })).toBe("SLU-8204");
    const copy = identity("copy", { nodeId: own.nodeId });
    expect(await refusal({ identity: () => own }, { identity: () => copy })).toBe("SLU-8204");
  });

  it("go on to the primary when they asked another", async () => {
    const hints: string[] = [];
    const role = () => ({ isPrimary: false, primary: "http://elsewhere:1" });
    expect(await refusal({ role }, { onPrimary: (url) => void hints.push(url) })).toBe("SLU-8205");
    expect(hints).toContain("http://elsewhere:1");
  });

  it("don't follow an older epoch, and the primary of that learns of it", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const deposed: string[] = [];
    const lead = await Lead.open(place, [app], { onDeposed: (name, epoch) => void deposed.push(`${name} ${epoch}`) });
    const one = new Follower(place, "one");
    one.client.follow(lead.url);
    const replica = await one.start("app.db");
    await caughtUp(app, replica);
    await one.client.close();
    const { position } = replica;
    await replica.sealed({ txid: 99, epoch: 99, position: position!, timestampMs: 0 });
    one.client.follow(lead.url);
    await until("refused", () => one.problems.some(({ code }) => code === "SLU-8206"));
    expect(deposed[0]).toBe("app.db 99");
    app.write();
    app.database.captureNow();
    expect(replica.position).toBe(position);
  });

  it("don't mix up databases of different logs", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const lead = await Lead.open(place, [app]);
    const one = new Follower(place, "one");
    one.client.follow(lead.url);
    await one.start("app.db");
    await one.leave("app.db");
    Object.defineProperty(app, "logId", { value: "another" });
    await one.open("app.db");
    await expect(one.replicas.get("app.db")!.attachment.failed).rejects.toMatchObject({ code: "SLU-8207" });
  });

  it("encrypt, and each shows a certificate of the cluster's authority", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const tls = certificate("ours");
    const lead = await Lead.open(place, [app], { tls });
    const one = new Follower(place, "one", { tls });
    one.client.follow(lead.url);
    const replica = await one.start("app.db");
    app.write();
    await caughtUp(app, replica);

    const stranger = new Follower(place, "two", { tls: certificate("theirs") });
    stranger.client.follow(lead.url);
    await until("not trusted", () => stranger.problems.some(({ code }) => code === "SLU-8211"));
    const bare = new Follower(place, "three", { tls: { ...certificate("third"), ca: tls.ca } });
    bare.client.follow(lead.url);
    // The primary ends it without a word.
    await until("not accepted", () => bare.problems.length > 1);
    expect(lead.server.replicas.map(({ name }) => name)).toEqual(["one"]);
  });
});

describe("a server of the stream", () => {
  it("ignores what a later release says, and ends a connection over what is no message", async () => {
    const lead = await Lead.open(place, []);
    const talk = await greeted(lead.url);
    talk.send(Uint8Array.of(200, 1, 2, 3));
    const heartbeat = encode("heartbeat", { sentAtMs: 1, role: 0, lease: "" });
    talk.send(Buffer.concat([heartbeat, Buffer.from("something new")]));
    await until("still there", () => talk.got.some(({ type }) => type === "heartbeat"));
    talk.send(Uint8Array.of(4, 0xff));
    await until("refused", () => talk.got.some((message) => message.type === "refusal" && message.code === "SLU-8208"));
    await until("closed", () => talk.socket.readyState === WebSocket.CLOSED);
    expect(lead.server.replicas).toEqual([]);
  });

  it("refuses messages out of place", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const lead = await Lead.open(place, [app]);
    const join = encode("join", {
      channel: 1,
      name: "app.db",
      logId: "",
      pageSize: 0,
      isKnown: false,
      position: 0n,
      checksum: 0n,
      record: { txid: 0, epoch: 0, position: 0n, timestampMs: 0 },
      epoch: 0,
      wish: 2,
    });
    const wrong: Uint8Array[][] = [
      [encode("abort", { channel: 1 })],
      [encode("hello", { min: 1, max: 1, features: [], node: fieldsOf(identity("x")), candidate: false })],
      [join, encode("abort", { channel: 1 })],
      [join, encode("resynced", { channel: 1 })],
      [join, encode("resync", { channel: 1 }), encode("pagesWanted", { channel: 1, numbers: Uint32Array.of(2 ** 30) })],
      [join, encode("resync", { channel: 1 }), encode("sumsWanted", { channel: 1, blocks: Uint32Array.of(9999) })],
    ];
    for (const messages of wrong) {
      const talk = await greeted(lead.url);
      for (const message of messages) talk.send(message);
      await until("refused", () =>
        talk.got.some((message) => message.type === "refusal" && message.code === "SLU-8208"),
      );
      talk.socket.terminate();
    }
    expect(lead.server.replicas.length).toBeLessThanOrEqual(1);
    // Others aren't bothered.
    const one = new Follower(place, "one");
    one.client.follow(lead.url);
    await caughtUp(app, await one.start("app.db"));
    await until("released", () => lead.server.sources.open === 0);
  });
});

it("a replica that takes nothing gets no more than the window", async () => {
  const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
  const lead = await Lead.open(place, [app]);
  const talk = await greeted(lead.url);
  talk.send(
    encode("join", {
      channel: 1,
      name: "app.db",
      logId: "",
      pageSize: 4096,
      isKnown: true,
      position: app.feed.position,
      checksum: app.feed.checksum,
      record: { txid: 0, epoch: 0, position: 0n, timestampMs: 0 },
      epoch: 0,
      wish: 0,
    }),
  );
  await until("joined", () => talk.got.some((message) => message.type === "joined" && message.answer === 0));
  for (let i = 0; i < 100; i++) {
    app.write(100_000);
    app.database.captureNow();
  }
  const alive = setInterval(() => talk.send(encode("heartbeat", { sentAtMs: 0, role: 0, lease: "" })), 50);
  const bytes = (): number => talk.bytes();
  await until("the window is full", () => bytes() > WINDOW_BYTES);
  const beats = talk.got.filter(({ type }) => type === "heartbeat").length;
  await until("beats", () => talk.got.filter(({ type }) => type === "heartbeat").length > beats + 2);
  clearInterval(alive);
  expect(bytes()).toBeLessThan(WINDOW_BYTES + 1_500_000);
  const last = talk.got.findLast((message) => message.type === "change")!;
  talk.send(encode("applied", { entries: [{ channel: 1, position: last.position, txid: 0, taken: bytes() }] }));
  // The rest is one step.
  await until("a large step", () =>
    talk.got.some((message) => message.type === "change" && message.position === app.feed.position),
  );
  expect(talk.got.filter(({ type }) => type === "change").length).toBeLessThan(60);
});

/** A connection by hand, after the greeting. */
async function greeted(url: string): Promise<{
  readonly socket: WebSocket;
  readonly got: Message[];
  readonly send: (bytes: Uint8Array) => void;
  /** Of changes. */
  readonly bytes: () => number;
}> {
  const socket = new WebSocket(url.replace("http", "ws") + "/v1/stream");
  const got: Message[] = [];
  let bytes = 0;
  socket.on("message", (data) => {
    const message = decode(data as Buffer);
    if (message !== undefined) got.push(message);
    if (message?.type === "change" || message?.type === "pages") bytes += (data as Buffer).length;
  });
  socket.on("error", () => undefined);
  await once(socket, "open");
  const node = fieldsOf(identity(`raw-${Math.random()}`));
  socket.send(encode("hello", { min: 1, max: 1, features: ["something"], node, candidate: false }));
  await until("welcome", () => got.some(({ type }) => type === "welcome"));
  place.closing(() => socket.terminate());
  return { socket, got, send: (bytes) => socket.send(bytes), bytes: () => bytes };
}

/** A certificate for localhost, its key, and the authority that signed it. */
function certificate(name: string): { readonly cert: string; readonly key: string; readonly ca: string } {
  const file = (suffix: string): string => path.join(place.dir, `${name}-${suffix}`);
  const openssl = (...args: string[]): void => void execFileSync("openssl", args, { stdio: "pipe" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl(
    "req",
    "-x509",
    ...key,
    "-keyout",
    file("ca.key"),
    "-out",
    file("ca.pem"),
    "-subj",
    `/CN=${name}`,
    "-days",
    "2",
  );
  openssl("req", ...key, "-keyout", file("key.pem"), "-out", file("csr.pem"), "-subj", "/CN=localhost");
  writeFileSync(file("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1");
  const ca = ["-CA", file("ca.pem"), "-CAkey", file("ca.key"), "-CAcreateserial"];
  openssl(
    "x509",
    "-req",
    "-in",
    file("csr.pem"),
    ...ca,
    "-out",
    file("cert.pem"),
    "-days",
    "2",
    "-extfile",
    file("ext"),
  );
  return { cert: file("cert.pem"), key: file("key.pem"), ca: file("ca.pem") };
}

import { existsSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WINDOW_BYTES } from "../../../src/cluster/stream/outgoing.ts";
import type { ChangeHead } from "../../../src/database/replication.ts";
import { caughtUp, Follower, Lead, LeadDatabase, leadDatabases, Place, until } from "./nodes.ts";
import { Wire } from "./wire.ts";

let place: Place;

beforeEach(() => {
  place = new Place();
});

afterEach(() => place.remove());

async function follower(name: string, url: string): Promise<Follower> {
  const one = new Follower(place, name);
  one.client.follow(url);
  return one;
}

describe("replication stream", () => {
  it("copies a database, then brings each commit to readers of the copy", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    app.write(100, 500);
    const { url, server } = await Lead.open(place, [app]);
    const one = await follower("one", url);
    const replica = await one.start("app.db");
    await caughtUp(app, replica);
    for (let i = 0; i < 20; i++) {
      app.write();
      await caughtUp(app, replica);
      expect(one.read("app.db", "select count(*) from t")).toBe(501 + i);
    }
    expect(replica.checksum).toBe(app.feed.checksum);
    const { life } = server.replicas[0]!;
    await until("acknowledged", () => server.acks.get("app.db", life)?.position === app.feed.position);
    expect(server.lagMs(life)).toBe(0);
    expect(one.problems).toEqual([]);
  });

  it("serves three replicas with several databases each, and tells them what is in the log", async () => {
    const all = await leadDatabases(place, "a.db", "b.db", "deep/c.db");
    const { url, server } = await Lead.open(place, all);
    const nodes = await Promise.all(["one", "two", "three"].map((name) => follower(name, url)));
    await Promise.all(nodes.flatMap((node) => all.map(({ name }) => node.start(name))));
    for (let i = 0; i < 30; i++) for (const database of all) database.write(200);
    for (const database of all) {
      await database.seal();
      for (const node of nodes) {
        const { replica } = node.replicas.get(database.name)!;
        await caughtUp(database, replica);
        await until("placed", () => replica.record?.txid === database.record!.txid);
        expect(replica.checksum).toBe(database.feed.checksum);
        expect(replica.epoch).toBe(database.epoch);
      }
    }
    for (const node of nodes) {
      await server.awaitReplica(`id-${node.name}`, AbortSignal.timeout(20_000));
      expect(node.problems).toEqual([]);
    }
    const nobody = server.awaitReplica("id-nobody", AbortSignal.timeout(20_000));
    await expect(nobody).rejects.toMatchObject({ code: "SLU-8104" });
    expect(server.acks.reached("a.db", 3)).toBe(all[0]!.feed.position);
    expect(server.replicas.map(({ name }) => name).sort()).toEqual(["one", "three", "two"]);
  });

  it("doesn't hold small commits up behind a huge one", async () => {
    const [huge, small] = (await leadDatabases(place, "huge.db", "small.db")) as [LeadDatabase, LeadDatabase];
    const { url } = await Lead.open(place, [huge, small]);
    const one = await follower("one", url);
    const big = await one.start("huge.db");
    const little = await one.start("small.db");
    await caughtUp(huge, big);
    const order: string[] = [];
    big.onApplied = () => void order.push("huge");
    little.onApplied = () => void order.push("small");
    huge.app.exec(
      "with recursive n(i) as (select 1 union all select i+1 from n where i<20000) insert into t (v) select randomblob(1000) from n",
    );
    huge.database.captureNow();
    small.write();
    await caughtUp(small, little);
    await caughtUp(huge, big);
    await until("both", () => order.length > 1);
    // The small one overtook 20 MB.
    expect(order).toEqual(["small", "huge"]);
    expect(big.checksum).toBe(huge.feed.checksum);
    expect(one.read("huge.db", "select count(*) from t")).toBe(20_000);
  });

  it("gives a replica that is slow larger steps, and the primary and others don't notice it", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const { url, server } = await Lead.open(place, [app], { heartbeatMs: 5_000 });
    const wire = await Wire.open(url);
    place.closing(() => wire.close());
    const slow = new Follower(place, "slow");
    const fast = await follower("fast", url);
    slow.client.follow(wire.url);
    const replica = await slow.start("app.db");
    const other = await fast.start("app.db");
    let applied = 0;
    replica.onApplied = () => void applied++;
    await caughtUp(app, replica);
    applied = 0;
    wire.stall();
    for (let i = 0; i < 1500; i++) {
      app.write(3000);
      if (i % 100 === 0) await sleep(1);
    }
    await caughtUp(app, other);
    const { life } = server.replicas.find(({ name }) => name === "slow")!;
    expect(server.lagMs(life)).toBeGreaterThan(0);
    wire.flow();
    await caughtUp(app, replica);
    expect(replica.checksum).toBe(app.feed.checksum);
    expect(applied).toBeLessThan(1400);
    await until("no lag", () => server.lagMs(life) === 0);
  });

  it("doesn't hold up a database for another that can't take its changes just now", async () => {
    const [stuck, free] = (await leadDatabases(place, "stuck.db", "free.db")) as [LeadDatabase, LeadDatabase];
    const { url } = await Lead.open(place, [stuck, free]);
    const wire = await Wire.open(url);
    place.closing(() => wire.close());
    const one = await follower("one", wire.url);
    const held = await one.start("stuck.db");
    const other = await one.start("free.db");
    await caughtUp(stuck, held);
    const gate = Promise.withResolvers<void>();
    const change = held.change.bind(held);
    Object.defineProperty(held, "change", {
      value: async (head: ChangeHead) => {
        await gate.promise;
        return change(head);
      },
    });
    const bytes = wire.downBytes;
    for (let i = 0; i < 200; i++) {
      stuck.write(100_000);
      stuck.database.captureNow();
      if (i % 20 === 0) {
        free.write();
        await caughtUp(free, other);
      }
    }
    expect(wire.downBytes - bytes).toBeLessThan(WINDOW_BYTES + 2_000_000);
    gate.resolve();
    await caughtUp(stuck, held);
    expect(held.checksum).toBe(stuck.feed.checksum);
  });

  it("goes on over restarts of the WAL without a comparison", async () => {
    const file = path.join(place.dir, "lead", "app.db");
    const app = await LeadDatabase.open(file, "app.db", {
      limits: { backfillFrames: 50, restartBytes: 300_000, hardBytes: 600_000 },
    });
    place.closing(() => app.close());
    let pictures = 0;
    const real = app.resyncSource.bind(app);
    Object.defineProperty(app, "resyncSource", { value: () => (pictures++, real()) });
    const { url } = await Lead.open(place, [app]);
    const one = await follower("one", url);
    const replica = await one.start("app.db");
    await caughtUp(app, replica);
    let restarts = 0;
    let bytes = 0;
    for (let i = 0; i < 600; i++) {
      app.write(3000);
      await sleep(1);
      if (app.database.walBytes < bytes) restarts++;
      bytes = app.database.walBytes;
    }
    await caughtUp(app, replica);
    expect(replica.checksum).toBe(app.feed.checksum);
    expect(restarts).toBeGreaterThan(2);
    expect(pictures).toBe(1);
    expect(one.problems).toEqual([]);
  });

  it("tells of databases that come and go", async () => {
    const [first, second] = (await leadDatabases(place, "first.db", "second.db")) as [LeadDatabase, LeadDatabase];
    const { url, published } = await Lead.open(place, [first]);
    const seen: string[] = [];
    const one = new Follower(place, "one", {
      onDatabase: ({ name, logId, pageSize }) => void seen.push(`+${name} ${logId} ${pageSize}`),
      onGone: (name) => void seen.push(`-${name}`),
    });
    one.client.follow(url);
    const replica = await one.start("first.db");
    expect(await one.client.seed("second.db", one.path("second.db"), AbortSignal.timeout(20_000))).toBe(false);
    published.add(second);
    const late = await one.start("second.db");
    await caughtUp(second, late);
    published.remove("first.db");
    await until("gone", () => seen.includes("-first.db"));
    expect(seen).toEqual(["+first.db log-first.db 4096", "+second.db log-second.db 4096", "-first.db"]);
    await until("left", () => !one.replicas.get("first.db")!.attachment.isJoined);
    published.add(first);
    first.write();
    await caughtUp(first, replica);
    expect(existsSync(one.path("second.db"))).toBe(true);
  });

  it("tells what is durable, who is a member, and whom the lease names", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const lead = await Lead.open(place, [app], { lease: () => "generation 7" });
    const members: string[] = [];
    const called: string[] = [];
    const leases = new Set<string>();
    const one = new Follower(place, "one", {
      onMembers: (nodes) => void members.push(...nodes.map(({ name, member }) => `${name} ${member}`)),
      onCalled: () => void called.push("one"),
      onHeartbeat: ({ lease }) => void leases.add(lease),
      onPrimary: (url) => void called.push(url),
    });
    one.client.follow(lead.url);
    await one.start("app.db");
    app.write();
    app.durable = app.database.captureNow();
    await app.seal();
    const durable = (): unknown => (one.replicas.get("app.db")!.attachment as { durable?: unknown }).durable;
    const { position } = app.feed;
    await until("durable", () => {
      const now = durable() as { store: bigint; newest: bigint; replica: bigint } | undefined;
      return now?.store === position && now.newest === position && now.replica === position;
    });
    const { member } = lead.server.replicas[0]!;
    await until("member", () => members.includes(`one ${member}`));
    lead.server.callSuccessor("id-one");
    await until("called", () => called.includes("one"));
    await until("lease", () => leases.has("generation 7"));
    lead.server.close({ nodeId: "id-two", advertise: "http://two" });
    await until("successor", () => called.includes("http://two"));
    expect(called).toEqual(["one", "http://two"]);
  });
});

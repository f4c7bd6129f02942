import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { SluiceError } from "../../../src/errors/error.ts";
import { caughtUp, Follower, identity, Lead, LeadDatabase, leadDatabases, Place, until } from "./nodes.ts";
import { Wire } from "./wire.ts";

let place: Place;

beforeEach(() => {
  place = new Place();
});

afterEach(() => place.remove());

async function wireTo(url: string): Promise<Wire> {
  const wire = await Wire.open(url);
  place.closing(() => wire.close());
  return wire;
}

describe("a connection of the stream", () => {
  it("that is cut again and again loses nothing", async () => {
    const all = (await leadDatabases(place, "a.db", "b.db")) as [LeadDatabase, LeadDatabase];
    const { url } = await Lead.open(place, all);
    const wire = await wireTo(url);
    const one = new Follower(place, "one");
    one.client.follow(wire.url);
    const replicas = await Promise.all(all.map(({ name }) => one.start(name)));
    for (let round = 0; round < 8; round++) {
      for (const database of all) database.write(2000, 200);
      await sleep(20 * round);
      wire.cut();
      for (const database of all) database.write(50, 20);
      if (round % 3 === 0) for (const database of all) await database.seal();
      if (round % 2 === 0) await until("joined", () => one.replicas.get("a.db")!.attachment.isJoined);
    }
    for (const [i, database] of all.entries()) {
      await caughtUp(database, replicas[i]!);
      expect(replicas[i]!.checksum).toBe(database.feed.checksum);
      expect(one.read(database.name, "pragma integrity_check")).toBe("ok");
    }
    expect(one.problems.every(({ code }) => code === "SLU-8210")).toBe(true);
  });

  it("that is half open is given up by both sides, and a new one goes on", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const reasons: SluiceError[] = [];
    const { url, server } = await Lead.open(place, [app], {
      onDisconnected: (_replica, reason) => void reasons.push(reason),
    });
    const wire = await wireTo(url);
    const one = new Follower(place, "one");
    one.client.follow(wire.url);
    const replica = await one.start("app.db");
    await caughtUp(app, replica);
    wire.silence();
    app.write();
    await until("noticed here", () => one.problems.some(({ code }) => code === "SLU-8209"));
    await until("noticed there", () => reasons.some(({ code }) => code === "SLU-8209"));
    expect(server.acks.of("app.db").size).toBe(0);
    wire.cut();
    wire.flow();
    await caughtUp(app, replica);
    expect(replica.checksum).toBe(app.feed.checksum);
  });

  it("that ends in the middle of a large change leaves the replica at the state before", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const { url } = await Lead.open(place, [app]);
    const wire = await wireTo(url);
    const one = new Follower(place, "one");
    one.client.follow(wire.url);
    const replica = await one.start("app.db");
    await caughtUp(app, replica);
    const before = { position: replica.position, checksum: replica.checksum };
    const bytes = wire.downBytes;
    app.app.exec(
      "with recursive n(i) as (select 1 union all select i+1 from n where i<20000) insert into t (v) select randomblob(1000) from n",
    );
    app.database.captureNow();
    await until("under way", () => wire.downBytes > bytes + 3_000_000);
    wire.down(true);
    await until("noticed", () => !one.replicas.get("app.db")!.attachment.isJoined);
    expect({ position: replica.position, checksum: replica.checksum }).toEqual(before);
    expect(one.read("app.db", "select count(*) from t")).toBe(0);
    wire.down(false);
    await caughtUp(app, replica);
    expect(replica.checksum).toBe(app.feed.checksum);
  });

  it("is made again when the primary restarts, and its takeover record is placed before its commits", async () => {
    const file = `${place.dir}/lead/app.db`;
    const first = await LeadDatabase.open(file, "app.db");
    const lead = await Lead.open(place, [first]);
    const wire = await wireTo(lead.url);
    const one = new Follower(place, "one");
    one.client.follow(wire.url);
    const replica = await one.start("app.db");
    first.write();
    await caughtUp(first, replica);
    const { epoch } = replica;
    lead.published.remove("app.db");
    await first.close();
    const second = await LeadDatabase.open(file, "app.db");
    place.closing(() => second.close());
    second.write();
    lead.published.add(second);
    await caughtUp(second, replica);
    await until("placed", () => replica.epoch === second.epoch);
    expect(second.epoch).toBeGreaterThan(epoch);
    expect(replica.checksum).toBe(second.feed.checksum);
  });

  it("is the newer one's when one node connects twice, and refused while another life of its id is alive", async () => {
    const [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
    const { url, server } = await Lead.open(place, [app]);
    const wire = await wireTo(url);
    const own = identity("one");
    const one = new Follower(place, "one", { identity: () => own });
    one.client.follow(wire.url);
    await until("connected", () => server.replicas.length === 1);
    // The same process comes again over another way, while the primary believes in the old one.
    wire.silence();
    one.client.follow(url);
    await until("again", () => one.client.primary !== undefined);
    expect(server.replicas.length).toBe(1);

    const copy = new Follower(place, "copy", { identity: () => ({ ...own, name: "copy", life: own.life + 1n }) });
    copy.client.follow(url);
    await until("refused", () => copy.problems.some(({ code }) => code === "SLU-8204"));
    expect(server.replicas.map(({ name }) => name)).toEqual(["one"]);
    expect(one.problems.filter(({ code }) => code === "SLU-8204")).toEqual([]);

    // When the first is gone, the second is simply this node, started anew.
    await one.close();
    await until("taken in", () => server.replicas.some(({ name }) => name === "copy"));
  });
});

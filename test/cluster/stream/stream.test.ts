import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { caughtUp, Follower, Lead, LeadDatabase, Place, until } from "./nodes.ts";

let place: Place;

beforeEach(() => {
  place = new Place();
});

afterEach(() => place.remove());

async function lead(...names: string[]): Promise<LeadDatabase[]> {
  const all: LeadDatabase[] = [];
  for (const name of names) {
    const one = await LeadDatabase.open(path.join(place.dir, "lead", name), name);
    place.closing(() => one.close());
    all.push(one);
  }
  return all;
}

describe("replication stream", () => {
  it("copies a database, then brings each commit to readers of the copy", async () => {
    const [app] = await lead("app.db");
    app!.write(100, 500);
    const { url, server } = await Lead.open(place, [app!]);
    const follower = new Follower(place, "one");
    follower.client.follow(url);
    const replica = await follower.start("app.db");
    await caughtUp(app!, replica);
    for (let i = 0; i < 20; i++) {
      app!.write();
      await caughtUp(app!, replica);
      expect(follower.read("app.db", "select count(*) from t")).toBe(501 + i);
    }
    expect(replica.checksum).toBe(app!.feed.checksum);
    const life = server.replicas[0]!.life;
    await until("acknowledged", () => server.acks.get("app.db", life)?.position === app!.feed.position);
    expect(server.lagMs(life)).toBe(0);
    expect(follower.problems).toEqual([]);
  });
});

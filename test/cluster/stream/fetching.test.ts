import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FollowingDatabases } from "../../../src/cluster/published-replicas.ts";
import { StreamClient } from "../../../src/cluster/stream/client.ts";
import { FETCH } from "../../../src/cluster/stream/messages.ts";
import { PageSum } from "../../../src/ltx/page-sum.ts";
import type { Replica } from "../../../src/database/replica.ts";
import { caughtUp, Follower, identity, Lead, leadDatabases, type LeadDatabase, Place, until } from "./nodes.ts";
import { Wire } from "./wire.ts";

let place: Place;
let app: LeadDatabase;
/** Has what `app` has. */
let other: Replica;
/** Of the node that has `other`. */
let peer: Lead;
let isPrimary: boolean;
let follower: Follower;
/** Of the node that takes over: has what is in the log. */
let replica: Replica;

beforeEach(async () => {
  place = new Place();
  isPrimary = false;
  [app] = (await leadDatabases(place, "app.db")) as [LeadDatabase];
  const lead = await Lead.open(place, [app]);
  follower = new Follower(place, "candidate");
  const more = new Follower(place, "more");
  for (const one of [follower, more]) one.client.follow(lead.url);
  app.write(1_000, 10);
  replica = await follower.start("app.db");
  other = await more.start("app.db");
  await caughtUp(app, replica);
  await app.seal();
  await until("the record is placed", () => replica.record?.position === replica.position);
  await follower.replicas.get("app.db")!.attachment.detach();
  app.write(4_000, 1_000);
  await caughtUp(app, other);
  for (const one of [follower, more]) one.client.follow(undefined);
  peer = await Lead.open(place, [], {
    role: () => ({ isPrimary, primary: undefined }),
    followed: new FollowingDatabases(() => [{ name: "app.db", replica: other }]),
  });
});
afterEach(() => place.remove());

/** A connection that asks what the node there has. */
async function asking(url: string): Promise<StreamClient> {
  let isConnected = false;
  const client = new StreamClient({
    identity: () => identity("candidate"),
    secret: undefined,
    isCandidate: false,
    features: [FETCH],
    heartbeatMs: 200,
    onConnected: () => (isConnected = true),
  });
  place.closing(() => client.close());
  client.follow(url);
  await until("connected", () => isConnected);
  return client;
}

const soon = (): AbortSignal => AbortSignal.timeout(20_000);
const rows = (): unknown => follower.read("app.db", "select count(*) from t");

test("what is missing comes as one step on top of the last record, which stays", async () => {
  const client = await asking(peer.url);
  const { record, position } = replica;
  expect(await client.fetch("app.db", replica, soon())).toBe(true);
  expect(replica.position).toBe(other.position);
  expect(replica.position).toBeGreaterThan(position!);
  expect(replica.checksum).toBe(other.checksum);
  expect(replica.record).toEqual(record);
  expect(existsSync(path.join(replica.stateDir, "quarantine"))).toBe(false);
  expect(rows()).toBe(1_010);
  expect(follower.read("app.db", "pragma integrity_check")).toBe("ok");
  // Now there is nothing more; and a database that isn't there has nothing.
  expect(await client.fetch("app.db", replica, soon())).toBe(false);
  expect(await client.fetch("other.db", replica, soon())).toBe(false);
});

test("a state that the other node has never had goes to the quarantine first", async () => {
  const { position, record, pageCount, pageSize, sums, checksum } = replica;
  const content = Buffer.alloc(pageSize, 7);
  const sum = new PageSum(pageSize);
  sum.of(pageCount, content, 0, pageSize);
  const word = (lo: number, hi: number): bigint => (BigInt(hi >>> 0) << 32n) | BigInt(lo >>> 0);
  const at = 2 * (pageCount - 1);
  const after = checksum ^ word(sums[at]!, sums[at + 1]!) ^ word(sum.lo, sum.hi);
  // The name is the next commit's, the content isn't.
  const head = { before: position!, position: position! + 1n, pageCount, checksum: after, pages: 1 };
  const change = await replica.change(head);
  change.pages({ numbers: Uint32Array.of(pageCount), content });
  await change.commit();
  expect(await (await asking(peer.url)).fetch("app.db", replica, soon())).toBe(true);
  expect(replica).toMatchObject({ position: other.position, checksum: other.checksum, record });
  expect(readdirSync(path.join(replica.stateDir, "quarantine"))).toHaveLength(1);
  expect(rows()).toBe(1_010);
});

test("when the other node dies in the middle nothing has changed, and the next one can be asked", async () => {
  const wire = await Wire.open(peer.url);
  place.closing(() => wire.close());
  const client = await asking(wire.url);
  const before = { position: replica.position, checksum: replica.checksum };
  const fetched = client.fetch("app.db", replica, soon());
  const cut = setInterval(() => wire.downBytes > 400_000 && wire.cut(), 1);
  await expect(fetched.finally(() => clearInterval(cut))).rejects.toMatchObject({ code: "SLU-8210" });
  expect({ position: replica.position, checksum: replica.checksum }).toEqual(before);
  expect(rows()).toBe(10);
  expect(await (await asking(peer.url)).fetch("app.db", replica, soon())).toBe(true);
  expect(rows()).toBe(1_010);
});

test("one that is silent is given up when the time is over", async () => {
  const wire = await Wire.open(peer.url);
  place.closing(() => wire.close());
  const client = await asking(wire.url);
  wire.silence();
  const fetched = client.fetch("app.db", replica, AbortSignal.timeout(100));
  await expect(fetched).rejects.toMatchObject({ code: expect.stringMatching(/SLU-82(13|09|10)/) });
  expect(rows()).toBe(10);
});

test("a state of an epoch that the log doesn't end with is not fetched", async () => {
  const { record } = replica;
  await replica.sealed({ ...record!, txid: record!.txid + 1, epoch: record!.epoch + 7 });
  const client = await asking(peer.url);
  expect(await client.fetch("app.db", replica, soon())).toBe(false);
  expect(rows()).toBe(10);
});

test("a primary shows nothing to who only asks; it is no replica of it", async () => {
  isPrimary = true;
  const client = await asking(peer.url);
  expect(await client.fetch("app.db", replica, soon())).toBe(false);
  isPrimary = false;
  await asking(peer.url);
  expect(peer.server.replicas).toHaveLength(1);
});
